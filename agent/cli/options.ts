/** The options of a subcommand: one a param of its verb, from the schema. */
import { InvalidArgumentError, Option } from 'commander';
import { resolve } from '../api/resolve.js';
import type { JsonSchema, VerbSchema } from '../api/schema.js';
import { valueText } from './help.js';
import { kebab } from './names.js';
import { BadValue, kindOf, readValue } from './value.js';

/** An option for each param, the required ones first. @param params gets what is typed */
export function optionsOf(verb: VerbSchema, params: Record<string, unknown>): Option[] {
  const required = verb.params.required ?? [];
  return Object.entries(verb.params.properties)
    .sort(([a], [b]) => Number(required.includes(b)) - Number(required.includes(a)))
    .map(([name, schema]) => {
      const isRequired = required.includes(name);
      const description = valueText(verb, schema, isRequired);
      return optionOf(name, schema, description, params).makeOptionMandatory(isRequired);
    });
}

const PLACEHOLDERS = { text: '<text>', integer: '<integer>', object: '<object>', list: '<item...>' };

function optionOf(
  name: string,
  schema: JsonSchema,
  description: string,
  params: Record<string, unknown>,
): Option {
  const kind = kindOf(schema);
  // What was typed goes straight into the params: commander's camel case has no say in their names.
  const take = (text: string): true => {
    const value = checked(name, schema, text);
    const old = params[name];
    params[name] = Array.isArray(old) && Array.isArray(value) ? [...old, ...value] : value;
    return true;
  };
  if (kind === 'boolean') {
    const turned = resolve(schema).default !== true;
    return new Option(`--${turned ? '' : 'no-'}${kebab(name)}`, description)
      .argParser(take)
      .preset(String(turned));
  }
  return new Option(`--${kebab(name)} ${PLACEHOLDERS[kind]}`, description).argParser(take);
}

/** @throws InvalidArgumentError, which commander words with the option's name */
function checked(name: string, schema: JsonSchema, text: string): unknown {
  const values = resolve(schema).enum as unknown[] | undefined;
  if (values !== undefined && !values.includes(text)) {
    throw new InvalidArgumentError(`It is one of ${values.join(', ')}.`);
  }
  try {
    return readValue(name, schema, text);
  } catch (error) {
    if (error instanceof BadValue) throw new InvalidArgumentError(`${error.message}.`);
    throw error;
  }
}
