import type { JsonSchema } from '../../agent/api/schema.js';
import { typeSchemas } from '../../agent/api/schemas.js';
import type { SeededRandom } from '../golden/random.js';
import { Members, RawJson } from './json-text.js';

/** Where the fixtures of `edge.ts` lie: under the allowed root, none of them a plain file. */
export const IMAGES = '/var/lib/libvirt/images';
export const FIXTURES = ['link-out', 'link-loop', 'link-nowhere', 'directory', 'fifo', 'socket'] as const;

/** Ids, names, paths: right ones, those that have made trouble somewhere, and those that no schema lets through. */
const strings: readonly [string, ...string[]] = [
  'a', 'vda', 'b1', 'web1', 'x.y-z_0', '9b2c7a1e-6b1f-4d53-8f3e-5a0c6d7e8f90', 'f'.repeat(64), 'f'.repeat(65),
  '', ' ', '.', '..', '../../etc', '../../../../etc/passwd', '/', '/etc/passwd', '//etc//shadow', '/proc/self/mem',
  '/dev/zero', '/dev/null', IMAGES, `${IMAGES}/..`, `${IMAGES}/../../../../etc/shadow`, `${IMAGES}/none.qcow2`,
  ...FIXTURES.map((name) => `${IMAGES}/${name}`), `${IMAGES}/link-out/x`, `${IMAGES}/${'d/'.repeat(2000)}x`,
  '__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'then', 'toJSON',
  '\0', 'a\0b', '/a\0b', '\u001b[2J', '\r\n', '\u0085', '\u2028', '\u202egpj', '\ufeff', 'é', 'e\u0301', '😀', 'ı', 'ﬁ',
  '\ud800', '\udfff', 'a\udc00b', '\udfff\ud800', '-o', '--help', '-', '%s%n%x', '$(id)', '`id`', "';--", '<!--', ']]>',
  '&x;', 'json:{"driver":"null-co"}', 'nbd://127.0.0.1:1/x', 'null', 'true', '0', '1e400', 'x'.repeat(300), 'ä'.repeat(5000),
]; // biome-ignore format: a table

const numbers: readonly [unknown, ...unknown[]] = [
  0,
  1,
  -1,
  2,
  511,
  512,
  65536,
  0.5,
  -0,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  1e21,
  1.7e308,
  5e-324,
  ...[
    '1e400',
    '-1e400',
    '9007199254740993',
    '123456789012345678901234567890',
    '1E-400',
    '-0',
    '1.0',
    '0e99',
  ].map((text) => new RawJson(text)),
];

/** Any JSON value, small or hostile, at most so deep. */
export function anything(random: SeededRandom, depth = 3): unknown {
  switch (random.below(depth > 0 ? 9 : 5)) {
    case 0:
    case 1:
      return random.pick(strings);
    case 2:
      return random.pick(numbers);
    case 3:
      return random.pick([null, true, false]);
    case 4:
      return random.pick([[], {}, [null], [[]], {}, new RawJson('{"__proto__":{"admin":true}}')]);
    case 5:
    case 6:
      return Array.from({ length: random.below(5) }, () => anything(random, depth - 1));
    case 7:
      return nested(random);
    default:
      return new Members(
        Array.from(
          { length: random.below(5) },
          () => [random.pick(strings), anything(random, depth - 1)] as const,
        ),
      );
  }
}

/** Deeper than any schema, and now and then deeper than a recursion bears. */
export function nested(random: SeededRandom): RawJson {
  const depth = random.pick([5, 33, 200, 5000, 30_000]);
  return random.chance(0.5)
    ? new RawJson('['.repeat(depth) + ']'.repeat(depth))
    : new RawJson(`${'{"a":'.repeat(Math.ceil(depth / 5))}1${'}'.repeat(Math.ceil(depth / 5))}`);
}

/** A value that the schema allows, most often: rules over several members are left to chance. */
export function fromSchema(random: SeededRandom, given: JsonSchema): unknown {
  const schema = resolved(given);
  if (schema.const !== undefined) return schema.const;
  if (Array.isArray(schema.enum)) return random.pick(schema.enum as [unknown, ...unknown[]]);
  const branches = (schema.oneOf ?? schema.anyOf) as [JsonSchema, ...JsonSchema[]] | undefined;
  if (branches !== undefined && schema.properties === undefined)
    return fromSchema(random, random.pick(branches));
  switch ([schema.type].flat()[0]) {
    case 'object':
      return fromProperties(random, schema);
    case 'array': {
      const [least, most] = [Number(schema.minItems ?? 0), Number(schema.maxItems ?? 5)];
      const items = (schema.items ??
        (schema.prefixItems as JsonSchema[] | undefined)?.[0] ??
        {}) as JsonSchema;
      return Array.from({ length: least + random.below(Math.min(most - least, 4) + 1) }, () =>
        fromSchema(random, items),
      );
    }
    case 'integer':
    case 'number': {
      const [least, most] = [Number(schema.minimum ?? 0), Number(schema.maximum ?? 2 ** 53 - 1)];
      return random.pick([least, most, Math.min(most, least + random.below(2 ** 32))]);
    }
    case 'boolean':
      return random.chance(0.5);
    case 'string':
      return fromPattern(random, schema);
    default:
      return anything(random, 1);
  }
}

function fromProperties(
  random: SeededRandom,
  { properties = {}, required = [] }: JsonSchema,
): Record<string, unknown> {
  const made: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(properties as Record<string, JsonSchema>)) {
    if ((required as string[]).includes(name) || random.chance(0.4)) made[name] = fromSchema(random, schema);
  }
  return made;
}

/** One of the pool that fits; where none does, one that does not: what the schema says is for the daemon to find out. */
function fromPattern(random: SeededRandom, schema: JsonSchema): string {
  const pattern = new RegExp(String(schema.pattern ?? ''), 'u');
  const fitting = [...strings, 'qcow2', 'raw', 'aaaaabbbbbcccccddddd', 'root', 'nobody'].filter(
    (text) => pattern.test(text) && text.length <= Number(schema.maxLength ?? 64),
  );
  return random.pick(fitting.length > 0 ? (fitting as [string, ...string[]]) : strings);
}

function resolved(schema: JsonSchema): JsonSchema {
  const name = /^#\/components\/schemas\/(.*)$/.exec(String(schema.$ref ?? ''))?.[1];
  return name === undefined ? schema : (typeSchemas[name] ?? {});
}

/** The same value with one thing wrong: a member gone, added, twice or retyped, somewhere in it. */
export function spoiled(random: SeededRandom, value: unknown): unknown {
  if (Array.isArray(value) && value.length > 0 && random.chance(0.7)) {
    const at = random.below(value.length);
    return value.flatMap((item, i) =>
      i !== at ? [item] : random.chance(0.2) ? [item, item] : [spoiled(random, item)],
    );
  }
  const plain =
    typeof value === 'object' && value !== null && !(value instanceof RawJson || value instanceof Members);
  if (!plain || Array.isArray(value)) return anything(random);
  const entries = Object.entries(value);
  const at = random.below(Math.max(1, entries.length));
  switch (random.below(6)) {
    case 0:
      return new Members(entries.filter((_, i) => i !== at));
    case 1:
      return new Members([...entries, [random.pick(strings), anything(random, 1)]]);
    case 2:
      return new Members([
        ...entries,
        ...entries.slice(at, at + 1).map(([name]) => [name, anything(random, 1)] as const),
      ]);
    default:
      return new Members(
        entries.map(([name, member], i) => [name, i === at ? spoiled(random, member) : member]),
      );
  }
}
