/** Real servers: qemu-nbd and nbdkit, with nbdinfo as the second opinion on every map. */
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { childProcesses } from '../../agent/host/process-child.js';
import { runTool } from '../../agent/host/process-tool.js';
import { poll, within } from '../../agent/host/process-wait.js';
import { blockStatus } from '../../agent/nbd/block-status.js';
import { fetchExports, fetchMetaContexts, NbdClient } from '../../agent/nbd/client.js';
import type { ImageOptions } from '../../agent/nbd/image-options.js';
import { isListening, probe } from '../../agent/nbd/probe.js';
import {
  type QemuNbdOptions,
  type QemuNbdServer,
  qemuNbdProcess,
  startQemuNbd,
  stopQemuNbd,
} from '../../agent/nbd/qemu-nbd.js';
import type { Extent } from '../../agent/nbd/transmission.js';
import { formatNbdUri, type NbdAddress } from '../../agent/nbd/uri.js';
import { type Range, without } from '../golden/ranges.js';
import { collect } from './wire.js';

const wait = { timeoutMs: 20_000 };
const stopping = { timeoutMs: 20_000, graceMs: 10_000 };
const mebi = 2 ** 20;
/** NBD_STATE_HOLE and NBD_STATE_ZERO of base:allocation. */
const HOLE_AND_ZERO = 3;
const started: QemuNbdServer[] = [];
let folder = '';
let count = 0;

t.before(async () => {
  folder = await mkdtemp('/tmp/vmdiskd-nbd-');
});
t.after(async () => {
  for (const server of started) await stopQemuNbd(childProcesses, server, stopping);
  await rm(folder, { recursive: true });
});

const tool = async (name: string, ...args: string[]) =>
  (await runTool(name, args, { ...wait, maxOutput: 64 * mebi })).stdout;
const unix = ({ socket }: { socket: string }): NbdAddress => ({ transport: 'unix', socket });

function node(path: string, backing: ImageOptions | null = null): ImageOptions {
  const file = { driver: 'file', filename: join(folder, path), locking: 'on' };
  return path.endsWith('.raw') ? { driver: 'raw', file } : { driver: 'qcow2', file, backing };
}

function options(image: ImageOptions, extra: Partial<QemuNbdOptions> = {}): QemuNbdOptions {
  count += 1;
  return {
    name: `vmdiskd-test-nbd-${process.pid}-${count}`,
    image,
    readOnly: true,
    exportName: `e${count}`,
    socket: join(folder, `nbd${count}.sock`),
    stderrFile: join(folder, `nbd${count}.err`),
    ...extra,
  };
}

async function serve(image: ImageOptions, extra: Partial<QemuNbdOptions> = {}): Promise<QemuNbdServer> {
  const server = await startQemuNbd(childProcesses, options(image, extra), wait);
  started.push(server);
  return server;
}

/** A map by our client, from pages of at most `longestRequest`, and each page checked against its promise. */
async function ourMap(
  address: NbdAddress,
  exportName: string,
  contexts: string[],
  range: { offset?: number; length?: number; longestRequest?: number } = {},
): Promise<Map<string, Extent[]>> {
  const client = await NbdClient.connect(address, { ...wait, exportName, contexts });
  const map = new Map<string, Extent[]>(contexts.map((name) => [name, []]));
  try {
    let at = range.offset ?? 0;
    for await (const page of blockStatus(client, { ...wait, ...range })) {
      if (page.start !== at || page.length < 1) throw new Error(`page at ${page.start}, not ${at}`);
      at += page.length;
      for (const [name, extents] of page.extents) {
        let start = page.start;
        for (const extent of extents) {
          if (extent.start !== start || extent.length < 1)
            throw new Error(`extent at ${extent.start}, not ${start}`);
          start += extent.length;
        }
        if (start !== at) throw new Error(`${name} ends at ${start}`);
        map.get(name)?.push(...extents);
      }
    }
  } finally {
    await client.close();
  }
  return new Map([...map].map(([name, extents]) => [name, joined(extents)]));
}

function joined(extents: Extent[]): Extent[] {
  const all: Extent[] = [];
  for (const extent of extents) {
    const last = all.at(-1);
    if (last?.flags === extent.flags) all[all.length - 1] = { ...last, length: last.length + extent.length };
    else all.push(extent);
  }
  return all;
}

/** The same by libnbd. */
async function nbdinfoMap(address: NbdAddress, exportName: string, context: string): Promise<Extent[]> {
  const uri = formatNbdUri({ address, tls: false, exportName });
  const text = await tool('nbdinfo', `--map=${context}`, '--json', uri);
  const entries: { offset: number; length: number; type: number }[] = JSON.parse(text);
  return joined(entries.map(({ offset, length, type }) => ({ start: offset, length, flags: type })));
}

function clip(extents: Extent[], offset: number, size: number): Extent[] {
  return extents.flatMap(({ start, length, flags }) => {
    const from = Math.max(start, offset);
    const until = Math.min(start + length, offset + size);
    return from < until ? [{ start: from, length: until - from, flags }] : [];
  });
}

/**
 * The same map asked for twice. Where a raw file has blocks that were allocated and not written, the host's file system
 * may call them a hole first and data later (see `assertConsistent` of the golden test); nothing else may differ.
 */
function assertLater(t: Test, later: Extent[] | undefined, earlier: Extent[], what: string): void {
  const data = (extents: Extent[]) =>
    extents.filter(({ flags }) => flags === 0).map(({ start, length }) => ({ start, end: start + length }));
  const more = without(data(later ?? []), data(earlier));
  const grown = earlier.flatMap((extent) => (extent.flags === HOLE_AND_ZERO ? cut(extent, more) : [extent]));
  t.strictSame(later, joined(grown), what);
}

/** The extent, with what the ranges cover turned to data. */
function cut(extent: Extent, ranges: Range[]): Extent[] {
  const all = { start: extent.start, end: extent.start + extent.length };
  const holes = without([all], ranges);
  return [
    ...holes.map((hole) => ({ ...hole, flags: extent.flags })),
    ...without([all], holes).map((range) => ({ ...range, flags: 0 })),
  ]
    .map(({ start, end, flags }) => ({ start, length: end - start, flags }))
    .sort((a, b) => a.start - b.start);
}

/** A deterministic stream of numbers below 2^32: xorshift. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

t.test('maps of random images equal libnbd: data, depth and bitmaps, in one pass', async (t) => {
  for (const seed of [1, 2, 3]) {
    const next = random(seed * 7919);
    // An odd size: the last block is short.
    const size = 32 * mebi + 512 * (next() % 128);
    const write = async (file: string, format: string, writes: number) => {
      const commands = Array.from({ length: writes }, () => {
        const offset = (next() % Math.floor(size / 512)) * 512;
        const length = Math.min(size - offset, ((next() % 600) + 1) * 512);
        const what = ['write -P 7', 'write -P 8', 'write -z', 'write -z -u', 'discard'][next() % 5];
        return ['-c', `${what} ${offset} ${length}`];
      });
      await tool('qemu-io', '-f', format, ...commands.flat(), join(folder, file));
    };
    const [base, middle, top] = [`base${seed}.raw`, `mid${seed}.qcow2`, `top${seed}.qcow2`];
    await tool('qemu-img', 'create', '-f', 'raw', join(folder, base), String(size));
    await write(base, 'raw', 30);
    await tool(
      'qemu-img',
      'create',
      '-f',
      'qcow2',
      '-F',
      'raw',
      '-b',
      join(folder, base),
      join(folder, middle),
    );
    await write(middle, 'qcow2', 30);
    const clusters = `cluster_size=${4096 * 4 ** (seed - 1)}`;
    await tool(
      'qemu-img',
      'create',
      '-f',
      'qcow2',
      '-o',
      clusters,
      '-F',
      'qcow2',
      '-b',
      join(folder, middle),
      join(folder, top),
    );
    await tool('qemu-img', 'bitmap', '--add', '-g', '65536', join(folder, top), 'monday');
    await write(top, 'qcow2', 20);
    await tool('qemu-img', 'bitmap', '--add', '-g', '4096', join(folder, top), 'tues,day=2');
    await write(top, 'qcow2', 20);

    const server = await serve(node(top, node(middle, node(base))), {
      bitmaps: ['monday', 'tues,day=2'],
      allocationDepth: true,
    });
    const address = unix(server);
    const contexts = [
      'base:allocation',
      'qemu:allocation-depth',
      'qemu:dirty-bitmap:monday',
      'qemu:dirty-bitmap:tues,day=2',
    ];
    t.strictSame((await fetchMetaContexts(address, server.exportName, wait)).sort(), contexts);
    const whole = await ourMap(address, server.exportName, contexts);
    const paged = await ourMap(address, server.exportName, contexts, { longestRequest: 3 * 4096 });
    const [offset, length] = [1000 + (next() % mebi), 7 * mebi + 13];
    const part = await ourMap(address, server.exportName, contexts, { offset, length, longestRequest: mebi });
    for (const name of contexts) {
      const extents = whole.get(name) ?? [];
      const same = (later: Extent[] | undefined, earlier: Extent[], what: string) =>
        name === 'base:allocation'
          ? assertLater(t, later, earlier, what)
          : t.strictSame(later, earlier, what);
      const libnbd = await nbdinfoMap(address, server.exportName, name);
      same(libnbd, extents, `${name}, seed ${seed}`);
      t.ok(extents.length > 3, `${name} has something to tell: ${extents.length} extents`);
      same(paged.get(name), extents, `${name} in many pages`);
      same(part.get(name), clip(extents, offset, length), `an unaligned part of ${name}`);
    }
    await stopQemuNbd(childProcesses, server, stopping);
  }
});

t.test('a large sparse disk, and an empty one', async (t) => {
  const size = 20 * 2 ** 40;
  await tool('qemu-img', 'create', '-f', 'qcow2', join(folder, 'large.qcow2'), String(size));
  await tool(
    'qemu-io',
    '-f',
    'qcow2',
    '-c',
    `write ${size - mebi} 64k`,
    '-c',
    'write 5T 64k',
    join(folder, 'large.qcow2'),
  );
  const server = await serve(node('large.qcow2'));
  const map = await ourMap(unix(server), server.exportName, ['base:allocation']);
  t.strictSame(
    map.get('base:allocation'),
    await nbdinfoMap(unix(server), server.exportName, 'base:allocation'),
  );
  t.equal(map.get('base:allocation')?.length, 5);
  await tool('qemu-img', 'create', '-f', 'raw', join(folder, 'empty.raw'), '0');
  const empty = await serve(node('empty.raw'));
  t.strictSame(
    [...(await ourMap(unix(empty), empty.exportName, ['base:allocation']))],
    [['base:allocation', []]],
  );
  await stopQemuNbd(childProcesses, server, stopping);
  await stopQemuNbd(childProcesses, empty, stopping);
});

t.test('ranges and contexts that are not there are refused', async (t) => {
  await tool('qemu-img', 'create', '-f', 'qcow2', join(folder, 'small.qcow2'), '1M');
  const server = await serve(node('small.qcow2'), { description: 'for the scanner' });
  const target = { ...wait, exportName: server.exportName, contexts: ['base:allocation'] };
  const client = await NbdClient.connect(unix(server), target);
  // QEMU has 64-bit headers from 8.2 on.
  t.ok(['structured', 'extended'].includes(client.replies));
  t.match(client.facts, { size: mebi, minimumBlock: 1, preferredBlock: 4096 });
  for (const range of [
    { offset: -1 },
    { offset: 2, length: mebi },
    { offset: 0.5 },
    { contexts: ['x:y'] },
    { contexts: [] },
  ]) {
    await t.rejects(collect(blockStatus(client, { ...wait, ...range })), RangeError);
  }
  t.strictSame(await collect(blockStatus(client, { ...wait, offset: mebi })), [], 'nothing at the end');
  await t.rejects(client.blockStatus(mebi, 512, wait), { kind: 'failed', code: 'NBD_EINVAL' });
  t.ok((await client.blockStatus(0, 512, wait)).has('base:allocation'), 'and the client goes on');
  await client.close();
  t.strictSame(await fetchExports(unix(server), wait), [
    { exportName: server.exportName, description: 'for the scanner' },
  ]);
  const bitmap = { ...target, contexts: ['base:allocation', 'qemu:dirty-bitmap:none'] };
  await t.rejects(NbdClient.connect(unix(server), bitmap), {
    kind: 'unsupported',
    message: /qemu:dirty-bitmap:none/,
  });
  const other = { ...target, contexts: [], exportName: 'other' };
  await t.rejects(NbdClient.connect(unix(server), other), { kind: 'refused', code: 'NBD_REP_ERR_UNKNOWN' });
  await stopQemuNbd(childProcesses, server, stopping);
});

t.test('8 and more clients at once, none waiting for another; the server outlives them', async (t) => {
  const server = await serve(node('small.qcow2'));
  const target = { ...wait, exportName: server.exportName, contexts: ['base:allocation'] };
  const clients = await Promise.all(
    Array.from({ length: 16 }, () => NbdClient.connect(unix(server), target)),
  );
  const answers = await Promise.all(clients.map((client) => client.blockStatus(0, mebi, wait)));
  t.equal(answers.length, 16);
  t.equal(await probe(unix(server), { timeoutMs: 300 }), 'silent', 'the 17th waits: 16 are the limit');
  await Promise.all(clients.map((client) => client.close()));
  t.ok(await isListening(unix(server), wait));
  await stopQemuNbd(childProcesses, server, stopping);
});

t.test('the server is for root alone, holds the lock, and leaves nothing when stopped', async (t) => {
  const server = await serve(node('small.qcow2'), { readOnly: false, discard: true });
  t.equal((await stat(server.socket)).mode & 0o777, 0o600);
  t.strictSame(await childProcesses.find(server.process.name), server.process);
  const rival = options(node('small.qcow2'));
  const error = await startQemuNbd(childProcesses, rival, wait).catch((reason: unknown) => reason);
  t.match(error, {
    name: 'DiskInUse',
    retryable: true,
    details: { stderr: /Failed to get shared "write" lock/ },
  });
  t.equal(await childProcesses.find(rival.name), undefined);
  await t.rejects(stat(rival.socket), { code: 'ENOENT' }, 'the failed one left no socket');
  const twice = startQemuNbd(
    childProcesses,
    { ...options(node('small.qcow2')), socket: server.socket },
    wait,
  );
  await t.rejects(twice, { name: 'AlreadyExists' });

  await stopQemuNbd(childProcesses, server, stopping);
  t.notOk(await childProcesses.isAlive(server.process));
  await t.rejects(stat(server.socket), { code: 'ENOENT' });
  await stopQemuNbd(childProcesses, server, stopping);
  for (let round = 0; round < 5; round += 1) {
    // Each start would fail on the lock if the one before were not wholly gone.
    const next = await serve(node('small.qcow2'), { readOnly: false });
    await stopQemuNbd(childProcesses, next, stopping);
  }
});

t.test('one that is killed leaves its socket, which is neither ready nor in the way', async (t) => {
  const server = await serve(node('small.qcow2'));
  process.kill(server.process.identity.pid, 'SIGKILL');
  await childProcesses.waitForExit(server.process, wait);
  t.ok((await stat(server.socket)).isSocket());
  t.equal(await probe(unix(server), wait), 'refused');
  const next = await serve(node('small.qcow2'), { socket: server.socket });
  t.ok(await isListening(unix(next), wait));
  await stopQemuNbd(childProcesses, next, stopping);
  await stopQemuNbd(childProcesses, server, stopping);
});

t.test('why a server does not start is told at once, in its own words', async (t) => {
  const fails = async (image: ImageOptions, extra: Partial<QemuNbdOptions>, message: RegExp) => {
    const options_ = options(image, extra);
    const long = { timeoutMs: 60_000 };
    const error = await startQemuNbd(childProcesses, options_, long).catch((reason: unknown) => reason);
    t.match(error, { name: 'ExportFailed', message, details: { stderr: /qemu-nbd: / } });
    t.equal(await childProcesses.find(options_.name), undefined);
  };
  await fails(
    node('absent.qcow2'),
    {},
    /^qemu-nbd ended at its start: .*the image: .*No such file or directory/,
  );
  await fails(node('small.qcow2'), { bitmaps: ['none'] }, /Bitmap 'none'/);
  await fails(node('small.qcow2'), { socket: '/tmp/no/such/folder/s' }, /Failed to bind/);
  await writeFile(join(folder, 'rubbish.qcow2'), 'rubbish');
  await fails(node('rubbish.qcow2'), {}, /not in qcow2 format/);
  t.throws(
    () => qemuNbdProcess(options(node('small.qcow2'), { socket: `/tmp/${'x'.repeat(103)}` })),
    /107 bytes/,
  );
});

t.test('a start that takes too long, or is not wanted any more, leaves nothing', async (t) => {
  // An image that never opens: a server that accepts and says nothing.
  const mute = createServer((peer) => peer.resume());
  const path = join(folder, 'mute.sock');
  await new Promise<void>((resolve) => mute.listen(path, resolve));
  t.teardown(() => mute.close());
  const image = { driver: 'raw', file: { driver: 'nbd', export: 'x', server: { type: 'unix', path } } };
  const slow = options(image);
  await t.rejects(startQemuNbd(childProcesses, slow, { timeoutMs: 400 }), { name: 'Timeout' });
  t.equal(await childProcesses.find(slow.name), undefined);
  const unwanted = options(image);
  const leave = new AbortController();
  const start = startQemuNbd(childProcesses, unwanted, { ...wait, signal: leave.signal });
  const failed = t.rejects(start, { message: 'caller left' });
  await within('the process', wait, (signal) => poll(signal, () => childProcesses.find(unwanted.name)));
  leave.abort(new Error('caller left'));
  await failed;
  t.equal(await childProcesses.find(unwanted.name), undefined);
  t.strictSame(
    (await readdir(folder)).filter((name) => name === `nbd${count}.sock`),
    [],
  );
});

t.test('a server that stops in the middle: stopped still, killed, ended in order', async (t) => {
  const server = await serve(node('small.qcow2'));
  const { pid } = server.process.identity;
  const target = { ...wait, exportName: server.exportName, contexts: ['base:allocation'] };
  const [first, second] = [
    await NbdClient.connect(unix(server), target),
    await NbdClient.connect(unix(server), target),
  ];
  process.kill(pid, 'SIGSTOP');
  await t.rejects(first.blockStatus(0, mebi, { timeoutMs: 50 }), { name: 'Timeout' });
  const asked = second.blockStatus(0, mebi, wait);
  const failed = t.rejects(asked, { name: 'NbdError', kind: 'closed' });
  process.kill(pid, 'SIGKILL');
  await failed;
  await Promise.all([first.close(), second.close()]);
  await childProcesses.waitForExit(server.process, wait);
  await t.rejects(NbdClient.connect(unix(server), target), { kind: 'unreachable', code: 'ECONNREFUSED' });
  await stopQemuNbd(childProcesses, server, stopping);

  const orderly = await serve(node('small.qcow2'));
  const client = await NbdClient.connect(unix(orderly), { ...target, exportName: orderly.exportName });
  await stopQemuNbd(childProcesses, orderly, stopping);
  await t.rejects(client.blockStatus(0, mebi, wait), { name: 'NbdError', kind: 'closed' });
  await client.close();
});

t.test('a server of another user, on a socket of its own', async (t) => {
  const run = join(folder, 'run');
  await mkdir(run);
  await chmod(folder, 0o711);
  await chmod(run, 0o777);
  await chmod(join(folder, 'small.qcow2'), 0o644);
  const server = await serve(node('small.qcow2'), {
    socket: join(run, 's'),
    user: { uid: 65534, gid: 65534 },
  });
  const { uid, mode } = await stat(server.socket);
  t.strictSame([uid, mode & 0o777], [65534, 0o600]);
  await stopQemuNbd(childProcesses, server, stopping);
});

/** Another implementation: nbdkit, through the same launcher. */
async function nbdkit(...args: string[]): Promise<NbdAddress> {
  count += 1;
  const socket = join(folder, `kit${count}.sock`);
  const spec = {
    name: `vmdiskd-test-nbd-${process.pid}-${count}`,
    program: 'nbdkit',
    args: ['--foreground', '--unix', socket, ...args],
    stderrFile: join(folder, `kit${count}.err`),
  };
  const server = await childProcesses.start(spec, wait);
  started.push({ process: server, socket, exportName: '' });
  await within('nbdkit', wait, (signal) =>
    poll(signal, async () => (await isListening({ transport: 'unix', socket }, wait)) || undefined),
  );
  return { transport: 'unix', socket };
}

t.test('nbdkit: maps equal libnbd', async (t) => {
  const servers: Record<string, string[]> = {
    data: ['data', 'data=@0x10000 1 @0x30001 (0x55 0xaa)*70000 @0x3fffff 5', 'size=10M'],
    'sparse-random': ['sparse-random', 'size=1G', 'seed=7'],
    // Extents of its own making: longer than asked, neighbours alike, of uneven length.
    eval: [
      'eval',
      'get_size=echo 10000000',
      'pread=exit 1',
      'can_extents=exit 0',
      'extents=o=$4; echo "$((o)) 1000"; echo "$((o+1000)) 333 hole"; echo "$((o+1333)) 1 hole"; echo "$((o+1334)) 999999 hole,zero"',
    ],
    'an unaligned size in large blocks': [
      '--filter=blocksize-policy',
      'data',
      'data=@0x9000 1',
      'size=65536',
      'blocksize-minimum=4096',
      'blocksize-error-policy=error',
    ],
  };
  for (const [name, args] of Object.entries(servers)) {
    const address = await nbdkit(...args);
    const map = await ourMap(address, '', ['base:allocation']);
    const extents = map.get('base:allocation') ?? [];
    t.strictSame(extents, await nbdinfoMap(address, '', 'base:allocation'), name);
    t.ok(extents.length > 1, `${name}: ${extents.length} extents`);
    if (name.startsWith('an unaligned')) {
      const part = await ourMap(address, '', ['base:allocation'], {
        offset: 100,
        length: 5000,
        longestRequest: 5000,
      });
      t.strictSame(
        part.get('base:allocation'),
        [{ start: 100, length: 5000, flags: 3 }],
        'asked in whole blocks',
      );
    }
  }
  const kit = await nbdkit('null', 'size=1M');
  const relay = createServer((peer) => {
    const way = connect(kit.transport === 'unix' ? kit.socket : '');
    peer.pipe(way).pipe(peer);
    for (const end of [peer, way]) end.on('error', () => {});
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  t.teardown(() => relay.close());
  const listening = relay.address();
  const port = typeof listening === 'object' && listening ? listening.port : 0;
  const tcp: NbdAddress = { transport: 'tcp', host: '127.0.0.1', port };
  t.ok(await isListening(tcp, wait));
  t.strictSame(
    [...(await ourMap(tcp, '', ['base:allocation']))],
    [['base:allocation', [{ start: 0, length: mebi, flags: 3 }]]],
    'over TCP',
  );
  const noExtents = await nbdkit('--filter=error', 'null', 'size=1M', 'error-extents-rate=100%', 'error=EIO');
  await t.rejects(ourMap(noExtents, '', ['base:allocation']), { kind: 'failed', code: 'NBD_EIO' });
});
