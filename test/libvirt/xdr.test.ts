// The codec against an independent implementation of XDR, and the framing against every way of cutting a stream.
import * as oracle from '@stellar/js-xdr';
import fc from 'fast-check';
import t from 'tap';
import { remoteError } from '../../agent/libvirt/errors.js';
import { FrameSplitter, FramingError } from '../../agent/libvirt/framing.js';
import { decodeMessage, encodeMessage } from '../../agent/libvirt/message.js';
import {
  type TypedParam,
  TypedParamType,
  typedParam,
  typedParams,
} from '../../agent/libvirt/typed-params.js';
import { checkpoint, domain, text, uuid } from '../../agent/libvirt/wire-types.js';
import { XdrError, XdrReader, XdrWriter } from '../../agent/libvirt/xdr.js';
import {
  array,
  bool,
  int,
  optional,
  size,
  string,
  struct,
  uhyper,
  uint,
  type XdrType,
} from '../../agent/libvirt/xdr-types.js';

function encode<T>(type: XdrType<T>, value: T): Buffer {
  const writer = new XdrWriter(1); // so that growing is part of every test
  type.encode(writer, value);
  return Buffer.from(writer.bytes());
}

function decode<T>(type: XdrType<T>, bytes: Uint8Array): T {
  const reader = new XdrReader(Buffer.from(bytes));
  const value = type.decode(reader);
  reader.end();
  return value;
}

const int32s = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const uint32s = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const uint64s = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
/** What libvirt's strings can hold: any text without NUL. */
const texts = fc.string({ unit: 'binary', maxLength: 40 }).filter((value) => !value.includes('\0'));
const uuids = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => ({
  bytes,
  text: Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5'),
}));
const domains = fc.record({ name: texts, uuid: uuids, id: int32s });

const utf8 = (value: string): Uint8Array => new Uint8Array(Buffer.from(value));
const oracleText = oracle.string(4_194_304);
const oracleDomain = oracle.struct('domain', {
  name: oracleText,
  uuid: oracle.opaque(16),
  id: oracle.int32(),
});
const toOracleDomain = (value: { name: string; uuid: { bytes: Uint8Array }; id: number }) => ({
  name: utf8(value.name),
  uuid: value.uuid.bytes,
  id: value.id,
});
const toDomain = (value: { name: string; uuid: { text: string }; id: number }) => ({
  ...value,
  uuid: value.uuid.text,
});

t.test('every kind of type has the bytes that the oracle gives it, and comes back from them', async (t) => {
  const ours = struct({
    int,
    uint,
    uhyper,
    size,
    bool,
    text,
    bounded: string(200),
    optional: optional(text),
    list: array(uint, 10),
    domains: array(domain, 10),
    nested: optional(checkpoint),
  });
  const theirs = oracle.struct('all', {
    int: oracle.int32(),
    uint: oracle.uint32(),
    uhyper: oracle.uint64(),
    size: oracle.uint64(),
    bool: oracle.bool(),
    text: oracleText,
    bounded: oracle.string(200),
    optional: oracle.option(oracleText),
    list: oracle.array(oracle.uint32(), 10),
    domains: oracle.array(oracleDomain, 10),
    nested: oracle.option(oracle.struct('checkpoint', { name: oracleText, domain: oracleDomain })),
  });
  fc.assert(
    fc.property(
      fc.record({
        int: int32s,
        uint: uint32s,
        uhyper: uint64s,
        size: fc.maxSafeNat(),
        bool: fc.boolean(),
        text: texts,
        bounded: texts.filter((value) => utf8(value).length <= 200),
        optional: fc.option(texts),
        list: fc.array(uint32s, { maxLength: 10 }),
        domains: fc.array(domains, { maxLength: 10 }),
        nested: fc.option(fc.record({ name: texts, domain: domains })),
      }),
      (value) => {
        const plain = {
          ...value,
          domains: value.domains.map(toDomain),
          nested: value.nested && { ...value.nested, domain: toDomain(value.nested.domain) },
        };
        const bytes = encode(ours, plain);
        const expected = theirs.encode({
          ...value,
          size: BigInt(value.size),
          text: utf8(value.text),
          bounded: utf8(value.bounded),
          optional: value.optional === null ? null : utf8(value.optional),
          domains: value.domains.map(toOracleDomain),
          nested: value.nested && {
            name: utf8(value.nested.name),
            domain: toOracleDomain(value.nested.domain),
          },
        });
        if (!bytes.equals(expected)) throw new Error(`${bytes.toString('hex')} is not the oracle's`);
        t.same(decode(ours, expected), plain);
      },
    ),
    { numRuns: 200 },
  );
});

t.test('signed hypers, doubles and opaques', async (t) => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      fc.double({ noNaN: true }),
      fc.uint8Array({ maxLength: 30 }),
      (big, double, bytes) => {
        const writer = new XdrWriter();
        writer.hyper(big);
        writer.double(double);
        writer.opaque(bytes, 30);
        const schema = oracle.struct('s', {
          a: oracle.int64(),
          b: oracle.double(),
          c: oracle.varOpaque(30),
        });
        const expected = schema.encode({ a: big, b: double, c: bytes });
        if (!writer.bytes().equals(expected)) throw new Error('not the bytes of the oracle');
        const reader = new XdrReader(Buffer.from(expected));
        t.same([reader.hyper(), reader.double(), [...reader.opaque(30)]], [big, double, [...bytes]]);
        reader.end();
      },
    ),
  );
});

t.test('typed parameters of every type; 64-bit ones exact on both sides of 2^53', async (t) => {
  const arm = (name: string, type: number, schema: oracle.XdrType<never>) =>
    oracle.case(name, type, oracle.field('value', schema));
  const schema = oracle.struct('param', {
    field: oracleText,
    value: oracle.union('value', {
      switchOn: oracle.int32() as oracle.XdrType<number>,
      cases: [
        arm('int', 1, oracle.int32() as never),
        arm('uint', 2, oracle.uint32() as never),
        arm('llong', 3, oracle.int64() as never),
        arm('ullong', 4, oracle.uint64() as never),
        arm('double', 5, oracle.double() as never),
        arm('boolean', 6, oracle.bool() as never),
        arm('string', 7, oracleText as never),
      ],
    }),
  });
  const { int, uint, llong, ullong, double, boolean, string } = TypedParamType;
  const samples: [TypedParam, unknown][] = [
    [{ field: 'a', type: int, value: -5 }, -5],
    [{ field: 'b', type: uint, value: 4294967295 }, 4294967295],
    [{ field: 'c', type: llong, value: -(2n ** 63n) }, -(2n ** 63n)],
    [{ field: 'd', type: llong, value: -7 }, -7n],
    [{ field: 'e', type: ullong, value: 2 ** 53 - 1 }, 2n ** 53n - 1n],
    [{ field: 'f', type: ullong, value: 2n ** 53n }, 2n ** 53n],
    [{ field: 'g', type: ullong, value: 2n ** 64n - 1n }, 2n ** 64n - 1n],
    [{ field: 'h', type: double, value: 0.25 }, 0.25],
    [{ field: 'i', type: boolean, value: true }, true],
    [{ field: 'success', type: string, value: 'grün' }, utf8('grün')],
  ];
  for (const [param, theirs] of samples) {
    const expected = schema.encode({
      field: utf8(param.field),
      value: { type: param.type, value: theirs } as never,
    });
    t.same(encode(typedParam, param), Buffer.from(expected), param.field);
    t.same(decode(typedParam, expected), param);
  }
  const list = encode(
    array(typedParam, 64),
    samples.map(([param]) => param),
  );
  const byName = decode(typedParams(64), list);
  t.equal(byName.f, 2n ** 53n);
  t.equal(byName.e, 2 ** 53 - 1);
  t.equal(byName.constructor, undefined, 'a name that every other object has');
  t.throws(() => decode(typedParam, schemaOfUnknownType()), /unknown type 8/);
});

/** field "x", type 8, four bytes of whatever it is. */
function schemaOfUnknownType(): Buffer {
  return Buffer.from('0000000178000000' + '00000008' + '00000000', 'hex');
}

t.test('what the wire cannot carry is refused before it is written', async (t) => {
  const refused: [string, () => unknown, RegExp][] = [
    ['int too large', () => encode(int, 2 ** 31), /not an integer/],
    ['int not whole', () => encode(int, 1.5), /not an integer/],
    ['NaN', () => encode(uint, Number.NaN), /not an integer/],
    ['uint below 0', () => encode(uint, -1), /not an integer/],
    ['uhyper below 0', () => encode(uhyper, -1n), /not an integer/],
    ['uhyper above 2^64', () => encode(uhyper, 2n ** 64n), /not an integer/],
    ['a number that lost its last bits', () => encode(size, 2 ** 53), /safe integer/],
    ['NUL, where C would end the name', () => encode(text, 'vm1\0x'), /NUL/],
    ['a lone surrogate', () => encode(text, 'vm\ud800'), /surrogate/],
    ['a string above its bound, in bytes', () => encode(string(3), 'üü'), /at most 3/],
    ['an array above its bound', () => encode(array(int, 1), [1, 2]), /at most 1/],
    ['no UUID', () => encode(uuid, '1234'), /not a UUID/],
    ['too few fixed bytes', () => new XdrWriter().opaqueFixed(Buffer.alloc(3), 4), /3 bytes where 4/],
    ['typed parameters without their types', () => encode(typedParams(1), {}), /only read/],
  ];
  for (const [what, attempt, says] of refused) t.throws(attempt, { message: says }, what);
  t.equal(
    decode(uuid, encode(uuid, 'ABCDEF01-2345-6789-ABCD-EF0123456789')),
    'abcdef01-2345-6789-abcd-ef0123456789',
  );
});

t.test('what a peer may not send is refused with its place', async (t) => {
  const hex = (value: string): Buffer => Buffer.from(value.replaceAll(' ', ''), 'hex');
  t.throws(() => decode(int, hex('000000')), { name: 'XdrError', offset: 0 });
  t.throws(() => decode(text, hex('00000005 61626364')), { name: 'XdrError', offset: 4 }, 'cut short');
  t.throws(() => decode(text, hex('ffffffff 61626364')), /at most 4194304/);
  t.throws(() => decode(array(int, 4), hex('00000005')), /at most 4/);
  t.throws(() => decode(array(int, 4), hex('00000004 00000001')), { name: 'XdrError', offset: 8 });
  t.throws(() => decode(optional(int), hex('00000002 00000001')), /2 where 0 or 1/);
  t.throws(() => decode(int, hex('00000001 00000002')), /4 bytes too many/);
  t.throws(() => decode(size, hex('0020000000000000')), /above 2\^53-1/);
  t.throws(() => new XdrReader(hex('ffffffff 00000000')).opaque(0xffff_ffff), XdrError, 'a length near 2^32');
  t.equal(decode(bool, hex('00000007')), true, 'a C truth need not be 1');
  t.equal(decode(text, hex('00000002 6180 0001')), 'a\ufffd', 'not UTF-8, and padding that is not zero');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      for (const type of [remoteError, typedParams(64), checkpoint] as XdrType<unknown>[]) {
        try {
          decode(type, noise);
        } catch (error) {
          if (!(error instanceof XdrError)) throw error;
        }
      }
    }),
    { numRuns: 500 },
  );
});

const header = { program: 0x20008086, version: 1, procedure: -3, type: 1, serial: 0xffff_ffff, status: 2 };

t.test('a message: length, header and payload where libvirt expects them', async (t) => {
  const frame = encodeMessage(header, (writer) => text.encode(writer, 'abc'));
  t.equal(
    frame.toString('hex'),
    '00000024' + // 36 bytes in all
      '20008086' + // program
      '00000001' + // version
      'fffffffd' + // procedure
      '00000001' + // type: reply
      'ffffffff' + // serial
      '00000002' + // status
      '0000000361626300',
  );
  const message = decodeMessage(frame);
  t.same(message.header, header);
  t.equal(text.decode(message.payload), 'abc');
  t.throws(() => decodeMessage(frame.subarray(0, 27)), XdrError);
});

t.test('however a stream is cut, the same frames come out of it', async (t) => {
  const payloads = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 8 });
  const cuts = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(payloads, cuts, (payloads, cuts) => {
      const frames = payloads.map((payload) =>
        encodeMessage(header, (writer) => writer.opaque(payload, 300)),
      );
      const stream = Buffer.concat(frames);
      const splitter = new FrameSplitter(1000);
      const found: Buffer[] = [];
      for (let at = 0, i = 0; at < stream.length; i++) {
        const end = at + (cuts[i % cuts.length] ?? 1);
        // A copy that is overwritten afterwards: nothing may be kept by reference from one chunk to the next.
        const chunk = Buffer.from(stream.subarray(at, end));
        for (const frame of splitter.push(chunk)) found.push(Buffer.from(frame));
        chunk.fill(0xee);
        at = end;
      }
      t.equal(splitter.pending, 0);
      t.same(found, frames);
    }),
    { numRuns: 200 },
  );
});

t.test('a large message in small pieces costs memory for what came, and bounded work a byte', async (t) => {
  const length = 8 << 20;
  const frame = encodeMessage(header, (writer) => writer.opaque(Buffer.alloc(length, 0x5a), length));
  const splitter = new FrameSplitter(frame.length);
  // A quadratic splitter copies 2 TB here and runs into the test's time limit.
  let found: Buffer | undefined;
  for (let at = 0; at < frame.length; at += 16) {
    for (const whole of splitter.push(frame.subarray(at, at + 16))) found = Buffer.from(whole);
  }
  t.ok(found?.equals(frame));
  const promised = new FrameSplitter(33_554_432);
  const before = process.memoryUsage().arrayBuffers;
  const many = Array.from({ length: 50 }, () => {
    const splitter = new FrameSplitter(33_554_432);
    t.same([...splitter.push(Buffer.from('02000000' + '20008086', 'hex'))], []);
    return splitter;
  });
  t.equal(many.length, 50);
  t.ok(process.memoryUsage().arrayBuffers - before < 33_554_432, 'fifty promises of 32 MiB take no 32 MiB');
  t.same([...promised.push(Buffer.alloc(3))], []);
});

t.test('a length that no daemon sends', async (t) => {
  const first = (word: string): FrameSplitter => {
    const splitter = new FrameSplitter(33_554_432);
    t.throws(() => [...splitter.push(Buffer.from(word, 'hex'))], FramingError, word);
    return splitter;
  };
  first('00000000');
  first('0000001b'); // 27: less than a header
  first('02000005'); // one byte above VIR_NET_MESSAGE_MAX and the length word
  first('ffffffff');
  first(Buffer.from('HTTP').toString('hex'));
  t.same(
    [...new FrameSplitter(33_554_432).push(Buffer.from('02000004', 'hex'))],
    [],
    'the largest is waited for',
  );
  const small = new FrameSplitter(100);
  t.throws(() => [...small.push(Buffer.from('00000069', 'hex'))], /105 bytes, where 28 to 104/);
});
