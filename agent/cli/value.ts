/** From what stands on a command line to the value of a param, as its schema has it. What it may be the daemon checks. */
import { readFileSync } from 'node:fs';
import { memberOf, resolve, variantsOf } from '../api/resolve.js';
import type { JsonSchema } from '../api/schema.js';

/** What was typed is not of the kind that the param is. */
export class BadValue extends Error {
  override readonly name = 'BadValue';
}

export type ValueKind = 'text' | 'integer' | 'boolean' | 'object' | 'list';

/** How a param is typed. */
export function kindOf(schema: JsonSchema): ValueKind {
  const whole = resolve(schema);
  if (variantsOf(whole).length > 0) return 'object';
  const types = [whole.type].flat();
  if (types.includes('array')) return 'list';
  if (types.includes('integer') || types.includes('number')) return 'integer';
  return types.includes('boolean') ? 'boolean' : 'text';
}

/**
 * The value of a param. An object is JSON (`{"type": "unix"}`), `@FILE` with JSON in it (`@-`: the standard input), or
 * members (`type=tcp,tls=x509,clients=dns:a.example,clients=dns:b.example`, `inner.member=…`). A list is JSON, `@FILE`
 * or one item of it.
 * @throws BadValue
 */
export function readValue(name: string, schema: JsonSchema, text: string): unknown {
  switch (kindOf(schema)) {
    case 'integer':
      if (!/^-?\d{1,16}$/.test(text)) throw new BadValue(`"${text}" is not an integer`);
      return Number(text);
    case 'boolean':
      if (text !== 'true' && text !== 'false') throw new BadValue(`"${text}" is neither true nor false`);
      return text === 'true';
    case 'text':
      return text;
    case 'list':
      return isJson(text) ? [json(name, text)].flat() : [readValue(name, itemsOf(schema), text)];
    case 'object':
      if (isJson(text)) return json(name, text, schema);
      return readMembers(name, schema, text);
  }
}

/** What the items of a list are. */
export function itemsOf(schema: JsonSchema): JsonSchema {
  return (resolve(schema).items as JsonSchema | undefined) ?? {};
}

function isJson(text: string): boolean {
  return /^\s*[[{@]/.test(text);
}

function json(name: string, text: string, schema?: JsonSchema): unknown {
  const isFile = text.startsWith('@');
  const file = text === '@-' ? 0 : text.slice(1);
  let value: unknown;
  try {
    value = JSON.parse(isFile ? readFileSync(file, 'utf8') : text);
  } catch (error) {
    throw new BadValue(`${isFile ? `${text}: ` : ''}${(error as Error).message}`, { cause: error });
  }
  // A whole answer, of which this is a member: `--drive @answer.json`.
  const inner = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  const isAnswer = isFile && isObject(inner) && schema !== undefined && memberOf(schema, name) === undefined;
  return isAnswer ? inner : value;
}

function readMembers(name: string, schema: JsonSchema, text: string): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  for (const part of text.split(',')) {
    const [, path = '', member = ''] = /^([^=]+)=(.*)$/s.exec(part) ?? [];
    if (path === '') {
      throw new BadValue(`"${part}" is not member=value; what holds a comma is written as JSON, or as @FILE`);
    }
    put(value, schema, path.split('.'), member, `${name}.${path}`);
  }
  return value;
}

function put(
  into: Record<string, unknown>,
  schema: JsonSchema,
  path: string[],
  text: string,
  full: string,
): void {
  const [key = '', ...rest] = path;
  const member = memberOf(schema, key);
  // Not an assignment to whatever it is: `__proto__` is a member like any other, for the daemon to refuse.
  const set = (value: unknown) =>
    Object.defineProperty(into, key, { value, enumerable: true, writable: true, configurable: true });
  const old = Object.hasOwn(into, key) ? into[key] : undefined;
  if (rest.length > 0) {
    const inner = isObject(old) ? old : {};
    set(inner);
    put(inner, member ?? {}, rest, text, full);
    return;
  }
  const value = readValue(full, member ?? {}, text);
  if (old === undefined) set(value);
  else if (Array.isArray(old) && Array.isArray(value)) old.push(...value);
  else throw new BadValue(`${full} is given twice`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
