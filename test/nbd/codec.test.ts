import { deepStrictEqual } from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';

import { Chunk, errorName, isErrorReply, optionName, replyName } from '../../agent/nbd/constants.js';
import { NbdError } from '../../agent/nbd/error.js';
import { imageFileName } from '../../agent/nbd/image-options.js';
import * as frame from '../../agent/nbd/negotiation.js';
import * as data from '../../agent/nbd/negotiation-data.js';
import * as transmission from '../../agent/nbd/transmission.js';
import { formatNbdUri, type NbdTarget, parseNbdUri } from '../../agent/nbd/uri.js';
import { hex } from './wire.js';

const record = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(fields, { noNullPrototype: true });
const u16 = fc.nat({ max: 0xffff });
const u32 = fc.nat({ max: 0xffffffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
/** Strings that the protocol carries: no NUL, no lone surrogates. */
const text = fc.string({ unit: 'binary', maxLength: 40 }).filter((s) => !s.includes('\0'));
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

const whole = { offset: 0, length: 1000, size: 5000 };

t.test('every message of the negotiation comes back as it went', (t) => {
  const roundTrip = <T>(values: fc.Arbitrary<T>, encode: (value: T) => Buffer, decode: (wire: Buffer) => T) =>
    fc.assert(
      fc.property(values, (value) => deepStrictEqual(decode(encode(value)), value)),
      {
        numRuns: 60,
      },
    );
  roundTrip(u16, frame.encodeGreeting, frame.decodeGreeting);
  roundTrip(u32, frame.encodeClientFlags, frame.decodeClientFlags);
  roundTrip(
    record({ exportName: text, infos: fc.array(u16) }),
    data.encodeInfoRequest,
    data.decodeInfoRequest,
  );
  roundTrip(
    record({ exportName: text, queries: fc.array(text) }),
    data.encodeMetaContextRequest,
    data.decodeMetaContextRequest,
  );
  roundTrip(text, data.encodeExportName, data.decodeExportName);
  roundTrip(record({ exportName: text, description: text }), data.encodeServerEntry, data.decodeServerEntry);
  roundTrip(record({ id: u32, name: text }), data.encodeMetaContext, data.decodeMetaContext);
  const infos = fc.oneof(
    record({ type: fc.constant('export' as const), size: u64, flags: u16 }),
    record({ type: fc.constant('name' as const), name: text }),
    record({ type: fc.constant('description' as const), description: text }),
    record({
      type: fc.constant('blockSize' as const),
      minimum: fc.nat({ max: 16 }).map((n) => 2 ** n),
      preferred: fc.integer({ min: 16, max: 24 }).map((n) => 2 ** n),
      maximumPayload: fc.integer({ min: 2 ** 24, max: 2 ** 32 - 1 }),
    }),
  );
  fc.assert(
    fc.property(infos, (info) => {
      deepStrictEqual(data.decodeExportInfo(data.encodeExportInfo(info)), info);
    }),
  );
  fc.assert(
    fc.property(u32, u32, bytes, (option, type, payload) => {
      const asked = frame.encodeOption(option, payload);
      const head = frame.decodeOptionHeader(asked.subarray(0, frame.optionHeaderLength));
      deepStrictEqual(head, { option, length: payload.length });
      const reply = frame.encodeOptionReply(option, type, payload);
      const replyHead = frame.decodeOptionReplyHeader(reply.subarray(0, frame.optionReplyHeaderLength));
      deepStrictEqual(replyHead, { option, type, length: payload.length });
      deepStrictEqual(reply.subarray(frame.optionReplyHeaderLength), payload);
    }),
  );
  t.end();
});

t.test('no bytes make a decoder fail otherwise than with a protocol error', (t) => {
  const decoders = [
    frame.decodeGreeting,
    frame.decodeClientFlags,
    frame.decodeOptionHeader,
    frame.decodeOptionReplyHeader,
    data.decodeInfoRequest,
    data.decodeMetaContextRequest,
    data.decodeExportName,
    data.decodeServerEntry,
    data.decodeMetaContext,
    data.decodeExportInfo,
    transmission.decodeErrorChunk,
    (wire: Buffer) => transmission.decodeReplyHeader(wire),
    (wire: Buffer) => transmission.decodeStatusChunk(Chunk.BLOCK_STATUS, wire, whole),
    (wire: Buffer) => transmission.decodeStatusChunk(Chunk.BLOCK_STATUS_EXT, wire, whole),
  ];
  // Half of them with small numbers, so that lengths and counts come near the truth.
  const small = fc
    .array(fc.constantFrom(0, 0, 0, 1, 2, 9), { maxLength: 60 })
    .map((array) => Buffer.from(array));
  fc.assert(
    fc.property(fc.oneof(bytes, small), fc.constantFrom(...decoders), (wire, decode) => {
      try {
        decode(wire);
      } catch (error) {
        if (!(error instanceof NbdError) || error.kind !== 'protocol') throw error;
      }
    }),
    { numRuns: 5000 },
  );
  t.end();
});

t.test('peers that lie about lengths are refused before anything is allocated', (t) => {
  const refused = (decode: () => unknown, message: RegExp) => t.throws(decode, { kind: 'protocol', message });
  const option = hex('49484156454f5054 00000007 00010001 # IHAVEOPT, GO, 64 KiB + 1');
  refused(() => frame.decodeOptionHeader(option), /65537 bytes of data/);
  refused(() => frame.decodeOptionHeader(hex('49484156454f5055 00000007 00000000')), /IHAVEOPT/);
  refused(() => frame.decodeOptionReplyHeader(hex('0003e889045565aa 00000007 00000001 00000000')), /magic/);
  refused(() => data.decodeMetaContextRequest(hex('00000000 ffffffff # 2^32-1 queries')), /4294967295 items/);
  refused(
    () => data.decodeMetaContextRequest(Buffer.concat([hex('00000000 000003e9'), Buffer.alloc(4004)])),
    /1001 queries/,
  );
  refused(() => data.decodeInfoRequest(hex('00000000 ffff')), /65535 items/);
  refused(() => data.decodeInfoRequest(hex('00000000 0000 00')), /1 bytes too many/);
  refused(() => data.decodeServerEntry(hex('00000002 61')), /2 bytes wanted, 1 left/);
  refused(() => data.decodeServerEntry(hex('00000001 ff')), /not UTF-8/);
  refused(() => data.decodeServerEntry(hex('00000001 00')), /NUL/);
  refused(() => data.decodeExportName(Buffer.alloc(4097, 'a')), /a string of 4097 bytes/);
  refused(
    () => data.decodeExportInfo(hex('0003 00000003 00001000 02000000 # a block of 3')),
    /block sizes 3/,
  );
  refused(() => data.decodeExportInfo(hex('0003 00020000 00020000 02000000 # 128 KiB')), /block sizes/);
  refused(() => data.decodeExportInfo(hex('0003 00000001 00001000 00000fff')), /block sizes/);
  const chunk = (type: string, length: string) =>
    transmission.decodeReplyHeader(hex(`0001 ${type} 0000000000000001 ${length}`));
  refused(() => chunk('0000', '00000001'), /1 bytes in a chunk of type 0/);
  refused(() => chunk('0005', '00800005'), /8388613 bytes/);
  refused(() => chunk('8001', '00100000'), /1048576 bytes/);
  t.equal(chunk('0005', '00800004').length, 8388612);
  t.throws(() => frame.decodeGreeting(hex('4e42444d41474943 0000420281861253 0000 # oldstyle')), {
    kind: 'unsupported',
    message: /oldstyle/,
  });
  t.throws(() => data.encodeExportName('a\0b'), TypeError);
  t.throws(() => data.encodeExportName('\ud800'), TypeError);
  t.throws(() => data.encodeExportName('a'.repeat(4097)), TypeError);
  t.end();
});

t.test('block status chunks: joined, cut at the end of the export, and refused when unsound', (t) => {
  const chunk = hex(`
    00000007             # context 7
    00000064 00000001    # 100 bytes: 1
    00000064 00000001    # 100 more: 1
    00000064 00000000    # 100: 0
    ffffffff 00000002    # to the end and beyond: 2
  `);
  t.strictSame(transmission.decodeStatusChunk(Chunk.BLOCK_STATUS, chunk, whole), {
    contextId: 7,
    extents: [
      { start: 0, length: 200, flags: 1 },
      { start: 200, length: 100, flags: 0 },
      { start: 300, length: 4700, flags: 2 },
    ],
  });
  const wide = hex(`
    00000007 00000002                    # context 7, two extents
    0000000000000064 0000000100000000    # 100 bytes: a status of 33 bits
    ffffffffffffffff 0000000000000000    # as far as 64 bits go
  `);
  t.strictSame(
    transmission.decodeStatusChunk(Chunk.BLOCK_STATUS_EXT, wide, { ...whole, offset: 500 }).extents,
    [
      { start: 500, length: 100, flags: 2 ** 32 },
      { start: 600, length: 4400, flags: 0 },
    ],
  );
  const bad = (type: number, wire: string, message: RegExp) =>
    t.throws(() => transmission.decodeStatusChunk(type, hex(wire), whole), { kind: 'protocol', message });
  bad(Chunk.BLOCK_STATUS, '00000007 # no extent', /chunk of 4 bytes/);
  bad(Chunk.BLOCK_STATUS, '00000007 00000064 000000 # half an extent', /chunk of 11 bytes/);
  bad(Chunk.BLOCK_STATUS, '00000007 00000000 00000000 # of no length', /no length/);
  bad(
    Chunk.BLOCK_STATUS,
    '00000007 000003e8 00000000 00000001 00000001 # a second beyond the request',
    /beyond the request/,
  );
  bad(
    Chunk.BLOCK_STATUS_EXT,
    '00000007 00000002 0000000000000064 0000000000000000',
    /2 extents announced, 1 sent/,
  );
  bad(Chunk.BLOCK_STATUS_EXT, '00000007 00000001 0000000000000064 8000000000000000', /a status of/);
  t.throws(() => transmission.decodeErrorChunk(hex('00000000 0000')), { kind: 'protocol', message: /./ });
  t.throws(() => transmission.decodeErrorChunk(hex('00000005 0003 6162')), {
    kind: 'protocol',
    message: /./,
  });
  t.end();
});

t.test('names for messages', (t) => {
  t.equal(replyName(0x80000006), 'NBD_REP_ERR_UNKNOWN');
  t.equal(replyName(0x800000ff), 'NBD_REP 0x800000ff');
  t.equal(optionName(7), 'NBD_OPT_GO');
  t.equal(optionName(99), 'NBD_OPT 99');
  t.equal(errorName(28), 'NBD_ENOSPC');
  t.equal(errorName(77), 'NBD_EINVAL', 'an unexpected error value is treated as EINVAL');
  t.ok(isErrorReply(0x80000001));
  t.notOk(isErrorReply(4));
  t.end();
});

t.test('NBD URIs: the examples of the specification, and back', (t) => {
  const name = (uri: string) => parseNbdUri(uri).exportName;
  t.equal(name('nbd://example.com/disk'), 'disk');
  t.equal(name('nbd+unix:///disk?socket=sock'), 'disk');
  t.equal(name('nbd://example.com/'), '');
  t.equal(name('nbd://example.com'), '');
  t.equal(name('nbd://example.com//disk'), '/disk');
  t.equal(name('nbd://example.com/hello%20world'), 'hello world');
  t.strictSame(parseNbdUri('nbd+unix:///?socket=%00/abstract').address, {
    transport: 'unix',
    socket: '\0/abstract',
  });
  t.strictSame(parseNbdUri('nbds://[::1]/e?tls-hostname=h'), {
    address: { transport: 'tcp', host: '::1', port: 10809 },
    tls: true,
    exportName: 'e',
    tlsHostname: 'h',
  });
  const socket = '/run/vmdiskd/exports/5b0c/nbd.sock';
  const target: NbdTarget = { address: { transport: 'unix', socket }, tls: false, exportName: '5b0c' };
  t.equal(formatNbdUri(target), `nbd+unix:///5b0c?socket=${socket}`);
  const withKey = {
    address: { transport: 'tcp', host: '::1', port: 1 },
    tls: true,
    exportName: 'e',
  } as const;
  t.equal(formatNbdUri({ ...withKey, username: 'u' }), 'nbds://u@[::1]:1/e');
  for (const uri of [
    'http://example.com/disk',
    'nbd+unix:///disk',
    'nbd+unix://host/disk?socket=s',
    'nbd://host/d?socket=s',
    'nbd://host/d?tls-verify-peer=0',
    'nbd+unix:///d?socket=a&socket=b',
    'nbd://user@host/d',
    'nbd://host:0/d',
    'nbd://host:65536/d',
    'nbd://host/d#part',
    'nbd://host/%ff',
    'nbd://host/%00',
    'nbd:///d?socket',
  ]) {
    t.throws(() => parseNbdUri(uri), TypeError, uri);
  }
  t.equal(parseNbdUri('nbd:///d').address.transport, 'tcp');
  const targets: fc.Arbitrary<NbdTarget> = record({
    address: fc.oneof(
      record({ transport: fc.constant('unix' as const), socket: text.filter(Boolean) }),
      record({
        transport: fc.constant('tcp' as const),
        host: fc.oneof(fc.domain(), fc.ipV4(), fc.constant('fe80::1%eth0'), fc.constant('2001:db8::7')),
        port: fc.integer({ min: 1, max: 65535 }),
      }),
    ),
    tls: fc.boolean(),
    exportName: text,
  }).chain((target) =>
    fc.option(fc.domain(), { nil: undefined }).map((h) => (h ? { ...target, tlsHostname: h } : target)),
  );
  fc.assert(
    fc.property(targets, (target) => {
      const uri = formatNbdUri(target);
      // WHATWG's URLs have no zone in an address, RFC 6874 has.
      deepStrictEqual(URL.canParse(uri.replace('%25eth0', '')), true);
      deepStrictEqual(parseNbdUri(uri), target);
    }),
  );
  t.end();
});

t.test('a block graph leaves nothing to probing or to headers', (t) => {
  const file = { driver: 'file', filename: "/images/it's.qcow2", locking: 'on' };
  const image = { driver: 'qcow2', file, backing: { driver: 'raw', file } };
  t.strictSame(JSON.parse(imageFileName(image).slice('json:'.length)), image);
  t.throws(() => imageFileName({ driver: 'qcow2', file }), /does not say what backs it/);
  t.throws(() => imageFileName({ file, backing: null }), /names no driver/);
  t.throws(
    () => imageFileName({ driver: 'qcow2', file: '/images/a', backing: null }),
    /image.file is not a node/,
  );
  t.throws(
    () => imageFileName({ driver: 'qcow2', file, backing: 'node-name' }),
    /image.backing is not a node/,
  );
  t.throws(() => imageFileName({ driver: 'raw', file: { filename: 'a' } }), /image.file names no driver/);
  t.throws(
    () => imageFileName({ driver: 'raw', file: { ...file, filename: 'a'.repeat(2 ** 17) } }),
    /too long/,
  );
  t.end();
});
