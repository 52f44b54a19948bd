/** Schemas as words, for the reference, the man pages and `vmdiskctl --help`. */
import type { JsonSchema } from './schema.js';

/** The members of an object schema by name; none of any other. */
export function membersOf(schema: JsonSchema): Record<string, JsonSchema> {
  return (schema.properties as Record<string, JsonSchema> | undefined) ?? {};
}

/** The name of the shared type that a schema refers to; undefined where it says itself what it is. */
export function typeNameOf({ $ref }: JsonSchema): string | undefined {
  return typeof $ref === 'string' ? $ref.slice($ref.lastIndexOf('/') + 1) : undefined;
}

/**
 * What a schema takes, in few words: `integer 0..10000`, `"raw" or "qcow2"`, `array of Extent`.
 * @param refer words for a shared type, by its name
 * @param quote marks a value
 */
export function typeText(
  schema: JsonSchema,
  refer: (name: string) => string,
  quote: (value: string) => string = (value) => `\`${value}\``,
): string {
  const words = (part: JsonSchema): string => typeText(part, refer, quote);
  const name = typeNameOf(schema);
  if (name !== undefined) return refer(name);
  const choices = (schema.anyOf ?? schema.oneOf) as JsonSchema[] | undefined;
  if (choices !== undefined) return choices.map(words).join(' or ');
  if ('const' in schema) return quote(JSON.stringify(schema.const));
  const values = schema.enum as unknown[] | undefined;
  if (values !== undefined) return values.map((value) => quote(JSON.stringify(value))).join(' or ');
  if (schema.type === 'array') return `array of ${words(schema.items as JsonSchema)}`;
  const type = [schema.type].flat().join(' or ');
  const { minimum, maximum, minLength, maxLength, pattern } = schema;
  const range = minimum === undefined && maximum === undefined ? '' : ` ${minimum ?? ''}..${maximum ?? ''}`;
  const length = maxLength === undefined ? '' : `, ${minLength ?? 0}-${maxLength} characters`;
  return `${type}${range}${length}${pattern === undefined ? '' : `, ${quote(String(pattern))}`}`;
}
