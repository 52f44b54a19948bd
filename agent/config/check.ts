/** Checks merged options against the schema, fills in defaults, and words what is wrong. */
import { Ajv2020, type ErrorObject } from 'ajv/dist/2020.js';
import type { Config } from '../api/generated.js';
import { configSchema } from '../api/schemas.js';
import { ConfigError } from './error.js';
import type { MergedFiles } from './files.js';

/** @throws ConfigError with one line a mistake */
export function checkOptions({ options, fileOf }: MergedFiles): Config {
  const ajv = new Ajv2020({ allErrors: true, useDefaults: true, verbose: true });
  ajv.addKeyword('x-reload');
  const validate = ajv.compile<Config>(configSchema);
  if (validate(options)) return options;
  const lines = (validate.errors ?? []).map((error) => {
    const path = keyPath(error);
    const file = fileOf(path);
    return `${file === undefined ? '' : `${file}: `}${path.join('.')} ${sentence(error)}`;
  });
  throw new ConfigError([...new Set(lines)].join('\n'));
}

/** `/rpc/socket` → `['rpc', 'socket']`; for an unknown key, the key itself. */
function keyPath({ keyword, instancePath, params }: ErrorObject): string[] {
  const path = instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  return keyword === 'additionalProperties' ? [...path, String(params.additionalProperty)] : path;
}

function sentence(error: ErrorObject): string {
  const schema = error.parentSchema as { [keyword: string]: unknown };
  switch (error.keyword) {
    case 'additionalProperties': {
      const known = Object.keys(schema.properties as object);
      return `is not an option; allowed here: ${known.join(', ')}`;
    }
    case 'enum':
      return `is ${shown(error.data)}; allowed: ${(schema.enum as unknown[]).map((value) => JSON.stringify(value)).join(', ')}`;
    case 'type':
      return `is ${shown(error.data)}; allowed: ${allowed(schema)}`;
    default:
      return `is ${shown(error.data)}, which ${error.message}; allowed: ${allowed(schema)}`;
  }
}

function allowed(schema: { [keyword: string]: unknown }): string {
  const type = schema.type;
  if (type === 'integer') return `an integer from ${schema.minimum} to ${schema.maximum}`;
  if (type === 'array') {
    const { type: items } = schema.items as { type: string };
    return `a list of at most ${schema.maxItems} ${items === 'object' ? 'tables' : 'strings'}`;
  }
  if (type === 'object') return 'a table';
  if (schema.enum !== undefined) return (schema.enum as unknown[]).map((v) => JSON.stringify(v)).join(', ');
  const form = schema.pattern === undefined ? '' : ` that matches ${schema.pattern}`;
  return `a string of ${schema.minLength ?? 0}-${schema.maxLength} characters${form}`;
}

/** A value for a message, cut short. */
function shown(value: unknown): string {
  const text =
    JSON.stringify(value, (_key, part) => (typeof part === 'bigint' ? String(part) : part)) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
