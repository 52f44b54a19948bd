/** Checks params and results against the schemas. */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import ajvFormats from 'ajv-formats';
import { typeSchemas, verbSchemas } from '../api/schemas.js';
import { InvalidParams } from '../errors.js';
import type { VerbName } from '../verbs/verb.js';
import { issueSentence, issuesOf } from './issue-text.js';
import type { EdgeLimits } from './limits.js';

export interface Validator {
  /**
   * Checks params and fills in defaults, in place.
   * @throws InvalidParams with an issue for each fault, also where params are not an object at all
   */
  checkParams(verb: VerbName, params: unknown): asserts params is Record<string, unknown>;
  /** What is wrong with a result; undefined: nothing. Costs time on long lists, so it is for tests. */
  faultOfResult(verb: VerbName, result: unknown): string | undefined;
}

export function createValidator(
  limits: Pick<EdgeLimits, 'paramsValues' | 'paramsDepth' | 'issues'>,
): Validator {
  const ajv = new Ajv2020({
    allErrors: true,
    verbose: true,
    useDefaults: true,
    discriminator: true,
    allowUnionTypes: true,
  });
  ajvFormats.default(ajv);
  ajv.addKeyword('x-rule');
  // One document, so that references mean the same here and in the OpenRPC document.
  ajv.addVocabulary(['components', 'verbs']);
  ajv.addSchema({ $id: 'api', components: { schemas: typeSchemas }, verbs: verbSchemas });

  const compiled = (verb: VerbName, part: 'params' | 'result'): ValidateFunction => {
    const validate = ajv.getSchema(`api#/verbs/${verb}/${part}`);
    if (validate === undefined) throw new Error(`no schema for ${verb}'s ${part}`);
    return validate;
  };

  return {
    checkParams(verb, params) {
      if (typeof params !== 'object' || params === null || Array.isArray(params)) {
        const message = 'must be an object: params go by name, not by position';
        throw new InvalidParams(`${verb}: params ${message}.`, [{ path: '', message }]);
      }
      if (!isModest(params, limits.paramsValues, limits.paramsDepth)) {
        const message = `hold more than ${limits.paramsValues} values, or nest deeper than ${limits.paramsDepth} levels`;
        throw new InvalidParams(`${verb}: params ${message}.`, [{ path: '', message }]);
      }
      const validate = compiled(verb, 'params');
      if (validate(params)) return;
      const issues = issuesOf(validate.errors ?? [], limits.issues);
      throw new InvalidParams(`${verb}: ${issues.map(issueSentence).join('; ')}.`, issues);
    },
    faultOfResult(verb, result) {
      const validate = compiled(verb, 'result');
      return validate(result) ? undefined : ajv.errorsText(validate.errors, { dataVar: 'result' });
    },
  };
}

/** Whether a parsed value has at most `values` values in it, `depth` levels deep. Looks no further than that. */
function isModest(value: unknown, values: number, depth: number): boolean {
  let level: unknown[] = [value];
  let seen = 0;
  for (let deep = 0; level.length > 0; deep++) {
    if (deep > depth) return false;
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item !== 'object' || item === null) continue;
      for (const member of Object.values(item)) {
        if (++seen > values) return false;
        next.push(member);
      }
    }
    level = next;
  }
  return true;
}
