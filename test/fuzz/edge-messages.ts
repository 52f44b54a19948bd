import { verbSchemas } from '../../agent/api/schemas.js';
import type { VerbName } from '../../agent/verbs/verb.js';
import type { SeededRandom } from '../golden/random.js';
import { Members, RawJson, toJson } from './json-text.js';
import { anything, fromSchema, nested, spoiled } from './json-values.js';

const verbs = Object.keys(verbSchemas) as [VerbName, ...VerbName[]];

/** Names that are no verbs, and some that would be something to a careless program. */
const strangeMethods: readonly [string, ...string[]] = [
  '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'rpc.', 'rpc.discover ', 'PrepareBackupDisk',
  'getHostInfo\0', 'x'.repeat(5000), '', '../getHostInfo', 'mountDisk', '\ud800', 'then',
]; // biome-ignore format: a table

const strangeIds: readonly [unknown, ...unknown[]] = [
  null, true, [], {}, [1], { a: 1 }, '', '\0', '\ud800', '__proto__', 'i'.repeat(3000), 0, -1, 1.5, 2 ** 53 - 1,
  ...['1e400', '-1e400', '9007199254740993', '1e21', '-0', '1.0', '1e-400', '0.1'].map((text) => new RawJson(text)),
  new RawJson('['.repeat(2000) + ']'.repeat(2000)), new RawJson('{"toJSON":1}'),
]; // biome-ignore format: a table

/** The bytes of one message with its newline, and what kind it is, for whoever reads of a failure. */
export interface MessageText {
  readonly kind: string;
  readonly bytes: Buffer;
}

/** One message: most are nearly right, so that they get far. */
export function messageText(random: SeededRandom, id: number, frameBytes: number): MessageText {
  const line = (kind: string, text: string): MessageText => ({ kind, bytes: Buffer.from(`${text}\n`) });
  const dice = random.below(100);
  if (dice < 55) return line('call', toJson(call(random, id)));
  if (dice < 68) return line('envelope', toJson(strangeEnvelope(random, id)));
  if (dice < 76) return line('batch', batchText(random, id));
  if (dice < 90)
    return { kind: 'broken', bytes: broken(random, Buffer.from(`${toJson(call(random, id))}\n`)) };
  if (dice < 94)
    return { kind: 'noise', bytes: Buffer.concat([random.bytes(random.below(400)), Buffer.from('\n')]) };
  if (dice < 96) return line('any value', toJson(anything(random)));
  if (dice < 98)
    return line('blank', random.pick(['', '\r', ' ', '\r\r', '\t', '\ufeff', '\ufeff{}', '{}\r']));
  return line(
    'long',
    `{"jsonrpc":"2.0","id":${id},"method":"getHostInfo","params":{"x":"${'x'.repeat(aroundLimit(random, frameBytes))}"}}`,
  );
}

function aroundLimit(random: SeededRandom, frameBytes: number): number {
  return Math.max(0, frameBytes - 70 + random.pick([-100, -5, -1, 0, 1, 2, 5, 100, frameBytes]));
}

function call(random: SeededRandom, id: number): Members {
  const method = random.pick(verbs);
  let params = fromSchema(random, verbSchemas[method].params as never);
  for (let wrong = random.pick([0, 0, 1, 1, 1, 2, 3]); wrong > 0; wrong--) params = spoiled(random, params);
  return request({ id, method, params });
}

function request(members: Record<string, unknown>): Members {
  return new Members(Object.entries({ jsonrpc: '2.0', ...members }));
}

/** What is around the params is strange: version, method, id, kind of params, members twice, none at all. */
function strangeEnvelope(random: SeededRandom, id: number): unknown {
  const right = { jsonrpc: '2.0', id, method: random.pick(verbs), params: {} };
  switch (random.below(9)) {
    case 0:
      return {
        ...right,
        jsonrpc: random.pick([undefined, null, 2, '2.00', '1.0', ['2.0'], new RawJson('2.0')]) ?? null,
      };
    case 1:
      return {
        ...right,
        method: random.pick([null, 1, [], {}, ['getHostInfo'], new RawJson('{"toString":1}')]),
      };
    case 2:
      return { ...right, method: random.pick(strangeMethods) };
    case 3:
    case 4:
      return { ...right, id: random.pick(strangeIds) };
    case 5:
      return {
        ...right,
        params: random.pick([null, 1, 'x', [], [{}], true, nested(random), new RawJson('1e400')]),
      };
    case 6:
      return { jsonrpc: '2.0', method: right.method, params: right.params };
    case 7:
      return new Members([
        ...Object.entries(right),
        ['id', random.pick(strangeIds)],
        [random.pick(strangeMethods), 1],
      ]);
    default:
      return spoiled(random, right);
  }
}

function batchText(random: SeededRandom, id: number): string {
  const size = random.pick([0, 1, 2, 3, 5, 20, 20, 21, 40]);
  const calls = Array.from({ length: size }, (_, i) => {
    const dice = random.below(10);
    if (dice < 5) return request({ id: `${id}.${i}`, method: 'listExports' });
    if (dice < 7) return call(random, id * 1000 + i);
    return dice < 9 ? strangeEnvelope(random, id) : anything(random, 2);
  });
  return toJson(calls);
}

/** A right message with some of its bytes gone, changed, doubled or moved; a newline may be among them. */
function broken(random: SeededRandom, right: Buffer): Buffer {
  let bytes = right;
  for (let wrong = 1 + random.below(4); wrong > 0; wrong--) {
    const at = random.below(bytes.length);
    const end = Math.min(bytes.length, at + 1 + random.below(8));
    const [head, part, tail] = [bytes.subarray(0, at), bytes.subarray(at, end), bytes.subarray(end)];
    const other = [
      [head, tail],
      [head, part, part, tail],
      [head, Buffer.from([random.below(256)]), tail],
      [
        head,
        Buffer.from(random.pick(['\n', '"', '\\', '}', ']', ',', '\\u', '\\ud800', '\ud83d', '/*', "'"])),
        part,
        tail,
      ],
      [part, head, tail],
    ][random.below(5)] as Buffer[];
    bytes = Buffer.concat(other);
    if (bytes.length === 0) return Buffer.from('\n');
  }
  return random.chance(0.8) ? Buffer.concat([bytes, Buffer.from('\n')]) : bytes;
}
