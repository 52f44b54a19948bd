/** `rpc.discover`: the API as an OpenRPC document (https://spec.open-rpc.org), made of the same schemas. */
import type { JsonSchema, VerbSchema } from '../api/schema.js';
import { apiInfo, errorMeanings, typeSchemas, verbSchemas } from '../api/schemas.js';
import { type ErrorName, errorRegistry } from '../errors.js';
import type { VerbName } from '../verbs/verb.js';

/** What any verb may end with. */
const commonErrors: readonly ErrorName[] = ['Timeout', 'LimitReached'];

/** @param verbs those that the daemon has; the others are left out */
export function discoverDocument(verbs: readonly VerbName[]): Record<string, unknown> {
  return {
    openrpc: '1.3.2',
    info: { ...apiInfo, license: { name: 'Apache-2.0' } },
    methods: verbs.map((name) => method(verbSchemas[name])),
    components: { schemas: typeSchemas },
  };
}

function method(verb: VerbSchema): Record<string, unknown> {
  const { properties, required = [], allOf = [] } = verb.params;
  return {
    name: verb.name,
    summary: verb.summary,
    description: verb.description,
    paramStructure: 'by-name',
    params: Object.entries(properties)
      .map(([name, schema]) => param(name, schema, required.includes(name)))
      // OpenRPC wants the required ones first, by-name or not.
      .sort((a, b) => Number(b.required) - Number(a.required)),
    result: { name: 'result', schema: verb.result },
    errors: [...verb.errors, ...commonErrors].map((name) => errorObject(name as ErrorName)),
    'x-changes': verb.changes,
    'x-undoes': verb.undoes,
    'x-deadlineSeconds': verb.deadlineSeconds,
    'x-rules': allOf.map((rule) => rule['x-rule']),
  };
}

function param(name: string, schema: JsonSchema, required: boolean) {
  return { name, description: String(schema.description), required, schema };
}

function errorObject(name: ErrorName): Record<string, unknown> {
  const { code, retryable, ...rest } = errorRegistry[name];
  // Where it depends on the case there is nothing to promise.
  const data = 'depends' in rest ? { name } : { name, retryable };
  return { code, message: errorMeanings[name], data };
}
