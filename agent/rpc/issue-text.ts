/** Words for what ajv finds wrong. */
import type { ErrorObject } from 'ajv/dist/2020.js';
import type { Issue } from '../errors.js';

type Schema = { readonly [keyword: string]: unknown };

/**
 * The issues behind ajv's errors (made with `allErrors` and `verbose`), at most `most`. A schema with an `x-rule`
 * is worded by it, and what its branches found is left out: "must have path" helps nobody who gave vmId.
 */
export function issuesOf(errors: readonly ErrorObject[], most: number): Issue[] {
  const ruled = errors.filter((error) => rule(error) !== undefined).map(({ schemaPath }) => `${schemaPath}/`);
  const issues = new Map<string, Issue>();
  for (const error of errors) {
    if (ruled.some((prefix) => error.schemaPath.startsWith(prefix))) continue;
    const issue = { path: pathOf(error), message: rule(error) ?? sentence(error) };
    issues.set(`${issue.path}\n${issue.message}`, issue);
    if (issues.size === most) break;
  }
  return [...issues.values()];
}

/** `{path: '/drive/hosts/0/port', message: 'must be an integer'}` → `drive.hosts[0].port must be an integer`. */
export function issueSentence({ path, message }: Issue): string {
  const place = path
    .split('/')
    .slice(1)
    .map((part) =>
      /^\d+$/.test(part) ? `[${part}]` : `.${part.replaceAll('~1', '/').replaceAll('~0', '~')}`,
    )
    .join('')
    .replace(/^\./, '');
  return place === '' ? message : `${place} ${message}`;
}

/** Type errors keep their own words: "must be a string" says more there than the rule on its content. */
function rule({ keyword, parentSchema }: ErrorObject): string | undefined {
  const text = (parentSchema as Schema | undefined)?.['x-rule'];
  return typeof text === 'string' && keyword !== 'type' ? text : undefined;
}

function pathOf({ keyword, instancePath, params }: ErrorObject): string {
  const member: unknown =
    keyword === 'required'
      ? params.missingProperty
      : keyword === 'additionalProperties'
        ? params.additionalProperty
        : keyword === 'discriminator'
          ? params.tag
          : undefined;
  if (typeof member !== 'string') return instancePath;
  return `${instancePath}/${member.slice(0, 64).replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

function sentence({ keyword, params, parentSchema, message }: ErrorObject): string {
  const schema = (parentSchema ?? {}) as Schema;
  switch (keyword) {
    case 'required':
      return 'is required';
    case 'additionalProperties':
      return `is not known here; known are ${Object.keys((schema.properties ?? {}) as object).join(', ') || 'no members'}`;
    case 'type':
      return `must be ${[schema.type].flat().map(article).join(' or ')}`;
    case 'enum':
      return `must be ${(schema.enum as unknown[]).map((value) => JSON.stringify(value)).join(' or ')}`;
    case 'const':
      return `must be ${JSON.stringify(schema.const)}`;
    case 'minimum':
      return `must be at least ${params.limit}`;
    case 'maximum':
      return `must be at most ${params.limit}`;
    case 'minLength':
      return params.limit === 1 ? 'must not be empty' : `must have at least ${params.limit} characters`;
    case 'maxLength':
      return `must have at most ${params.limit} characters`;
    case 'minItems':
      return `must have at least ${params.limit} items`;
    case 'maxItems':
      return `must have at most ${params.limit} items`;
    case 'pattern':
      return `must match ${params.pattern}`;
    case 'discriminator':
      return `must be ${tags(schema, String(params.tag)).join(' or ')}`;
    default:
      return message ?? 'is not valid';
  }
}

function article(type: unknown): string {
  return type === 'null' ? 'null' : `${/^[aio]/.test(String(type)) ? 'an' : 'a'} ${String(type)}`;
}

/** The values that tell the branches of a discriminated `oneOf` apart. */
function tags(schema: Schema, tag: string): string[] {
  const branches = (schema.oneOf ?? []) as Array<{ properties?: Record<string, Schema> }>;
  return branches.map((branch) => JSON.stringify(branch.properties?.[tag]?.const));
}
