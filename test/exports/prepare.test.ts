/** Exports of images and of shut-off VMs, through the daemon, read by libnbd's own tools. Needs root. */
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import t from 'tap';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  coversDisk,
  defineVm,
  failureOf,
  joinBy,
  MiB,
  mapByNbdinfo,
  prepare,
  refused,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
  wholeMap,
} from './rig.js';

t.setTimeout(600_000);

const IMAGES = '/var/lib/libvirt/images';
const SIZE = 32 * MiB;
let host: Host;
let daemon: DaemonHandle;
/** qcow2: data, zeroes written as such, and the bitmap `monday` with changes since. */
let disk = '';
/** raw: the same data, the file sparse. */
let plain = '';

t.before(async () => {
  host = await startHost(t);
  disk = await host.createImage({ name: 'disk.qcow2', format: 'qcow2', size: SIZE });
  await io(disk, 'write -P 7 1M 2M', 'write -z 8M 1M');
  plain = `${IMAGES}/disk.raw`;
  await host.must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', disk, plain]);
  await host.must('qemu-img', ['bitmap', '--add', disk, 'monday']);
  await io(disk, 'write -P 8 4M 128k', 'write -z 1M 64k', 'write -P 9 31M 1M');
  daemon = await host.startDaemon();
});

/** qemu-io commands on a qcow2 image that nothing has open. */
const io = (path: string, ...commands: string[]): Promise<string> =>
  host.must('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path]);

/** Runs python in nbdsh, connected to nothing yet, with the URI as `u`. */
const nbdsh = (uri: string, ...lines: string[]): Promise<string> =>
  host.must('nbdsh', ['-c', [`u = ${JSON.stringify(uri)}`, ...lines].join('\n')]);

const tearDown = (exportId: string) => verb(daemon, 'teardownBackupDisk', { exportId });
const qemuNbds = async () => (await host.processes()).filter(({ comm }) => comm === 'qemu-nbd');

t.test(
  'a qcow2 image by path: what readers see is the disk, and the map is of what holds data',
  async (t) => {
    const made = await prepare(daemon, { exportId: 'full', path: disk, format: 'qcow2' });
    t.match(made, {
      exportId: 'full',
      drive: {
        ...{ type: 'network', device: 'disk', protocol: 'nbd', name: 'full', tls: false, format: 'raw' },
        ...{ readonly: true, serial: /^[a-z2-7]{20}$/, capacity: SIZE },
        hosts: [{ transport: 'unix', socket: '/run/vmdiskd/exports/full/nbd.sock' }],
      },
      uri: 'nbd+unix:///full?socket=/run/vmdiskd/exports/full/nbd.sock',
      cbt: { mode: 'full', origin: 'allocation', metaContext: 'base:allocation', nextOffset: null },
      blocksStart: false,
      connections: 8,
      lease: null,
    });
    t.notOk('since' in made.cbt || 'reason' in made.cbt);
    const told = JSON.parse(await host.must('nbdinfo', ['--json', made.uri])).exports[0];
    t.match(told, {
      ...{ 'export-name': 'full', 'export-size': SIZE, is_read_only: true, can_multi_conn: true },
    });
    t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, disk, 'qcow2'));
    t.ok(coversDisk(made.cbt.extents, SIZE));
    const allocation = await mapByNbdinfo(host, made.uri, 'base:allocation');
    // Bit 1 of base:allocation: reads as zeroes.
    const zeroes = allocation.map(({ start, length, type }) => ({ start, length, value: (type & 2) !== 0 }));
    const joined = zeroes.filter(({ value }, i) => i === 0 || zeroes[i - 1]?.value !== value);
    t.strictSame(
      joinBy(made.cbt.extents, 'zero').map(({ start, value }) => ({ start, value })),
      joined.map(({ start, value }) => ({ start, value })),
    );
    t.ok(
      made.cbt.extents.every(({ dirty, zero }) => dirty !== zero),
      'dirty is what holds data',
    );
    const dirty = made.cbt.extents.filter((extent) => extent.dirty);
    t.equal(
      made.cbt.changedBytes,
      dirty.reduce((sum, { length }) => sum + length, 0),
    );
    t.equal(made.cbt.changedBytes, 2 * MiB - 65536 + 131072 + MiB);

    const row = await verb(daemon, 'getExport', { exportId: 'full' });
    t.match(row, {
      ...{
        exportId: 'full',
        kind: 'backup',
        owner: 'unix',
        vmId: null,
        disk: null,
        path: disk,
        format: 'qcow2',
      },
      ...{ pointInTime: { kind: 'image' }, access: 'read-only', transport: { type: 'unix' }, attachedTo: [] },
      ...{ state: 'ready', error: null, blocksStart: false, lease: null, clients: null, bytes: null },
    });
    t.match(row.created, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    t.strictSame(await verb(daemon, 'listExports', {}), { exports: [row] });
    t.strictSame(await verb(daemon, 'listExports', { vmId: 'nobody-knows' }), { exports: [] });

    t.strictSame(await tearDown('full'), { exportId: 'full', checkpoint: null });
    t.strictSame(await remains(host), []);
    t.strictSame(await verb(daemon, 'listExports', {}), { exports: [] });
  },
);

t.test('a raw image by path, and one whose name means something to QEMU, XML and a shell', async (t) => {
  const made = await prepare(daemon, { exportId: 'raw', path: plain, format: 'raw' });
  t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, plain, 'raw'));
  const allocation = await mapByNbdinfo(host, made.uri, 'base:allocation');
  t.strictSame(
    made.cbt.extents.filter(({ dirty }) => dirty).map(({ start, length }) => [start, length]),
    allocation.filter(({ type }) => (type & 2) === 0).map(({ start, length }) => [start, length]),
    'a sparse file has a map as well',
  );
  t.ok((made.cbt.changedBytes ?? SIZE) < 3 * MiB);
  await tearDown('raw');

  const odd = `${IMAGES}/nbd:a,b="%41" <ü> {'x'}.qcow2`;
  await host.must('cp', [disk, odd]);
  const exportId = `A${'-_.'.repeat(21)}`;
  t.equal(exportId.length, 64, 'the longest id');
  const strange = await prepare(daemon, {
    exportId,
    path: odd,
    format: 'qcow2',
    since: { bitmap: 'monday' },
  });
  t.equal(await sha256OfExport(host, strange.uri), await sha256OfImage(host, disk, 'qcow2'));
  t.equal(strange.cbt.mode, 'incremental');
  await tearDown(exportId);
  t.strictSame(await remains(host), []);
});

t.test('the map since a bitmap, in pages of every kind, and as nbdinfo sees it', async (t) => {
  const since = { bitmap: 'monday' };
  const made = await prepare(daemon, { exportId: 'since', path: disk, format: 'qcow2', since });
  t.match(made.cbt, {
    ...{ mode: 'incremental', since, origin: 'bitmap', metaContext: 'qemu:dirty-bitmap:monday' },
    ...{ granularity: 65536, changedBytes: 65536 + 131072 + MiB, nextOffset: null },
  });
  t.ok(coversDisk(made.cbt.extents, SIZE));
  t.ok(
    made.cbt.extents.some(({ start, dirty, zero }) => start === MiB && dirty && zero),
    'a range written with zeroes since is dirty and zero',
  );
  const bitmap = await mapByNbdinfo(host, made.uri, 'qemu:dirty-bitmap:monday');
  t.strictSame(
    joinBy(made.cbt.extents, 'dirty'),
    bitmap.map(({ start, length, type }) => ({ start, length, value: (type & 1) !== 0 })),
  );

  const one = await wholeMap(daemon, { exportId: 'since', maxExtents: 1 });
  t.equal(one.pages, made.cbt.extents.length);
  t.strictSame(one.extents, made.cbt.extents, 'the same map a page at a time');
  const part = await verb(daemon, 'getChangedBlocks', { exportId: 'since', offset: MiB + 512, length: MiB });
  t.match(part, {
    ...{ granularity: 65536, nextOffset: 2 * MiB + 512 },
    extents: [
      { start: MiB + 512, length: 65536 - 512, dirty: true, zero: true },
      { start: MiB + 65536, length: MiB - 65536 + 512, dirty: false, zero: false },
    ],
  });
  const last = await verb(daemon, 'getChangedBlocks', { exportId: 'since', offset: SIZE - 1 });
  t.match(last, { extents: [{ start: SIZE - 1, length: 1, dirty: true, zero: false }], nextOffset: null });

  const bits = await verb(daemon, 'getChangedBlocks', { exportId: 'since', encoding: 'bitmap' });
  if (!('bitmap' in bits)) throw new Error('asked for a bitmap');
  const bytes = Buffer.from(bits.bitmap, 'base64');
  const blocks = Array.from({ length: SIZE / 65536 }, (_, i) => i);
  t.strictSame(
    blocks.filter((i) => ((bytes[i >> 3] ?? 0) >> (i & 7)) & 1),
    blocks.filter((i) =>
      made.cbt.extents.some(
        ({ start, length, dirty }) => dirty && start <= i * 65536 && start + length > i * 65536,
      ),
    ),
    'one bit a block, the least significant first',
  );
  t.equal(bytes.length, SIZE / 65536 / 8);
  t.equal(bits.nextOffset, null);

  for (const [params, path] of [
    [{ offset: 512, encoding: 'bitmap' }, '/offset'],
    [{ length: 512, encoding: 'bitmap' }, '/length'],
    [{ offset: SIZE + 1 }, '/offset'],
    [{ maxExtents: 0 }, '/maxExtents'],
    [{ offset: -1 }, '/offset'],
    [{ offset: 0.5 }, '/offset'],
  ] as const) {
    const failure = await failureOf(daemon.call('getChangedBlocks', { exportId: 'since', ...params }));
    t.equal(failure.code, -32602, JSON.stringify(params));
    t.match(failure.data, { issues: [{ path, message: /\S/ }] });
  }
  await tearDown('since');

  const small = { path: disk, format: 'qcow2', since, inlineExtents: 2 } as const;
  const cut = await prepare(daemon, { exportId: 'cut', ...small });
  t.strictSame(cut.cbt.extents, made.cbt.extents.slice(0, 2));
  t.equal(cut.cbt.changedBytes, null, 'not all of it is known here');
  t.equal(cut.cbt.nextOffset, made.cbt.extents[2]?.start);
  const rest = await wholeMap(daemon, { exportId: 'cut', offset: cut.cbt.nextOffset ?? 0, maxExtents: 3 });
  t.strictSame([...cut.cbt.extents, ...rest.extents], made.cbt.extents);
  const none = await prepare(daemon, { ...small, exportId: 'none', inlineExtents: 0 });
  t.match(none.cbt, { extents: [], changedBytes: null, nextOffset: 0 });
  await Promise.all([tearDown('cut'), tearDown('none')]);
});

t.test('a bitmap that spans layers is one map, which getChangedBlocks alone has', async (t) => {
  const base = await host.createImage({ name: 'span0.qcow2', format: 'qcow2', size: SIZE });
  const bitmap = async (path: string, ...options: string[]) =>
    host.must('qemu-img', ['bitmap', '--add', ...options, path, 'b']);
  await io(base, 'write -P 1 0 8M');
  await bitmap(base);
  await io(base, 'write -P 2 1M 64k');
  const layer = { backing: { path: base, format: 'qcow2' }, format: 'qcow2', size: SIZE } as const;
  const top = await host.createImage({ name: 'span1.qcow2', ...layer });
  await bitmap(top, '-g', '128k');
  await io(top, 'write -P 3 10M 64k', 'discard 2M 64k');
  const since = { bitmap: 'b' };
  const made = await prepare(daemon, { exportId: 'span', path: top, format: 'qcow2', since });
  t.match(made.cbt, { mode: 'incremental', origin: 'bitmap', metaContext: null, granularity: 65536 });
  t.strictSame(
    made.cbt.extents.filter(({ dirty }) => dirty).map(({ start, length }) => [start, length]),
    [
      [MiB, 65536],
      [2 * MiB, 65536],
      [2 * MiB + 65536, 65536],
      [10 * MiB, 65536],
      [10 * MiB + 65536, 65536],
    ],
    "the base's changes and the overlay's, in the coarser blocks of the overlay's bitmap",
  );
  t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, top, 'qcow2'));
  t.equal((await qemuNbds()).length, 1, 'the servers that read the layers are gone');
  await tearDown('span');
  t.strictSame(await remains(host), []);
});

t.test('8 clients are served at once while the daemon reads the map as well', async (t) => {
  const made = await prepare(daemon, { exportId: 'many', path: disk, format: 'qcow2' });
  // Held open by a shell that waits for a file, so that the daemon's own look happens meanwhile.
  const readers = host.must('nbdsh', [
    '-c',
    `
import os, time, threading
handles = []
for _ in range(${made.connections}):
  h = nbd.NBD(); h.connect_uri("${made.uri}"); handles.append(h)
open("/run/held", "w").close()
while not os.path.exists("/run/go"): time.sleep(0.02)
got = []
def read(h): got.append(h.pread(65536, ${MiB} + 65536) == bytes([7]) * 65536 and h.can_multi_conn())
threads = [threading.Thread(target=read, args=(h,)) for h in handles]
[x.start() for x in threads]; [x.join() for x in threads]
print(len(handles), all(got), len(got))
`,
  ]);
  await poll('the clients to be connected', 30_000, async () => {
    return (await host.run('test', ['-e', '/run/held'])).exitCode === 0;
  });
  const { extents } = await wholeMap(daemon, { exportId: 'many', maxExtents: 2 });
  t.ok(coversDisk(extents, SIZE));
  await host.must('touch', ['/run/go']);
  t.equal((await readers).trim(), '8 True 8');
  await tearDown('many');
});

t.test('the socket lets in root, and the one account that is named', async (t) => {
  const open = (uri: string, user: string) => host.run('nbdinfo', ['--size', uri], { user });
  const closed = await prepare(daemon, { exportId: 'closed', path: disk, format: 'qcow2' });
  for (const user of ['nobody', 'libvirt-qemu', 'vmdiskd']) {
    t.match(
      await open(closed.uri, user),
      { exitCode: 1, stderr: /Permission denied/ },
      `${user} is kept out`,
    );
  }
  const user = 'nobody';
  const opened = await prepare(daemon, {
    exportId: 'open',
    path: disk,
    format: 'qcow2',
    transport: { type: 'unix', user },
  });
  t.match(await open(opened.uri, 'nobody'), { exitCode: 0, stdout: `${SIZE}` });
  t.match(await open(opened.uri, 'root'), { exitCode: 0 });
  t.match(await open(opened.uri, 'libvirt-qemu'), { exitCode: 1, stderr: /Permission denied/ });
  t.match(
    (await host.run('ls', ['/run/vmdiskd/exports'], { user })).exitCode,
    2,
    'nor is it told what else there is',
  );
  t.match(await verb(daemon, 'getExport', { exportId: 'open' }), { transport: { type: 'unix', user } });
  t.notMatch(await nbdsh(opened.uri, 'h.connect_uri(u)', 'print(h.is_read_only())'), /False/);
  t.match(await host.run('nbdcopy', [plain, opened.uri]), { exitCode: 1, stderr: /read.?only/i });
  await Promise.all([tearDown('closed'), tearDown('open')]);
  const transport = { type: 'unix', user: 'no-such-account' } as const;
  await refused(
    t,
    host,
    'NotAuthorized',
    () => prepare(daemon, { exportId: 'who', path: disk, format: 'qcow2', transport }),
    /no-such-account.*create it/,
    { exportId: 'who' },
  );
});

t.test('the same call again, later or at the same time, is the same answer from one server', async (t) => {
  const params = { exportId: 'again', path: disk, format: 'qcow2', since: { bitmap: 'monday' } } as const;
  const second = await daemon.connect();
  const [one, two] = await Promise.all([prepare(daemon, params), prepare(second, params)]);
  second.close();
  t.strictSame(one, two);
  t.equal((await qemuNbds()).length, 1);
  // Defaults that are said are the same params.
  const said = { ...params, access: 'read-only', transport: { type: 'unix' }, inlineExtents: 1000 } as const;
  t.strictSame(await prepare(daemon, { ...said, ifUntracked: 'fail' }), one);

  const other = (params: object) => () => daemon.call('prepareBackupDisk', { exportId: 'again', ...params });
  const about = { exportId: 'again' };
  await refused(
    t,
    host,
    'AlreadyExists',
    other({ path: disk, format: 'qcow2' }),
    /other params.*new id/,
    about,
  );
  await refused(
    t,
    host,
    'AlreadyExists',
    other({ path: plain, format: 'raw' }),
    /other params.*new id/,
    about,
  );
  const { since, ...whole } = params;
  const race = await Promise.allSettled([
    prepare(daemon, { ...whole, exportId: 'race' }),
    prepare(daemon, { ...whole, exportId: 'race', since }),
  ]);
  t.strictSame(race.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  t.match(
    race.find(({ status }) => status === 'rejected'),
    { reason: { data: { name: 'AlreadyExists' } } },
  );
  await tearDown('race');

  for (let i = 0; i < 2; i++) t.strictSame(await tearDown('again'), { exportId: 'again', checkpoint: null });
  t.strictSame(await Promise.all([tearDown('never-made'), tearDown('never-made')]), [
    { exportId: 'never-made', checkpoint: null },
    { exportId: 'never-made', checkpoint: null },
  ]);
  await refused(
    t,
    host,
    'AlreadyExists',
    () => prepare(daemon, params),
    /within the last hour.*new id/,
    about,
  );
  for (const name of ['getExport', 'getChangedBlocks'] as const) {
    await refused(t, host, 'NoSuchExport', () => verb(daemon, name, about), /torn down.*listExports/, about);
    const never = () => verb(daemon, name, { exportId: 'never' });
    await refused(t, host, 'NoSuchExport', never, /There is no export "never"/);
  }
  t.strictSame(await remains(host), []);
});

t.test('a client that leaves in mid-call: the verb finishes, and the retry has its answer', async (t) => {
  const params = { exportId: 'left', path: disk, format: 'qcow2' } as const;
  const leaver = await daemon.connect();
  leaver.socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'prepareBackupDisk', params })}\n`);
  await poll('the call to have begun', 10_000, async () => (await remains(host)).length > 0, 1);
  leaver.close();
  const made = await prepare(daemon, params);
  t.equal(made.exportId, 'left');
  t.equal((await qemuNbds()).length, 1);
  t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, disk, 'qcow2'));
  const ending = await daemon.connect();
  ending.socket.end(
    `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'teardownBackupDisk', params: { exportId: 'left' } })}\n`,
  );
  await poll('the teardown to finish', 30_000, async () => (await remains(host)).length === 0);
});

t.test('a shut-off VM: its disks as they are; it cannot start meanwhile, and can afterwards', async (t) => {
  const [vda, vdb] = [`${IMAGES}/off-a.qcow2`, `${IMAGES}/off-b.raw`];
  await host.must('cp', [disk, vda]);
  await host.must('cp', [plain, vdb]);
  const uuid = await defineVm(host, {
    name: 'off',
    disks: [
      { target: 'vda', path: vda, format: 'qcow2', serial: 'first' },
      { target: 'vdb', path: vdb, format: 'raw' },
    ],
  });
  const [a, b] = await Promise.all([
    prepare(daemon, { exportId: 'off-a', vmId: 'off', disk: 'first' }),
    prepare(daemon, { exportId: 'off-b', vmId: uuid, disk: 'vdb' }),
  ]);
  t.match([a.blocksStart, b.blocksStart], [true, true]);
  t.equal(await sha256OfExport(host, a.uri), await sha256OfImage(host, disk, 'qcow2'));
  t.equal(await sha256OfExport(host, b.uri), await sha256OfImage(host, plain, 'raw'));
  t.strictSame(
    await prepare(daemon, { exportId: 'off-a', vmId: uuid, disk: 'first' }),
    a,
    'by UUID or by name',
  );
  const { exports } = await verb(daemon, 'listExports', { vmId: 'off' });
  t.match(
    exports.toSorted((one, two) => (one.exportId < two.exportId ? -1 : 1)),
    [
      {
        vmId: uuid,
        disk: 'vda',
        path: vda,
        format: 'qcow2',
        pointInTime: { kind: 'image' },
        blocksStart: true,
      },
      { vmId: uuid, disk: 'vdb', path: vdb, format: 'raw', blocksStart: true },
    ],
  );
  t.strictSame((await verb(daemon, 'listExports', { vmId: uuid })).exports, exports);

  const start = () => host.virsh('start', 'off', '--paused');
  await t.rejects(start(), /Failed to get "write" lock/, 'qcow2 and raw');
  await tearDown('off-a');
  await t.rejects(start(), /Failed to get "write" lock/, 'raw alone');
  // By its path it is the same disk.
  const byPath = await prepare(daemon, { exportId: 'off-p', path: vdb, format: 'raw' });
  t.equal(byPath.blocksStart, true);
  await Promise.all([tearDown('off-b'), tearDown('off-p')]);
  await start();

  const inUse = { vmId: uuid };
  for (const [path, format] of [
    [vda, 'qcow2'],
    [vdb, 'raw'],
    [vda, 'raw'],
  ] as const) {
    const live = () => prepare(daemon, { exportId: 'live', path, format });
    await refused(t, host, 'DiskInUse', live, /off runs.*snapshot/, inUse);
  }
  await host.must('ln', [vdb, `${IMAGES}/other-name.raw`]);
  const hardLink = { exportId: 'live', path: `${IMAGES}/other-name.raw`, format: 'raw' } as const;
  await refused(t, host, 'DiskInUse', () => prepare(daemon, hardLink), /off runs/, inUse);
  await host.virsh('destroy', 'off');
  await host.virsh('undefine', 'off');
  t.strictSame(await remains(host), []);
});

t.test('bad params are refused by member, before anything is looked at', async (t) => {
  const good = { exportId: 'bad', path: disk, format: 'qcow2' };
  const cases: [params: object, path: string][] = [
    [{ ...good, bogus: 1 }, '/bogus'],
    [{ ...good, exportId: 7 }, '/exportId'],
    [{ ...good, exportId: '../bad' }, '/exportId'],
    [{ ...good, exportId: 'x'.repeat(65) }, '/exportId'],
    [{ ...good, format: 'vmdk' }, '/format'],
    [{ ...good, path: 'disk.qcow2' }, '/path'],
    [{ ...good, inlineExtents: 10_001 }, '/inlineExtents'],
    [{ ...good, transport: { type: 'tcp' } }, '/transport/tls'],
    [{ ...good, transport: { type: 'tcp', tls: 'x509' } }, '/transport'],
    [{ ...good, transport: { type: 'unix', tls: 'psk' } }, '/transport/tls'],
    [{ ...good, transport: { type: 'rdma' } }, '/transport/type'],
    [{ ...good, since: { bitmap: 'b', checkpoint: 'c' } }, '/since'],
    [{ ...good, leaseSeconds: 0 }, '/leaseSeconds'],
    [{ ...good, vmId: 'off', disk: 'vda' }, ''],
    [{ ...good, snapshotId: 's' }, ''],
    [{ exportId: 'bad', vmId: 'off', disk: 'vda', since: { bitmap: 'b' } }, ''],
    [{ exportId: 'bad' }, ''],
    [{ path: disk, format: 'qcow2' }, ''],
    [['bad'], ''],
  ];
  for (const [params, path] of cases) {
    const failure = await failureOf(daemon.call('prepareBackupDisk', params));
    t.equal(failure.code, -32602, JSON.stringify(params).slice(0, 80));
    const issues = failure.data.issues as { path: string; message: string }[];
    t.ok(
      issues.length > 0 && issues.every((issue) => issue.path.startsWith(path) && issue.message !== ''),
      JSON.stringify(issues),
    );
  }
  const transport = { type: 'tcp', tls: 'psk' } as const;
  const onNetwork = () => prepare(daemon, { exportId: 'bad', path: disk, format: 'qcow2', transport });
  await refused(t, host, 'GatewayUnavailable', onNetwork, /listen is empty; set it/, { retryable: false });
  for (const name of ['constructor', 'notBuiltYet'])
    t.equal((await failureOf(daemon.call(name, {}))).code, -32601, name);
  t.strictSame(await remains(host), []);
});

t.test('an image that is missing, not what was said, out of bounds or unsafe', async (t) => {
  const image = (path: string, format: 'qcow2' | 'raw') => () =>
    prepare(daemon, { exportId: 'no', path, format });
  await refused(
    t,
    host,
    'NoSuchImage',
    image(`${IMAGES}/none.qcow2`, 'qcow2'),
    /none\.qcow2.*check the path/,
  );
  await refused(t, host, 'WrongFormat', image(plain, 'qcow2'), /is not a qcow2 image.*give the format/);
  await refused(t, host, 'PathNotAllowed', image('/etc/shadow', 'raw'), /\/etc\/shadow.*allowedRoots/);
  await refused(t, host, 'PathNotAllowed', image(`${IMAGES}/../../../../etc/shadow`, 'raw'), /allowedRoots/);
  symlinkSync('/etc/shadow', host.path(`${IMAGES}/link.raw`));
  await refused(t, host, 'PathNotAllowed', image(`${IMAGES}/link.raw`, 'raw'), /\/etc\/shadow.*allowedRoots/);
  await host.must('mkfifo', [`${IMAGES}/fifo.raw`]);
  await refused(t, host, 'UnsafeImage', image(`${IMAGES}/fifo.raw`, 'raw'), /is a FIFO and no image/);
  await refused(t, host, 'PathNotAllowed', image(IMAGES, 'raw'), /is an allowed root itself/);
  const backed = async (name: string, backing: string) => {
    await host.must('qemu-img', [
      ...['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', 'raw', `${IMAGES}/${name}`, `${SIZE}`],
    ]);
    return image(`${IMAGES}/${name}`, 'qcow2');
  };
  const outside = await backed('outside.qcow2', '/etc/shadow');
  await refused(t, host, 'PathNotAllowed', outside, /\/etc\/shadow.*allowedRoots/);
  const byUrl = await backed('url.qcow2', 'nbd://192.0.2.1/x');
  await refused(t, host, 'UnsafeImage', byUrl, /by protocol.*rebase/);
  const json = await backed('json.qcow2', 'json:{"driver":"file","filename":"/etc/shadow"}');
  await refused(t, host, 'UnsafeImage', json, /by protocol.*rebase/);
});

t.test(
  'a bitmap that may lack a change is refused by name, or replaced by a full map that says why',
  async (t) => {
    const since = { bitmap: 'monday' };
    const overlay = (name: string) =>
      host.createImage({ name, format: 'qcow2', backing: { path: disk, format: 'qcow2' } });
    const copy = async (name: string) => {
      await host.must('cp', [disk, `${IMAGES}/${name}`]);
      return `${IMAGES}/${name}`;
    };
    const disabled = await copy('disabled.qcow2');
    await host.must('qemu-img', ['bitmap', '--disable', disabled, 'monday']);
    const inUse = await copy('in-use.qcow2');
    const server = await host.spawn('qemu-nbd', [
      '-f',
      'qcow2',
      '--socket=/run/writer.sock',
      '--persistent',
      inUse,
    ]);
    await poll(
      'the writer',
      30_000,
      () => statSync(host.path('/run/writer.sock'), { throwIfNoEntry: false }) !== undefined,
    );
    await refused(
      t,
      host,
      'DiskInUse',
      () => prepare(daemon, { exportId: 'writer', path: inUse, format: 'qcow2' }),
      /Another process has the image open.*shut/,
      { stderr: /lock/ },
    );
    await nbdsh('nbd+unix:///?socket=/run/writer.sock', 'h.connect_uri(u)', 'h.pwrite(bytes(512), 0)');
    await server.kill('SIGKILL');
    await server.exited;
    const gap = await overlay('gap.qcow2');
    const cases = [
      [disk, 'tuesday', 'BitmapDoesNotExist', /No bitmap is named "tuesday".*listDisks.*ifUntracked/],
      [disabled, 'monday', 'InconsistentCheckpoint', /disabled.*Remove it.*full backup/],
      [inUse, 'monday', 'InconsistentCheckpoint', /in use.*remove it.*full backup/],
      [gap, 'monday', 'InvalidBitmapChain', /gap\.qcow2 lacks the bitmap.*ifUntracked/],
    ] as const;
    for (const [index, [path, bitmap, name, told]] of cases.entries()) {
      const params = { path, format: 'qcow2', since: { bitmap } } as const;
      await refused(t, host, name, () => prepare(daemon, { ...params, exportId: 'strict' }), told);
      const exportId = `full-${index}`;
      const { cbt, uri } = await prepare(daemon, { ...params, exportId, ifUntracked: 'full' });
      t.match(cbt, { mode: 'full', origin: 'allocation', metaContext: 'base:allocation' }, name);
      t.match(cbt.reason, { name, message: told });
      t.notOk('since' in cbt);
      t.equal(await sha256OfExport(host, uri), await sha256OfImage(host, path, 'qcow2'));
      await tearDown(exportId);
    }
    const raw = { exportId: 'plain', path: plain, format: 'raw', since } as const;
    await refused(t, host, 'BitmapDoesNotExist', () => prepare(daemon, raw), /disk\.raw/);
  },
);

t.test('a VM, a disk or an image of it that is not there, or not one to export', async (t) => {
  const uuid = await defineVm(host, {
    name: 'odd',
    disks: [
      { target: 'vda', path: `${IMAGES}/absent.qcow2`, format: 'qcow2' },
      { target: 'vdb', path: plain, format: 'raw', xml: '<shareable/>' },
      { target: 'vdc', path: `${IMAGES}/outside.qcow2`, format: 'qcow2' },
    ],
    devicesXml: `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${plain}'/>
      <target dev='sda' bus='sata'/><readonly/></disk>`,
  });
  const of = (vmId: string, disk: string) => () => prepare(daemon, { exportId: 'odd', vmId, disk });
  const nobody = '11111111-2222-3333-4444-555555555555';
  await refused(t, host, 'NoSuchVM', of('nobody', 'vda'), /"nobody".*virsh list --all/, { vmId: 'nobody' });
  await refused(t, host, 'NoSuchVM', of(nobody, 'vda'), /virsh list --all/, { vmId: nobody });
  await refused(t, host, 'NoSuchDisk', of('odd', 'vdz'), /"vdz".*it has vda, vdb, vdc, sda/, {
    vmId: uuid,
    disk: 'vdz',
  });
  await refused(t, host, 'NoSuchImage', of('odd', 'vda'), /absent\.qcow2/);
  await refused(t, host, 'UnsupportedDisk', of('odd', 'vdb'), /shared.*inside the guest/, { disk: 'vdb' });
  await refused(t, host, 'UnsupportedDisk', of('odd', 'sda'), /cdrom.*inside the guest/, { disk: 'sda' });
  await refused(t, host, 'PathNotAllowed', of('odd', 'vdc'), /\/etc\/shadow/);

  const { disks } = await verb(daemon, 'listDisks', { vmId: 'odd' });
  t.strictSame(
    disks.map(({ target }) => target),
    ['vda', 'vdc'],
    'CD-ROM and shared disk are left out',
  );
  t.match(disks, [
    { capacity: null, trackable: false, reason: { name: 'NoSuchImage' }, chain: [{ format: 'qcow2' }] },
    { capacity: null, trackable: false, reason: { name: 'PathNotAllowed' } },
  ]);
  await refused(t, host, 'NoSuchVM', () => verb(daemon, 'listDisks', { vmId: 'nobody' }), /virsh list/);
  await host.virsh('undefine', 'odd');
});

t.test(
  'sizes that are no whole sectors: the row, the drive, the map and the server say the same',
  async (t) => {
    const raw = `${IMAGES}/sectors.raw`;
    writeFileSync(host.path(raw), Buffer.alloc(MiB + 1000, 7));
    const cut = `${IMAGES}/sectors.qcow2`;
    await host.must('qemu-img', ['create', '-q', '-f', 'qcow2', cut, String(MiB)]);
    await host.must('qemu-img', ['bitmap', '--add', cut, 'since']);
    await io(cut, 'write -P 5 1000k 24k');
    const header = readFileSync(host.path(cut));
    header.writeBigUInt64BE(BigInt(MiB - 24), 24); // the size, which QEMU itself only makes of whole sectors
    writeFileSync(host.path(cut), header);
    const over = `${IMAGES}/sectors.over.qcow2`;
    await host.must('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', cut, '-F', 'qcow2', over]);
    await host.must('qemu-img', ['bitmap', '--add', over, 'since']);
    await defineVm(host, {
      name: 'sectors',
      disks: [
        { target: 'vda', path: raw, format: 'raw' },
        { target: 'vdb', path: cut, format: 'qcow2' },
      ],
    });
    const rows = (await verb(daemon, 'listDisks', { vmId: 'sectors' })).disks;
    t.strictSame(
      rows.map(({ capacity }) => capacity),
      [MiB + 1024, MiB - 512],
      'the last sector of a raw file is filled up, that of a qcow2 header left out',
    );
    const wanted = [
      { vmId: 'sectors', disk: 'vda' },
      { vmId: 'sectors', disk: 'vdb' },
      { path: over, format: 'qcow2' as const, since: { bitmap: 'since' } },
    ];
    for (const [at, one] of wanted.entries()) {
      const made = await prepare(daemon, { exportId: `sectors-${at}`, ...one });
      const size = Number(await host.must('nbdinfo', ['--size', made.uri]));
      t.equal(made.drive.capacity, size);
      t.equal(rows[Math.min(at, 1)]?.capacity, size);
      t.ok(coversDisk(made.cbt.extents, size), JSON.stringify(made.cbt.extents));
      const { extents } = await wholeMap(daemon, { exportId: made.exportId, maxExtents: 1 });
      t.strictSame(extents, made.cbt.extents, 'in pages too');
      await tearDown(made.exportId);
    }
    await host.virsh('undefine', 'sectors');
  },
);

t.test('qemu-nbd that dies at its start is quoted at once; one that is not installed is named', async (t) => {
  const corrupt = `${IMAGES}/corrupt.qcow2`;
  await host.must('cp', [disk, corrupt]);
  // qcow2, "Bitmaps extension": nb_bitmaps comes first, and must not be 0. It is left for QEMU to find.
  const header = readFileSync(host.path(corrupt));
  header.writeUInt32BE(0, header.indexOf('23852875', 0, 'hex') + 8);
  writeFileSync(host.path(corrupt), header);
  const call = (exportId: string, path: string) => () =>
    // Less than a start may take: the failure is told when it happens.
    daemon.call('prepareBackupDisk', { exportId, path, format: 'qcow2' }, { timeoutMs: 20_000 });
  const failure = await refused(
    t,
    host,
    'ExportFailed',
    call('corrupt', corrupt),
    /ended at its start: .*zero bitmaps.*qemu-img check/,
    {
      exportId: 'corrupt',
    },
  );
  t.match(failure.data.stderr, /^qemu-nbd: .*zero bitmaps$/, 'its own words');

  await host.must('mount', ['--bind', '/dev/null', '/usr/bin/qemu-nbd']);
  await refused(
    t,
    host,
    'ToolMissing',
    call('tool', disk),
    /qemu-nbd is not installed.*apt-get install qemu-utils/,
  );
  await host.must('umount', ['/usr/bin/qemu-nbd']);
  const made = await prepare(daemon, { exportId: 'tool', path: disk, format: 'qcow2' });
  t.equal(made.exportId, 'tool', 'a failed id is free again');
  await tearDown('tool');
});

t.test('a host has room for so many exports', async (t) => {
  await daemon.kill();
  daemon = await host.startDaemon({ limits: { exports: 2 } });
  const nth = (n: number) => prepare(daemon, { exportId: `n${n}`, path: disk, format: 'qcow2' });
  const results = await Promise.allSettled([nth(1), nth(2), nth(3), nth(4)]);
  const refusals = results.filter((one) => one.status === 'rejected').map(({ reason }) => reason.data.name);
  t.strictSame(refusals, ['LimitReached', 'LimitReached'], 'also when they come at once');
  t.equal((await qemuNbds()).length, 2);
  await refused(t, host, 'LimitReached', () => nth(5), /2 exports.*tear some down/);
  await Promise.all([1, 2, 3, 4].map((n) => tearDown(`n${n}`)));
  t.strictSame(await remains(host), []);
});

t.test('a block device', async (t) => {
  const { stdout: device } = await execa('losetup', ['--find', '--show', host.path(plain)]);
  t.teardown(() => execa('losetup', ['--detach', device]));
  const node = `${IMAGES}/device`;
  const { rdev } = statSync(device);
  await host.must('mknod', [node, 'b', String((rdev >> 8) & 0xfff), String(rdev & 0xff)]);
  const made = await prepare(daemon, { exportId: 'device', path: node, format: 'raw' });
  t.equal(made.drive.capacity, SIZE);
  t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, plain, 'raw'));
  await tearDown('device');
  t.strictSame(await remains(host), []);
});
