import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { configFrom } from '../../agent/config/config.js';
import { AgentError, InvalidParams } from '../../agent/errors.js';
import { createLog } from '../../agent/log.js';
import { createRpcServer, type RpcServer, type RpcServerOptions } from '../../agent/rpc/server.js';
import type { Call, VerbTable } from '../../agent/verbs/verb.js';
import { type Answer, LineClient } from './line-client.js';

const { limits } = configFrom({});
/** Those that getHostInfo shows: the others are the operator's alone. */
const { mergeBytesPerSecond: _rate, eventBytes: _bytes, ...shown } = limits;

const hostInfo: NonNullable<VerbTable['getHostInfo']> = async () => ({
  apiVersion: '0',
  hostId: 'h',
  state: 'ready',
  versions: { vmdiskd: '0', node: process.version, libvirt: null, qemu: null, qemuNbd: null },
  capabilities: {
    libvirt: { uri: 'qemu:///system', connected: false },
    qemu: { bitmaps: true, allocationDepth: true },
  },
  limits: { ...shown, inlineExtents: 1, maxExtents: 1, bitmapBytes: 1, connections: 8 },
});

interface Started {
  server: RpcServer;
  path: string;
  /** Log lines so far. */
  lines: Array<Record<string, unknown>>;
  client(): Promise<LineClient>;
}

/** A server with some verbs, on a socket of its own, that ends with the test. */
async function start(
  t: Test,
  verbs: VerbTable,
  options: Partial<Pick<RpcServerOptions, 'edge' | 'limits' | 'checkResults' | 'log'>> = {},
): Promise<Started> {
  const folder = await mkdtemp('/tmp/vmdiskd-rpc-');
  const path = join(folder, 'rpc.sock');
  const lines: Started['lines'] = [];
  const out = new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const line of chunk.toString().trim().split('\n')) lines.push(JSON.parse(line));
      done();
    },
  });
  const log = createLog({ level: 'debug', journal: false, out });
  const server = createRpcServer({
    verbs: { getHostInfo: hostInfo, ...verbs },
    limits,
    log,
    checkResults: true,
    ...options,
  });
  const clients: LineClient[] = [];
  t.teardown(async () => {
    for (const client of clients) client.destroy();
    await server.close({ timeoutSeconds: 1 });
    await rm(folder, { recursive: true, force: true });
  });
  await server.listenUnix(path, { group: 'root' });
  return {
    server,
    path,
    lines,
    async client() {
      const client = await LineClient.connect(path);
      clients.push(client);
      return client;
    },
  };
}

/** A promise with its ends in hand. */
function gate(): { opened: Promise<void>; open(): void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

const teardown: NonNullable<VerbTable['teardownBackupDisk']> = async ({ exportId }) => ({
  exportId,
  checkpoint: null,
});

const request = (method: string, params: unknown, id: unknown = 1) => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
});

test('a call: defaults are filled in, the result comes back, one line in the log', async (t) => {
  const seen: unknown[] = [];
  const calls: Call[] = [];
  const { client, lines } = await start(t, {
    async teardownBackupDisk(params, call) {
      seen.push(params);
      calls.push(call);
      return { exportId: params.exportId, checkpoint: null };
    },
  });
  const answer = await (await client()).call('teardownBackupDisk', { exportId: 'x' });
  t.strictSame(answer.result, { exportId: 'x', checkpoint: null });
  t.strictSame(seen, [{ exportId: 'x', force: false }]);
  t.match(calls[0]?.identity, { kind: 'unix' });
  t.equal(calls[0]?.signal.aborted, false);
  const [line, ...more] = lines.filter(({ verb }) => verb === 'teardownBackupDisk');
  t.match(line, { level: 'info', outcome: 'done', exportId: 'x', ms: Number, ref: calls[0]?.reference });
  t.strictSame(more, []);
});

test('answers come in any order, each to its own call', async (t) => {
  const slow = gate();
  const { client } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      if (exportId === 'slow') await slow.opened;
      return { exportId, checkpoint: null };
    },
  });
  const c = await client();
  const first = c.call('teardownBackupDisk', { exportId: 'slow' });
  t.match(await c.call('teardownBackupDisk', { exportId: 'fast' }), { result: { exportId: 'fast' } });
  slow.open();
  t.match(await first, { result: { exportId: 'slow' } });
});

test('errors of ours arrive whole; others say nothing but a reference, which the log has', async (t) => {
  const { client, lines } = await start(t, {
    async getExport({ exportId }) {
      throw new AgentError('ExportFailed', 'The server died: start again.', {
        exportId,
        stderr: `${'x'.repeat(9000)}the end`,
        cause: new Error('for the log'),
      });
    },
    async getChangedBlocks() {
      throw new InvalidParams('offset is no multiple', [{ path: '/offset', message: 'no multiple' }]);
    },
    // Before its first await, not in a promise.
    listDisks: (() => {
      throw new Error('in /secret/place');
    }) as NonNullable<VerbTable['listDisks']>,
    // A result that JSON cannot hold, and one that is not as the schema has it.
    teardownBackupDisk: (async () => ({ exportId: 'x', checkpoint: null, more: 1 })) as NonNullable<
      VerbTable['teardownBackupDisk']
    >,
  });
  const c = await client();
  const failed = await c.call('getExport', { exportId: 'x' });
  t.match(failed.error, {
    code: 5003,
    message: 'The server died: start again.',
    data: { name: 'ExportFailed', retryable: false, exportId: 'x' },
  });
  t.equal(String(failed.error?.data?.stderr).length, 4096);
  t.match(failed.error?.data?.stderr, /the end$/);
  t.notOk(JSON.stringify(failed).includes('for the log'));
  t.match(
    lines.find(({ verb }) => verb === 'getExport'),
    { error: 'ExportFailed', cause: 'for the log' },
  );

  t.match((await c.call('getChangedBlocks', { exportId: 'x' })).error, {
    code: -32602,
    data: { issues: [{ path: '/offset', message: 'no multiple' }] },
  });

  const internal = await c.call('listDisks', { vmId: 'vm' });
  t.equal(internal.error?.code, -32603);
  t.notMatch(JSON.stringify(internal), /secret|stack/);
  const reference = String(internal.error?.data?.reference);
  t.match(internal.error?.message, reference);
  const line = lines.find(({ ref }) => ref === reference);
  t.match(line, { level: 'error', vmId: 'vm', err: { message: 'in /secret/place', stack: /server\.test/ } });

  t.equal(
    (await c.call('teardownBackupDisk', { exportId: 'x' })).error?.code,
    -32603,
    'results are checked here',
  );
  t.match((await c.call('getHostInfo')).result, { hostId: 'h' }, 'and the server lives on');
});

test('a BigInt in a result is an internal error of that call only', async (t) => {
  const { client, lines } = await start(
    t,
    { teardownBackupDisk: teardown, getExport: (async () => 1n) as never },
    { checkResults: false },
  );
  const c = await client();
  c.sendMessage([
    request('getExport', { exportId: 'x' }, 'a'),
    request('teardownBackupDisk', { exportId: 'x' }, 'b'),
  ]);
  const answers = (await c.next(Array.isArray)) as Answer[];
  t.match(
    answers.find(({ id }) => id === 'a'),
    { error: { code: -32603 } },
  );
  t.match(
    answers.find(({ id }) => id === 'b'),
    { result: { exportId: 'x' } },
  );
  t.ok(lines.some(({ level }) => level === 'error'));
});

test('what is not a request is refused, and nothing hangs', async (t) => {
  const executed: string[] = [];
  const { client, lines } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      executed.push(exportId);
      return { exportId, checkpoint: null };
    },
  });
  const c = await client();
  const single: Array<[text: string, code: number]> = [
    ['{', -32700],
    ['\u0000', -32700],
    ['"text"', -32600],
    ['null', -32600],
    ['1', -32600],
    ['[]', -32600],
    ['{}', -32600],
    [JSON.stringify({ ...request('getHostInfo', {}), jsonrpc: '1.0' }), -32600],
    [JSON.stringify(request('getHostInfo', 'text')), -32600],
    [JSON.stringify(request('getHostInfo', null)), -32600],
    [JSON.stringify(request('getHostInfo', {}, null)), -32600],
    [JSON.stringify(request('getHostInfo', {}, {})), -32600],
    [JSON.stringify(request('getHostInfo', [])), -32602],
    [JSON.stringify(request('getHostInfo', { what: 1 })), -32602],
    [JSON.stringify(request('startBackup', {})), -32601],
    [JSON.stringify(request('constructor', {})), -32601],
    [JSON.stringify(request('__proto__', {})), -32601],
    [JSON.stringify(request('rpc.other', {})), -32601],
    ['{"jsonrpc":"2.0","id":1,"method":"getHostInfo","params":{"__proto__":{}}}', -32602],
    [
      `{"jsonrpc":"2.0","id":1,"method":"getHostInfo","params":${'{"a":'.repeat(9999)}1${'}'.repeat(9999)}}`,
      -32602,
    ],
  ];
  for (const [text, code] of single) {
    c.send(`${text}\n`);
    const { id, error } = await c.nextAnswer();
    t.equal(error?.code, code, JSON.stringify(text.slice(0, 80)));
    t.equal(id, /"id":1\b/.test(text) ? 1 : null, 'under its id, where it has one');
    t.match(error?.data, { name: String, retryable: false }, 'with the name that callers go by');
  }
  c.send(Buffer.from([0xff, 0xfe, 0x0a]));
  t.equal((await c.nextAnswer()).error?.code, -32700, 'not UTF-8');

  c.send('\n\r\n');
  c.sendMessage([[1]]);
  t.match(await c.next(), [{ id: null, error: { code: -32600 } }], 'a batch of only lists is answered');
  const notification = { jsonrpc: '2.0', method: 'teardownBackupDisk', params: { exportId: 'x' } };
  c.sendMessage([
    [request('getHostInfo', {})],
    1,
    notification,
    request('getHostInfo', {}, 'h'),
    request('getHostInfo', 'text', 'wrong'),
    { id: 2.5 },
    { ...request('getHostInfo', {}), id: [7] },
  ]);
  const refused = { code: -32600, data: { name: 'InvalidRequest' } };
  t.match(
    await c.next(),
    [
      { id: null, error: refused },
      { id: null, error: refused },
      { id: 'h', result: {} },
      { id: 'wrong', error: refused },
      { id: 2.5, error: refused },
      { id: null, error: refused },
    ],
    'each of a batch under its own id, though one of them asks for no answer',
  );

  c.sendMessage(notification);
  c.sendMessage([notification, notification]);
  c.sendMessage([notification, request('teardownBackupDisk', { exportId: 'kept' }, 'k')]);
  t.match(await c.next(), [{ id: 'k', result: {} }]);
  t.strictSame(executed, ['kept'], 'a notification is never executed');
  t.equal(lines.filter(({ msg }) => /notification.*refused/.test(String(msg))).length, 5);
});

test('a batch: up to the limit answered one by one, beyond it refused in one answer', async (t) => {
  const { client } = await start(t, { teardownBackupDisk: teardown }, { limits: { ...limits, verbs: 100 } });
  const c = await client();
  const batch = (length: number) =>
    Array.from({ length }, (_, id) => request('teardownBackupDisk', { exportId: `e${id}` }, id));
  c.sendMessage(batch(100));
  const answers = (await c.next(Array.isArray)) as Answer[];
  t.equal(answers.filter(({ result }) => result !== undefined).length, 100);
  c.sendMessage(Array(10_000).fill(request('getHostInfo', {})));
  t.match(await c.next(), { id: null, error: { code: -32600, message: /at most 100.*10000/ } });
  t.match(await c.call('getHostInfo'), { result: {} });
});

test('rpc.discover has the verbs of this server', async (t) => {
  const { client } = await start(t, { teardownBackupDisk: teardown });
  const { result } = await (await client()).call('rpc.discover', {});
  const { methods } = result as { methods: Array<{ name: string }> };
  t.strictSame(
    methods.map(({ name }) => name),
    ['teardownBackupDisk', 'getHostInfo', 'rpc.discover'],
  );
});

test('a flood on some connections keeps no other waiting', async (t) => {
  const hang = gate();
  t.teardown(hang.open);
  const { client } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      await hang.opened;
      return { exportId, checkpoint: null };
    },
  });
  const cheap = await client();
  const chunk = Buffer.alloc(64 * 1024);
  const floods: Array<[name: string, fill: (chunk: Buffer) => void]> = [
    ['zeroes without an end', (b) => b.fill(0)],
    ['short lines', (b) => b.fill('x\n')],
    ['empty lines', (b) => b.fill('\n')],
    ['braces', (b) => b.fill('[')],
    ['calls', (b) => b.fill(`${JSON.stringify(request('getHostInfo', {}))}\n`)],
    ['wrong calls', (b) => b.fill(`${JSON.stringify(request('getHostInfo', { a: 1, b: [1] }))}\n`)],
  ];
  for (const [name, fill] of floods) {
    const flood = await client();
    fill(chunk);
    let sent = 0;
    let going = true;
    const pour = async () => {
      while (going && sent < 16 * 1024 * 1024 && !flood.socket.destroyed) {
        sent += chunk.length;
        if (!flood.socket.write(Buffer.from(chunk))) {
          await Promise.race([once(flood.socket, 'drain'), once(flood.socket, 'close')]).catch(() => {});
        }
      }
    };
    const poured = pour();
    for (let i = 0; i < 5; i++) t.match(await cheap.call('getHostInfo'), { result: {} }, name);
    going = false;
    flood.destroy();
    await poured;
    t.match(await cheap.call('getHostInfo'), { result: {} }, `${name}: after it`);
  }
  // A client that leaves in mid-call, and one that leaves in mid-frame.
  const leaver = await client();
  leaver.sendMessage(request('teardownBackupDisk', { exportId: 'x' }));
  leaver.send('{"jsonrpc"');
  await cheap.call('getHostInfo');
  leaver.destroy();
  t.match(await cheap.call('getHostInfo'), { result: {} });
});

test('a message over the limit gets one answer, then the connection ends', async (t) => {
  const { client } = await start(t, {});
  for (const size of [1024 * 1024 + 1, 16 * 1024 * 1024]) {
    const c = await client();
    c.send(Buffer.alloc(size, 0x20));
    t.match(await c.untilEnd(), [{ id: null, error: { code: -32600, message: /1048576/ } }], `${size} bytes`);
  }
  const c = await client();
  c.send('x\n'.repeat(5000));
  const answers = await c.untilEnd();
  t.equal(answers.length, 100, 'and so does one that sends no JSON at all');
  t.ok(answers.every((answer) => (answer as Answer).error?.code === -32700));
});

test('a client that ends its side still gets its answers; one that leaves does not stop its verb', async (t) => {
  const work = gate();
  const finished = gate();
  const signals: AbortSignal[] = [];
  const { client } = await start(t, {
    async teardownBackupDisk({ exportId }, { signal }) {
      signals.push(signal);
      await work.opened;
      if (exportId === 'left') finished.open();
      return { exportId, checkpoint: null };
    },
  });
  const halfClosed = await client();
  halfClosed.sendMessage(request('teardownBackupDisk', { exportId: 'half' }, 'h'));
  halfClosed.socket.end();
  const leaver = await client();
  leaver.sendMessage(request('teardownBackupDisk', { exportId: 'left' }));
  const watcher = await client();
  while (signals.length < 2) await watcher.call('getHostInfo');
  leaver.destroy();
  await watcher.call('getHostInfo');
  work.open();
  t.match(await halfClosed.untilEnd(), [{ id: 'h', result: { exportId: 'half' } }]);
  await finished.opened;
  t.ok(signals.every(({ aborted }) => !aborted));
});

test('a client that ends its side right after more than may be outstanding still gets all its answers', async (t) => {
  const { client } = await start(t, { teardownBackupDisk: teardown }, { edge: { outstanding: 4 } });
  const c = await client();
  const ids = Array.from({ length: 50 }, (_, id) => id);
  // In pieces, so that the end comes while messages wait for their turn.
  for (const id of ids) c.sendMessage(request('teardownBackupDisk', { exportId: 'x' }, id));
  c.socket.end();
  const answers = (await c.untilEnd()) as Answer[];
  t.strictSame(
    answers.map(({ id }) => id).sort((a, b) => Number(a) - Number(b)),
    ids,
  );
});

test('an id that no answer could bear is refused before its call is made', async (t) => {
  const made: string[] = [];
  const { client } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      made.push(exportId);
      return { exportId, checkpoint: null };
    },
  });
  const c = await client();
  const line = (id: string) =>
    `{"jsonrpc": "2.0", "id": ${id}, "method": "teardownBackupDisk", "params": {"exportId": "x"}}`;
  for (const id of ['1e400', '-1e400', '9007199254740992', '123456789012345678901234567890', 'true', '{}']) {
    c.send(`${line(id)}\n`);
    t.match(
      await c.nextAnswer(),
      { id: null, error: { code: -32600, data: { name: 'InvalidRequest' } } },
      id,
    );
    c.send(`[${line(id)}]\n`);
    t.match(await c.next(), [{ id: null, error: { code: -32600, data: { name: 'InvalidRequest' } } }], id);
  }
  t.strictSame(made, []);
  for (const id of ['9007199254740991', '-9007199254740991', '1.5', '"1e400"']) {
    c.send(`${line(id)}\n`);
    t.strictSame((await c.nextAnswer()).id, JSON.parse(id));
  }
});

test('answers that nobody reads: the client is read no further, held to a bound, and disconnected', async (t) => {
  let calls = 0;
  const big = Array.from({ length: 10_000 }, (_, i) => ({ start: i, length: 1, dirty: true, zero: false }));
  const { client, lines } = await start(
    t,
    {
      async getChangedBlocks() {
        calls++;
        return { granularity: 65536, extents: big, nextOffset: null };
      },
    },
    { edge: { stallSeconds: 1 } },
  );
  const greedy = await client();
  greedy.socket.pause();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 2000; i++) greedy.sendMessage(request('getChangedBlocks', { exportId: 'x' }, i));
  const cheap = await client();
  while (!lines.some(({ msg }) => /answers/.test(String(msg)))) {
    t.match(await cheap.call('getHostInfo'), { result: {} });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  t.ok(calls <= 64, `${calls} of 2000 calls were taken`);
  t.ok(process.memoryUsage().rss - before < 256 * 1024 * 1024, 'and not 1 GiB held');
});

test('the limit on verbs at work: more is LimitReached, getHostInfo is answered', async (t) => {
  const work = gate();
  const { client } = await start(
    t,
    {
      async teardownBackupDisk({ exportId }) {
        await work.opened;
        return { exportId, checkpoint: null };
      },
    },
    { limits: { ...limits, verbs: 2 } },
  );
  const c = await client();
  const running = ['a', 'b'].map((exportId) => c.call('teardownBackupDisk', { exportId }));
  const refused = await c.call('teardownBackupDisk', { exportId: 'c' });
  t.match(refused.error, { code: 5018, data: { name: 'LimitReached', retryable: true } });
  t.match(await c.call('getHostInfo'), { result: {} });
  work.open();
  t.match(await Promise.all(running), [{ result: {} }, { result: {} }]);
  t.match(await c.call('teardownBackupDisk', { exportId: 'c' }), { result: {} });
});

test('a deadline: the signal fires; a verb that gives up is Timeout, one that hangs too, after a grace', async (t) => {
  const late = gate();
  const deadlineSeconds = {
    ...limits.deadlineSeconds,
    teardownBackupDisk: 0.05,
    getExport: 0.05,
    listDisks: 0.05,
  };
  const { client, lines } = await start(
    t,
    {
      async teardownBackupDisk(_params, { signal }) {
        await new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        });
        throw new Error('not reached');
      },
      async getExport(_params, { signal }) {
        await once(new EventTarget() as never, 'never', { signal });
        throw new Error('not reached');
      },
      async listDisks() {
        await late.opened;
        return { disks: [] };
      },
    },
    { limits: { ...limits, deadlineSeconds }, edge: { graceSeconds: 0.05 } },
  );
  const c = await client();
  const timeout = { code: 5016, data: { name: 'Timeout', retryable: true } };
  t.match((await c.call('teardownBackupDisk', { exportId: 'x' })).error, {
    ...timeout,
    data: { ...timeout.data, exportId: 'x' },
  });
  t.match(
    (await c.call('getExport', { exportId: 'x' })).error,
    timeout,
    'an AbortError is told as what it is',
  );
  t.match((await c.call('listDisks', { vmId: 'v' })).error, timeout);
  late.open();
  while (!lines.some(({ msg }) => /long after/.test(String(msg)))) await c.call('getHostInfo');
});

test('the audit: at each level a line of what changes, also of what ends after its Timeout', async (t) => {
  const late = gate();
  const lines: Record<string, unknown>[] = [];
  const out = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const limited = { ...limits, deadlineSeconds: { ...limits.deadlineSeconds, teardownBackupDisk: 0.05 } };
  const { client } = await start(
    t,
    {
      teardownBackupDisk: async ({ exportId }) => {
        await late.opened;
        return { exportId, checkpoint: null };
      },
      hotunplugDisk: async ({ vmId }) => ({ vmId, target: null }),
    },
    {
      limits: limited,
      edge: { graceSeconds: 0.05 },
      log: createLog({ level: 'error', journal: false, out }),
    },
  );
  const c = await client();
  t.match(await c.call('hotunplugDisk', { vmId: 'v', target: 'vdb' }), { result: { target: null } });
  const drive = { type: 'network', device: 'disk', protocol: 'nbd', name: 'vda', format: 'raw' };
  const of = { readonly: true, serial: 'abcdefghijklmnopqrst', capacity: 1024, tls: false };
  const hosts = [{ transport: 'unix', socket: '/run/nbd.sock' }];
  t.match(await c.call('hotunplugDisk', { vmId: 'v', drive: { ...drive, ...of, hosts } }), { result: {} });
  const ended = (await c.call('teardownBackupDisk', { exportId: 'x' })).error;
  t.strictSame(ended?.data, { name: 'Timeout', retryable: true, exportId: 'x' });
  late.open();
  while (lines.length < 4) await c.call('getHostInfo');
  t.match(lines, [
    { audit: true, verb: 'hotunplugDisk', vmId: 'v', target: 'vdb', outcome: 'done' },
    { audit: true, verb: 'hotunplugDisk', vmId: 'v', serial: of.serial, outcome: 'done' },
    { audit: true, verb: 'teardownBackupDisk', exportId: 'x', outcome: 'failed', error: 'Timeout' },
    { audit: true, verb: 'teardownBackupDisk', exportId: 'x', outcome: 'done', msg: /long after/ },
  ]);
  t.notOk(lines[1] !== undefined && 'exportId' in lines[1]);
});

test('one client too many is told what this host is, and else that it is one too many', async (t) => {
  const edge = { guests: 1, guestSeconds: 1 };
  const listExports = async () => ({ exports: [] });
  const { client } = await start(t, { listExports }, { limits: { ...limits, clients: 2 }, edge });
  const [first] = [await client(), await client()];
  const third = await client();
  t.match(await third.call('getHostInfo'), { result: { hostId: 'h' } });
  const refused = await third.call('listExports');
  t.match(refused.error, { code: 5018, message: /^2 clients are connected.*raise \[limits\] clients\.$/ });
  await third.untilEnd();
  t.pass('after its time a guest has to leave');
  first.destroy();
  for (;;) {
    const next = await client();
    const answer = await next.call('listExports').catch(() => undefined);
    next.destroy();
    if (answer?.result !== undefined) break;
  }
  t.pass('and a place that is free again is taken');
});

test('the socket: mode and group, a dead one replaced, a live one and other files refused', async (t) => {
  const { path, server, client } = await start(t, {});
  const { mode, uid } = await stat(path);
  t.equal((mode & 0o777).toString(8), '660');
  t.equal(uid, process.geteuid?.());
  const other = createRpcServer({ verbs: {}, limits, log: createLog({ level: 'fatal', journal: false }) });
  await t.rejects(other.listenUnix(path, { group: 'root' }), /another daemon listens here/);
  t.match(await (await client()).call('getHostInfo'), { result: { hostId: 'h' } }, 'which is undisturbed');
  await server.close();
  await t.rejects(stat(path), { code: 'ENOENT' });

  // A process that dies without a word leaves its socket file behind.
  const listenAndDie =
    'require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))';
  t.equal(spawnSync(process.execPath, ['-e', listenAndDie, path], { timeout: 30_000 }).signal, 'SIGKILL');
  t.ok((await stat(path)).isSocket());
  const heir = createRpcServer({
    verbs: { getHostInfo: hostInfo },
    limits,
    log: createLog({ level: 'fatal' }),
  });
  t.teardown(() => heir.close());
  await heir.listenUnix(path, { group: 'root' });
  const after = await LineClient.connect(path);
  t.match(await after.call('getHostInfo'), { result: { hostId: 'h' } });
  after.destroy();
});

test('sockets that are in the way', async (t) => {
  const folder = await mkdtemp('/tmp/vmdiskd-rpc-');
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const quiet = createLog({ level: 'fatal', journal: false });
  const fresh = () => {
    const server = createRpcServer({ verbs: { getHostInfo: hostInfo }, limits, log: quiet });
    t.teardown(() => server.close());
    return server;
  };
  await writeFile(join(folder, 'file'), 'precious');
  await t.rejects(fresh().listenUnix(join(folder, 'file'), { group: 'root' }), /not a socket/);
  t.equal(await readFile(join(folder, 'file'), 'utf8'), 'precious');
  await t.rejects(fresh().listenUnix(join(folder, 'x'.repeat(107)), { group: 'root' }), /107 bytes/);

  const listening = createServer().listen(join(folder, 'theirs'));
  await once(listening, 'listening');
  await chmod(join(folder, 'theirs'), 0o600);
  await t.rejects(fresh().listenUnix(join(folder, 'theirs'), { group: 'root' }), /another daemon/);
  listening.close();

  await fresh().listenUnix(join(folder, 'new/place.sock'), { group: 'no-such-group' });
  const client = await LineClient.connect(join(folder, 'new/place.sock'));
  t.match(await client.call('getHostInfo'), { result: {} }, 'without the group, for root');
  client.destroy();
});

test('close waits for verbs at work and sends their answers', async (t) => {
  const work = gate();
  const { client, server } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      await work.opened;
      return { exportId, checkpoint: null };
    },
  });
  const c = await client();
  const running = c.call('teardownBackupDisk', { exportId: 'x' });
  await c.call('getHostInfo');
  const closed = server.close();
  t.equal(server.close(), closed, 'closing twice is closing once');
  work.open();
  t.match(await running, { result: {} });
  t.equal(await closed, true);
  t.strictSame(await c.untilEnd(), []);
});

test('close does not wait for ever', async (t) => {
  const hang = gate();
  const { client, server } = await start(t, {
    async teardownBackupDisk({ exportId }) {
      await hang.opened;
      return { exportId, checkpoint: null };
    },
  });
  const c = await client();
  c.sendMessage(request('teardownBackupDisk', { exportId: 'x' }));
  await c.call('getHostInfo');
  t.equal(await server.close({ timeoutSeconds: 0.05 }), false);
  hang.open();
});

test('fuzz: whatever is sent, the next call on a new connection is answered', async (t) => {
  const { client } = await start(t, { teardownBackupDisk: teardown });
  const method = fc.oneof(fc.constantFrom('teardownBackupDisk', 'getHostInfo', 'toString'), fc.string());
  const message = fc.oneof(
    fc.jsonValue(),
    fc.record(
      { jsonrpc: fc.constantFrom('2.0', '1.0'), id: fc.jsonValue(), method, params: fc.jsonValue() },
      { requiredKeys: [] },
    ),
  );
  const frame = fc.oneof(
    message.map((value) => `${JSON.stringify(value)}\n`),
    fc.array(message, { maxLength: 5 }).map((batch) => `${JSON.stringify(batch)}\n`),
    fc.string({ unit: 'binary', maxLength: 50 }),
    fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes)),
  );
  const cheap = await client();
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 20 }), async (frames) => {
      const c = await client();
      for (const bytes of frames) c.send(bytes);
      c.send('\n');
      const answer = await c.call('getHostInfo');
      c.destroy();
      return answer.result !== undefined && (await cheap.call('getHostInfo')).result !== undefined;
    }),
    { numRuns: 200 },
  );
});
