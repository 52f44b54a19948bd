/** What only a server made for it will do: 64-bit headers (Debian 12 has no such server), and every way to lie. */
import t from 'tap';

import { type BlockStatusPage, blockStatus } from '../../agent/nbd/block-status.js';
import { fetchExports, fetchMetaContexts, NbdClient } from '../../agent/nbd/client.js';
import { NbdError } from '../../agent/nbd/error.js';
import { probe } from '../../agent/nbd/probe.js';
import type { NbdAddress } from '../../agent/nbd/uri.js';
import {
  ackBytes,
  collect,
  contextReply,
  greeting,
  handshake,
  hex,
  optionBytes,
  type Step,
  scriptedServer,
} from './wire.js';

const wait = { timeoutMs: 10_000 };
const one = { ...wait, exportName: 'd', contexts: ['x:a'] };
const two = { ...wait, exportName: 'd', contexts: ['x:a', 'x:b'] };
const goodbye = (cookie: string): Step[] => [
  // NBD_REQUEST_MAGIC, no flags, NBD_CMD_DISC, cookie, offset 0, length 0
  { expect: hex(`25609513 0000 0002 ${cookie} 0000000000000000 00000000`) },
  'end',
];
/** A request for the whole of the export of 1 MiB. */
const request: Step = {
  expect: hex(`
    25609513 0000 0007    # NBD_REQUEST_MAGIC, no flags, NBD_CMD_BLOCK_STATUS
    0000000000000001      # cookie 1
    0000000000000000      # offset 0
    00100000              # length 1 MiB
  `),
};
const allData = hex(`
  668e33ef 0001 0005 0000000000000001 0000000c  # structured reply, DONE, BLOCK_STATUS, cookie 1, 12 bytes
  00000011 00100000 00000000                    # context 0x11: 1 MiB of status 0
`);

async function pages(address: NbdAddress, options = one): Promise<BlockStatusPage[]> {
  const client = await NbdClient.connect(address, options);
  try {
    return await collect(blockStatus(client, wait));
  } finally {
    await client.close();
  }
}

t.test(
  'structured replies: two contexts, out of order, one further than the other, merged and aligned',
  async (t) => {
    const address = await scriptedServer(
      t,
      ...handshake({ replies: 'structured', contexts: 2 }),
      request,
      {
        send: hex(`
        668e33ef 0000 0005 0000000000000001 0000000c  # not the last chunk, 12 bytes
        00000022 fffff000 00000007                    # x:b: to far beyond the end
        668e33ef 0000 0005 0000000000000001 0000001c  # 28 bytes
        00000011                                      # x:a: shorter than asked
        00001000 00000001                             # 4 KiB: 1
        00001000 00000001                             # 4 KiB: 1 again
        00002000 00000000                             # 8 KiB: 0
        668e33ef 0001 0000 0000000000000001 00000000  # NBD_REPLY_TYPE_NONE, DONE
      `),
      },
      {
        expect: hex('25609513 0000 0007 0000000000000002 0000000000004000 000fc000 # the rest, from 16 KiB'),
      },
      {
        send: hex(`
        668e33ef 0000 0005 0000000000000002 0000000c 00000011 000fc000 00000001  # x:a: the rest is 1
        668e33ef 0001 0005 0000000000000002 0000000c 00000022 00004000 00000007  # x:b: this time the shorter one
      `),
      },
      {
        expect: hex('25609513 0000 0007 0000000000000003 0000000000008000 000f8000 # the rest, from 32 KiB'),
      },
      {
        send: hex(`
        668e33ef 0000 0005 0000000000000003 0000000c 00000011 000f8000 00000001
        668e33ef 0001 0005 0000000000000003 0000000c 00000022 000f8000 00000007
      `),
      },
      ...goodbye('0000000000000004'),
    );
    const [first, second, third, ...none] = await pages(address, two);
    t.strictSame(none, []);
    t.strictSame([first?.start, first?.length, second?.start, second?.length], [0, 0x4000, 0x4000, 0x4000]);
    t.strictSame([third?.start, third?.length], [0x8000, 0xf8000]);
    t.strictSame(first?.extents.get('x:a'), [
      { start: 0, length: 0x2000, flags: 1 },
      { start: 0x2000, length: 0x2000, flags: 0 },
    ]);
    t.strictSame(first?.extents.get('x:b'), [{ start: 0, length: 0x4000, flags: 7 }], 'no further than x:a');
    t.strictSame(second?.extents.get('x:a'), [{ start: 0x4000, length: 0x4000, flags: 1 }]);
  },
);

t.test('extended headers: 64-bit requests, replies and statuses on a disk of 128 TiB', async (t) => {
  const address = await scriptedServer(
    t,
    ...handshake({ replies: 'extended', size: '0000800000000000' }),
    {
      expect: hex(`
        21e41c71 0000 0007 0000000000000001  # NBD_EXTENDED_REQUEST_MAGIC, BLOCK_STATUS, cookie
        0000000000000000 0000001000000000    # offset 0, length 64 GiB
      `),
    },
    {
      send: hex(`
        6e8a278c 0001 0006 0000000000000001  # NBD_EXTENDED_REPLY_MAGIC, DONE, BLOCK_STATUS_EXT, cookie
        0000000000000000 0000000000000028    # the request's offset, 40 bytes
        00000011 00000002                    # context 0x11, two extents
        0000000000100000 0000000100000001    # 1 MiB: a status of 33 bits
        ffffffffffffffff 0000000000000000    # beyond the end
      `),
    },
    { expect: hex('21e41c71 0000 0002 0000000000000002 0000000000000000 0000000000000000 # DISC') },
    'end',
  );
  const [page, ...none] = await pages(address);
  t.strictSame(none, []);
  t.strictSame(page?.extents.get('x:a'), [
    { start: 0, length: 2 ** 20, flags: 2 ** 32 + 1 },
    { start: 2 ** 20, length: 2 ** 47 - 2 ** 20, flags: 0 },
  ]);
});

t.test('without them a request has 32 bits, in whole preferred blocks', async (t) => {
  const address = await scriptedServer(
    t,
    // 16 TiB; minimum 512, preferred 64 KiB, payload 32 MiB
    ...handshake({
      replies: 'structured',
      size: '0000100000000000',
      blockSizes: '00000200 00010000 02000000',
    }),
    { expect: hex('25609513 0000 0007 0000000000000001 0000000000000000 ffff0000 # 4 GiB - 64 KiB') },
    { send: hex('668e33ef 0001 0005 0000000000000001 0000000c 00000011 ffff0000 00000000') },
    { expect: hex('25609513 0000 0007 0000000000000002 00000000ffff0000 ffff0000') },
    'reset',
  );
  const client = await NbdClient.connect(address, one);
  const status = blockStatus(client, wait);
  t.strictSame((await status.next()).value?.length, 0xffff0000);
  await t.rejects(status.next(), { name: 'NbdError', kind: 'closed' });
  await client.close();
});

t.test('requests keep to the minimum block; answers are cut to the range asked for', async (t) => {
  const address = await scriptedServer(
    t,
    ...handshake({ replies: 'structured', blockSizes: '00001000 00001000 02000000' }),
    { expect: hex('25609513 0000 0007 0000000000000001 0000000000001000 00003000 # 4 KiB to 16 KiB') },
    // Ends within a block: the next request begins where that block does.
    {
      send: hex('668e33ef 0001 0005 0000000000000001 00000014 00000011 00001000 00000001 00000801 00000002'),
    },
    { expect: hex('25609513 0000 0007 0000000000000002 0000000000002000 00002000 # 8 KiB to 16 KiB') },
    { send: hex('668e33ef 0001 0005 0000000000000002 0000000c 00000011 00002000 00000003') },
    ...goodbye('0000000000000003'),
  );
  const client = await NbdClient.connect(address, one);
  const got = await collect(blockStatus(client, { ...wait, offset: 5000, length: 8000 }));
  await client.close();
  t.strictSame(
    got.map(({ start, length, extents }) => [start, length, extents.get('x:a')]),
    [
      [5000, 3192, [{ start: 5000, length: 3192, flags: 1 }]],
      [8192, 4808, [{ start: 8192, length: 4808, flags: 3 }]],
    ],
  );
});

t.test('a server that finds a request too long gets shorter ones', async (t) => {
  const tooLong = (cookie: string) =>
    hex(`668e33ef 0001 8001 ${cookie} 00000006 0000004b 0000 # ERROR: NBD_EOVERFLOW, no message`);
  const address = await scriptedServer(
    t,
    ...handshake({ replies: 'structured', blockSizes: '00000001 00001000 00040000' }),
    request,
    { send: tooLong('0000000000000001') },
    { expect: hex('25609513 0000 0007 0000000000000002 0000000000000000 00080000') },
    { send: hex('668e33ef 0001 0005 0000000000000002 0000000c 00000011 00080000 00000000') },
    { expect: hex('25609513 0000 0007 0000000000000003 0000000000080000 00080000') },
    { send: tooLong('0000000000000003') },
    { expect: hex('25609513 0000 0007 0000000000000004 0000000000080000 00040000') },
    { send: tooLong('0000000000000004') },
    ...goodbye('0000000000000005'),
  );
  await t.rejects(pages(address), { kind: 'failed', code: 'NBD_EOVERFLOW' }, 'but not ever shorter');
});

t.test('an error answer is reported with its text, and the client goes on', async (t) => {
  const address = await scriptedServer(
    t,
    ...handshake({ replies: 'structured' }),
    request,
    {
      send: hex(`
        668e33ef 0000 0005 0000000000000001 0000000c 00000011 00100000 00000000  # a part of an answer
        668e33ef 0000 8002 0000000000000001 00000011  # NBD_REPLY_TYPE_ERROR_OFFSET, 17 bytes
        00000005 0003 626164 0000000000001000         # EIO, "bad", at 4 KiB
        668e33ef 0001 0000 0000000000000001 00000000  # NONE, DONE
      `),
    },
    { expect: hex('25609513 0000 0007 0000000000000002 0000000000000000 00100000') },
    { send: hex('67446698 0000001c 0000000000000002 # a simple reply: ENOSPC') },
    { expect: hex('25609513 0000 0007 0000000000000003 0000000000000000 00100000') },
    // NBD_ESHUTDOWN: the client leaves.
    { send: hex('668e33ef 0001 8001 0000000000000003 00000006 0000006c 0000') },
  );
  const client = await NbdClient.connect(address, one);
  const message = 'The NBD server answered with NBD_EIO (5): bad.';
  await t.rejects(client.blockStatus(0, 2 ** 20, wait), { kind: 'failed', code: 'NBD_EIO', message });
  const busy = client.blockStatus(0, 2 ** 20, wait);
  await t.rejects(client.blockStatus(0, 1, wait), /One block status request at a time/);
  await t.rejects(busy, { kind: 'failed', code: 'NBD_ENOSPC' });
  await t.rejects(client.blockStatus(0, 2 ** 20, wait), { kind: 'failed', code: 'NBD_ESHUTDOWN' });
  await t.rejects(client.blockStatus(0, 2 ** 20, wait), { code: 'NBD_ESHUTDOWN' }, 'it has left');
  await client.close();
  await client.close();
});

const lies: Record<string, { send: Buffer; message: RegExp; extended?: true }> = {
  'another magic number': { send: hex('deadbeef'), message: /a reply begins with 0xdeadbeef/ },
  'extended replies that were not agreed on': { send: hex('6e8a278c'), message: /begins with 0x6e8a278c/ },
  'a compact reply where extended was agreed on': {
    send: hex('668e33ef'),
    message: /begins with/,
    extended: true,
  },
  'a cookie that was not sent': {
    send: hex('668e33ef 0001 0005 0000000000000009 0000000c'),
    message: /a cookie that was not sent/,
  },
  'the offset of another request': {
    send: hex('6e8a278c 0001 0006 0000000000000001 0000000000000200 0000000000000018'),
    message: /an offset of 512, not 0/,
    extended: true,
  },
  'an answer for a context that was not selected': {
    send: hex('668e33ef 0001 0005 0000000000000001 0000000c 00000099 00100000 00000000'),
    message: /unexpected answer for context 153/,
  },
  'two answers for one context': {
    send: hex(`
      668e33ef 0000 0005 0000000000000001 0000000c 00000011 00100000 00000000
      668e33ef 0001 0005 0000000000000001 0000000c 00000011 00100000 00000000
    `),
    message: /unexpected answer for context 17/,
  },
  'success without an answer': {
    send: hex('668e33ef 0001 0000 0000000000000001 00000000'),
    message: /answers for 0 of 1 contexts/,
  },
  'success in a simple reply': {
    send: hex('67446698 00000000 0000000000000001'),
    message: /answers for 0 of 1/,
  },
  'data that nobody asked for': {
    send: hex('668e33ef 0001 0001 0000000000000001 00000009 0000000000000000 aa'),
    message: /a chunk of type 1/,
  },
  'a compact chunk in an extended reply': {
    send: hex(
      '6e8a278c 0001 0005 0000000000000001 0000000000000000 000000000000000c 00000011 00100000 00000000',
    ),
    message: /a chunk of type 5/,
    extended: true,
  },
  'NONE that is not the last': {
    send: hex('668e33ef 0000 0000 0000000000000001 00000000'),
    message: /type 0/,
  },
  'a chunk of 4 GiB': {
    send: hex('668e33ef 0001 0005 0000000000000001 ffffffff'),
    message: /4294967295 bytes in a chunk/,
  },
  'an extent of no length': {
    send: hex('668e33ef 0001 0005 0000000000000001 0000000c 00000011 00000000 00000000'),
    message: /an extent of no length/,
  },
  'chunks without end': {
    send: Buffer.concat(Array(20).fill(hex('668e33ef 0000 8001 0000000000000001 00000006 00000005 0000'))),
    message: /too many chunks/,
  },
};
for (const [lie, { send, message, extended }] of Object.entries(lies)) {
  t.test(`a lie is a protocol error and ends the connection: ${lie}`, async (t) => {
    const replies = extended ? 'extended' : 'structured';
    const head: Step = extended
      ? { expect: hex('21e41c71 0000 0007 0000000000000001 0000000000000000 0000000000100000') }
      : request;
    const address = await scriptedServer(t, ...handshake({ replies }), head, { send });
    const client = await NbdClient.connect(address, one);
    await t.rejects(client.blockStatus(0, 2 ** 20, wait), { name: 'NbdError', kind: 'protocol', message });
    await t.rejects(
      client.blockStatus(0, 2 ** 20, wait),
      { kind: 'protocol', message: /./ },
      'it is not used again',
    );
    await client.close();
  });
}

t.test('an answer that makes no headway is refused', async (t) => {
  const address = await scriptedServer(
    t,
    ...handshake({ replies: 'structured', blockSizes: '00001000 00001000 02000000' }),
    request,
    { send: hex('668e33ef 0001 0005 0000000000000001 0000000c 00000011 00000800 00000000 # half a block') },
  );
  await t.rejects(pages(address), { kind: 'protocol', message: /shorter than one block/ });
});

t.test('the server goes away at every byte of its answer', async (t) => {
  const script = handshake({ replies: 'structured' });
  for (const bytes of [0, 1, 4, 10, 20, 26, allData.length - 1]) {
    for (const how of ['end', 'reset'] as const) {
      const address = await scriptedServer(t, ...script, request, { send: allData.subarray(0, bytes) }, how);
      const error = await pages(address).catch((reason: unknown) => reason);
      t.ok(error instanceof NbdError && error.kind === 'closed', `${how} after ${bytes}: ${error}`);
    }
  }
});

t.test('a server that falls silent: the deadline, the caller', async (t) => {
  const address = await scriptedServer(t, ...handshake({ replies: 'structured' }), request, {
    send: allData.subarray(0, 22),
  });
  const client = await NbdClient.connect(address, one);
  await t.rejects(client.blockStatus(0, 2 ** 20, { timeoutMs: 30 }), { name: 'Timeout', code: 5016 });
  await t.rejects(
    client.blockStatus(0, 2 ** 20, wait),
    { name: 'Timeout' },
    'the rest of the answer may still come',
  );
  await client.close();

  const other = await NbdClient.connect(address, one);
  const leave = new AbortController();
  const left = other.blockStatus(0, 2 ** 20, { ...wait, signal: leave.signal });
  leave.abort(new Error('caller left'));
  await t.rejects(left, { message: 'caller left' });

  const third = await NbdClient.connect(address, one);
  const asked = third.blockStatus(0, 2 ** 20, wait);
  const closed = t.rejects(asked, { kind: 'closed', message: /client was closed/ });
  await third.close();
  await closed;

  const mute = await scriptedServer(t, { send: greeting.subarray(0, 10) });
  await t.rejects(NbdClient.connect(mute, { ...one, timeoutMs: 30 }), { name: 'Timeout' });
  t.equal(await probe(mute, { timeoutMs: 30 }), 'silent');
  leave.abort();
  await t.rejects(NbdClient.connect(mute, { ...one, signal: leave.signal }), { message: 'caller left' });
  await t.rejects(probe(mute, { ...wait, signal: leave.signal }), { message: 'caller left' });
});

t.test('a server that can do less: named, not guessed', async (t) => {
  const flags: Step = { expect: hex('00000003') };
  const unsupported = (option: string): Step => ({
    send: hex(`0003e889045565a9 ${option} 80000001 00000000`),
  });
  const noChunks = await scriptedServer(
    t,
    { send: greeting },
    flags,
    { expect: optionBytes('0000000b') },
    unsupported('0000000b'),
    { expect: optionBytes('00000008') },
    unsupported('00000008'),
  );
  await t.rejects(NbdClient.connect(noChunks, one), {
    kind: 'unsupported',
    message: /no structured replies/,
  });
  const oldstyle = await scriptedServer(t, { send: hex('4e42444d41474943 0000420281861253 0000') });
  await t.rejects(NbdClient.connect(oldstyle, one), { kind: 'unsupported', message: /oldstyle/ });
  t.equal(await probe(oldstyle, wait), 'refused');
  const notFixed = await scriptedServer(t, { send: hex('4e42444d41474943 49484156454f5054 0000') });
  await t.rejects(NbdClient.connect(notFixed, one), { kind: 'unsupported', message: /fixed newstyle/ });
  const web = await scriptedServer(t, { send: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n') });
  await t.rejects(NbdClient.connect(web, one), { kind: 'protocol', message: /./ });
  t.equal(await probe(web, wait), 'refused');
  const leaving = await scriptedServer(
    t,
    { send: greeting },
    flags,
    { expect: optionBytes('0000000b') },
    {
      send: hex('0003e889045565a9 0000000b 80000007 00000003 627965 # NBD_REP_ERR_SHUTDOWN: bye'),
    },
  );
  const message = 'The NBD server refused NBD_OPT_EXTENDED_HEADERS with NBD_REP_ERR_SHUTDOWN: bye';
  await t.rejects(NbdClient.connect(leaving, one), {
    kind: 'refused',
    code: 'NBD_REP_ERR_SHUTDOWN',
    message,
  });
  await t.rejects(NbdClient.connect({ transport: 'unix', socket: `/tmp/${'x'.repeat(120)}` }, one), {
    kind: 'unreachable',
    code: 'ENAMETOOLONG',
  });
});

t.test('negotiations that break the rules', async (t) => {
  const upTo = (...then: Step[]): Step[] => [
    { send: greeting },
    { expect: hex('00000003') },
    { expect: optionBytes('0000000b') },
    { send: ackBytes('0000000b') },
    ...then,
  ];
  const cases: [RegExp, Step[]][] = [
    [/a reply to NBD_OPT_GO, not NBD_OPT_SET_META/, [{ send: ackBytes('00000007') }]],
    [
      /NBD_REP_SERVER to NBD_OPT_SET_META_CONTEXT/,
      [{ send: hex('0003e889045565a9 0000000a 00000002 00000004 00000000') }],
    ],
    [
      /x:z selected, which was not asked for/,
      [{ send: contextReply('00000001', 'z') }, { send: ackBytes('0000000a') }],
    ],
    [
      /one ID for two metadata contexts/,
      [
        { send: contextReply('00000001', 'a') },
        { send: contextReply('00000001', 'b') },
        { send: ackBytes('0000000a') },
      ],
    ],
    [/70000 bytes of data/, [{ send: hex('0003e889045565a9 0000000a 00000004 00011170') }]],
    [
      /no NBD_INFO_EXPORT/,
      [
        { send: contextReply('00000001', 'a') },
        { send: contextReply('00000002', 'b') },
        { send: ackBytes('0000000a') },
        { send: ackBytes('00000007') },
      ],
    ],
  ];
  for (const [message, then] of cases) {
    const address = await scriptedServer(t, ...upTo(...then));
    await t.rejects(NbdClient.connect(address, two), { kind: 'protocol', message });
  }
  const lacking = await scriptedServer(
    t,
    ...upTo({ send: contextReply('00000001', 'a') }, { send: ackBytes('0000000a') }),
  );
  await t.rejects(NbdClient.connect(lacking, two), {
    kind: 'unsupported',
    message: 'The export d has no metadata context x:b.',
  });
  const huge = await scriptedServer(t, ...handshake({ replies: 'extended', size: 'ffffffffffffffff' }));
  await t.rejects(NbdClient.connect(huge, one), {
    kind: 'unsupported',
    message: /18446744073709551615 bytes/,
  });
});

t.test('lists: exports with descriptions, contexts; a list without end is cut off', async (t) => {
  const head: Step[] = [{ send: greeting }, { expect: hex('00000003') }];
  const entry = hex('0003e889045565a9 00000003 00000002 00000007 00000001 64 6869 # NBD_REP_SERVER: d, "hi"');
  const list = await scriptedServer(
    t,
    ...head,
    { expect: optionBytes('00000003') },
    { send: entry },
    { send: ackBytes('00000003') },
  );
  t.strictSame(await fetchExports(list, wait), [{ exportName: 'd', description: 'hi' }]);
  const endless = await scriptedServer(t, ...head, { send: Buffer.concat(Array(10_001).fill(entry)) });
  await t.rejects(fetchExports(endless, wait), { kind: 'protocol', message: /more than 10000 replies/ });
  const contexts = await scriptedServer(
    t,
    ...head,
    { expect: optionBytes('0000000b') },
    { send: ackBytes('0000000b') },
    {
      expect: hex(
        '49484156454f5054 00000009 00000009 00000001 64 00000000 # LIST_META_CONTEXT: d, no queries',
      ),
    },
    { send: hex('0003e889045565a9 00000009 00000004 00000007 00000000 783a61 # x:a') },
    { send: ackBytes('00000009') },
  );
  t.strictSame(await fetchMetaContexts(contexts, 'd', wait), ['x:a']);
});
