/** Follows references: what a member is, with its own words over those of its type. */
import { membersOf, typeNameOf } from './describe.js';
import type { JsonSchema } from './schema.js';
import { typeSchemas } from './schemas.js';

/** The schema itself, or the shared type that it refers to under what it says besides (description, default). */
export function resolve(schema: JsonSchema): JsonSchema {
  const name = typeNameOf(schema);
  if (name === undefined) return schema;
  const { $ref: _, ...own } = schema;
  return resolve({ ...typeSchemas[name], ...own });
}

/** The object schemas that a schema stands for: itself, or those among its choices, null left out. */
export function variantsOf(schema: JsonSchema): JsonSchema[] {
  const whole = resolve(schema);
  const choices = (whole.oneOf ?? whole.anyOf) as JsonSchema[] | undefined;
  if (choices !== undefined) return choices.flatMap(variantsOf);
  return whole.type === 'object' ? [whole] : [];
}

/** The first member of that name in any of the object schemas that a schema stands for. */
export function memberOf(schema: JsonSchema, name: string): JsonSchema | undefined {
  for (const variant of variantsOf(schema)) {
    const members = membersOf(variant);
    if (Object.hasOwn(members, name)) return members[name];
  }
  return undefined;
}
