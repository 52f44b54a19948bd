/** mountDisk on images: scratch, read-write, create, as a file; what may not be, and what is left. Needs root. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { MountDiskParams, MountDiskResult, Verbs } from '../../agent/api/generated.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  failureOf,
  type Given,
  MiB,
  prepare,
  refused,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
  writeRecord,
} from './rig.js';

t.setTimeout(600_000);

const IMAGES = '/var/lib/libvirt/images';
const SCRATCH = '/var/lib/vmdiskd/scratch';

let host: Host;
let daemon: DaemonHandle;

t.before(async () => {
  host = await startHost(t);
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, scratchPerExport: 4 * MiB } });
});
t.afterEach(async () => {
  for (const { exportId } of (await verb(daemon, 'listExports', {})).exports)
    await verb(daemon, 'unmountDisk', { exportId, force: true });
  const left = await remains(host);
  if (left.length > 0) throw new Error(`left behind: ${left.join('\n')}`);
});

const mount = (params: Given<MountDiskParams>): Promise<MountDiskResult> => verb(daemon, 'mountDisk', params);
const unmount = (exportId: string) => verb(daemon, 'unmountDisk', { exportId });
const row = (exportId: string) => verb(daemon, 'getExport', { exportId });

/** An image with something in it. */
async function image(
  name: string,
  format: 'raw' | 'qcow2',
  size = 8 * MiB,
): Promise<{ path: string; format: 'raw' | 'qcow2' }> {
  const path = await host.createImage({ name, format, size });
  await io(`-f ${format} ${path}`, 'write -P 7 0 1M', 'write -P 9 2M 64k');
  return { path, format };
}

/** qemu-io on an NBD export or on an image; its whole output. */
async function io(on: string, ...commands: string[]): Promise<string> {
  return host.must('sh', ['-c', `qemu-io ${commands.map((one) => `-c '${one}'`).join(' ')} ${on} 2>&1`]);
}
const nbd = ({ uri }: { uri: string }) => `-f raw '${uri}'`;

const sum = (path: string) =>
  createHash('sha256')
    .update(readFileSync(host.path(path)))
    .digest('hex');

t.test(
  'scratch: writes are seen by their writers and gone with the export; the original does not change',
  async (t) => {
    for (const format of ['raw', 'qcow2'] as const) {
      const disk = await image(`s.${format}`, format);
      const before = sum(disk.path);
      const content = await plain(t, disk);
      const made = await mount({ exportId: `one-${format}`, ...disk, access: 'scratch' });
      t.match(made, { drive: { readonly: false, capacity: 8 * MiB }, connections: 8, blocksStart: false });
      t.notOk('cbt' in made);
      t.strictSame(await mount({ exportId: `one-${format}`, ...disk, access: 'scratch' }), made, 'a retry');
      const other = await mount({ exportId: `two-${format}`, ...disk, access: 'scratch' });
      t.match(
        await io(
          nbd(made),
          'read -P 7 0 1M',
          'write -P 1 512k 1M',
          'discard 0 64k',
          'flush',
          'read -P 1 512k 1M',
        ),
        /wrote/,
      );
      const { scratch, ...shown } = await row(made.exportId);
      t.match(shown, { kind: 'mount', access: 'scratch', mountedAt: null, clients: null });
      t.ok(scratch !== null && scratch.used > MiB && scratch.used < scratch.limit, JSON.stringify(scratch));
      t.equal(scratch?.limit, 4 * MiB);
      t.equal(await sha256OfExport(host, other.uri), content, 'the other sees nothing of it');
      await io(nbd(other), 'read -P 7 512k 512k', 'read -P 9 2M 64k');
      t.strictSame(await host.must('ls', ['-A', SCRATCH]), '', 'the layers have no names');
      await unmount(made.exportId);
      const again = await mount({ exportId: `again-${format}`, ...disk, access: 'scratch' });
      t.equal(await sha256OfExport(host, again.uri), content);
      await unmount(again.exportId);
      await unmount(other.exportId);
      t.equal(sum(disk.path), before, 'not one byte');
    }
  },
);

/** The disk's content as a read-only export shows it. */
async function plain(_: Test, disk: { path: string; format: 'raw' | 'qcow2' }): Promise<string> {
  const { uri } = await mount({ exportId: 'plain', ...disk });
  const content = await sha256OfExport(host, uri);
  await unmount('plain');
  // An id that has been used is not to be had for an hour.
  await daemon.kill('SIGTERM');
  await host.must('rm', ['/var/lib/vmdiskd/exports/plain.json']);
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, scratchPerExport: 4 * MiB } });
  return content;
}

t.test(
  'scratch: at its limit a write fails and says so, reads go on; the space is told before',
  async (t) => {
    const disk = await image('full.raw', 'raw', 16 * MiB);
    const { next } = await verb(daemon, 'waitEvents', { timeoutSeconds: 0 });
    const made = await mount({ exportId: 'full', ...disk, access: 'scratch' });
    const said = await host.run('sh', [
      '-c',
      `qemu-io -c 'write -P 1 0 3M' -c 'write -P 2 4M 8M' -c 'read -P 1 0 3M' -c 'read 4M 8M' ${nbd(made)} 2>&1`,
    ]);
    t.match(said.stdout, /write failed: No space left on device/);
    t.match(said.stdout, /read 3145728\/3145728/);
    t.match(said.stdout, /read 8388608\/8388608/);
    const { events } = await verb(daemon, 'waitEvents', { after: next, timeoutSeconds: 10, max: 100 });
    const low = [...events];
    await poll('the warning', 10_000, async () => {
      low.push(...(await verb(daemon, 'waitEvents', { after: next, timeoutSeconds: 0, max: 100 })).events);
      return low.some(({ kind }) => kind === 'scratchLow');
    });
    t.match(
      low.find(({ kind }) => kind === 'scratchLow'),
      { exportId: 'full', backupId: null, vmId: null },
    );
    t.match(await row('full'), { state: 'ready', scratch: { limit: 4 * MiB } });
    await io(nbd(made), 'read -P 1 0 3M', 'write -P 3 0 3M');
  },
);

t.test('scratch: no room for it is told at once', async (t) => {
  const disk = await image('room.raw', 'raw');
  await daemon.kill('SIGTERM');
  daemon = await host.startDaemon({ limits: { scratchReserve: Number.MAX_SAFE_INTEGER } });
  await refused(
    t,
    host,
    'ScratchFull',
    () => mount({ exportId: 'room', ...disk, access: 'scratch' }),
    /no room/,
  );
  await daemon.kill('SIGTERM');
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, scratchPerExport: 4 * MiB } });
});

t.test('a map beside scratch: of the point in time, whatever is written', async (t) => {
  const disk = await image('map.qcow2', 'qcow2');
  const made = await prepare(daemon, { exportId: 'map', ...disk, access: 'scratch' });
  t.match(made.cbt, { mode: 'full', origin: 'allocation', metaContext: null });
  const dirty = made.cbt.extents.filter((one) => one.dirty);
  t.strictSame(
    dirty.map(({ start, length }) => [start, length]),
    [
      [0, MiB],
      [2 * MiB, 64 * 1024],
    ],
  );
  await io(nbd(made), 'write -P 3 4M 1M');
  const page = await verb(daemon, 'getChangedBlocks', { exportId: 'map' });
  t.match(page, { extents: made.cbt.extents });
});

t.test(
  'read-write: what is flushed is in the image, also when the server is killed; bitmaps record it',
  async (t) => {
    for (const format of ['raw', 'qcow2'] as const) {
      const disk = await image(`rw.${format}`, format);
      if (format === 'qcow2') await host.must('qemu-img', ['bitmap', '--add', disk.path, 'kept']);
      const made = await mount({ exportId: `rw-${format}`, ...disk, access: 'read-write' });
      await io(nbd(made), 'write -P 5 3M 1M', 'discard 0 1M', 'flush');
      await unmount(made.exportId);
      await io(`-f ${format} ${disk.path}`, 'read -P 5 3M 1M', 'read -P 0 0 1M', 'read -P 9 2M 64k');
      if (format === 'qcow2') {
        const { cbt } = await prepare(daemon, { exportId: 'since', ...disk, since: { bitmap: 'kept' } });
        t.strictSame(
          cbt.extents.filter((one) => one.dirty).map(({ start, length }) => [start, length]),
          [
            [0, MiB],
            [3 * MiB, MiB],
          ],
        );
        await verb(daemon, 'teardownBackupDisk', { exportId: 'since' });
      }
      const killed = await mount({ exportId: `killed-${format}`, ...disk, access: 'read-write' });
      await io(nbd(killed), 'write -P 6 4M 1M', 'flush');
      const [server] = (await host.processes()).filter(({ comm }) => comm === 'qemu-nbd');
      await host.must('kill', ['-9', String(server?.pid)]);
      await poll(
        'it to be called failed',
        10_000,
        async () => (await row(killed.exportId)).state === 'failed',
      );
      const { error } = await row(killed.exportId);
      t.match(error?.message, new RegExp(`${disk.path} has what was flushed`));
      if (format === 'qcow2') t.match(error?.message, /bitmaps "kept" were left in use.*qemu-img check/);
      const other = () => mount({ exportId: `other-${format}`, ...disk });
      await refused(t, host, 'DiskInUse', other, /"killed-.*writes to .*tear that export down first/);
      await unmount(killed.exportId);
      await io(`-f ${format} ${disk.path}`, 'read -P 6 4M 1M');
      if (format === 'qcow2') {
        const stale = () => prepare(daemon, { exportId: 'stale', ...disk, since: { bitmap: 'kept' } });
        await refused(t, host, 'InconsistentCheckpoint', stale, /kept/);
        const full = await prepare(daemon, {
          exportId: 'stale',
          ...disk,
          since: { bitmap: 'kept' },
          ifUntracked: 'full',
        });
        t.match(full.cbt, { mode: 'full', reason: { name: 'InconsistentCheckpoint' } });
      }
    }
  },
);

t.test('read-write is alone with its image, and reads keep writers away', async (t) => {
  for (const format of ['raw', 'qcow2'] as const) {
    const disk = await image(`alone.${format}`, format);
    const over = await host.createImage({ name: `over-${format}.qcow2`, format: 'qcow2', backing: disk });
    const above = { path: over, format: 'qcow2' } as const;
    await mount({ exportId: `writer-${format}`, ...disk, access: 'read-write' });
    for (const [exportId, what] of [
      ['r', { ...disk }],
      ['w', { ...disk, access: 'read-write' }],
      ['s', { ...disk, access: 'scratch' }],
      ['a', { ...above }],
    ] as const) {
      const call = () => mount({ exportId: `${exportId}-${format}`, ...what });
      await refused(t, host, 'DiskInUse', call, /"writer-.* writes to/);
    }
    await unmount(`writer-${format}`);
    await mount({ exportId: `reader-${format}`, ...above });
    const call = () => mount({ exportId: `late-${format}`, ...disk, access: 'read-write' });
    await refused(t, host, 'DiskInUse', call, /"reader-.* reads/);
    await unmount(`reader-${format}`);
    const both = await Promise.allSettled(
      ['x', 'y'].map((name) => mount({ exportId: `${name}-${format}`, ...disk, access: 'read-write' })),
    );
    t.strictSame(
      both.map(({ status }) => status).sort(),
      ['fulfilled', 'rejected'],
      'of two at once one has it',
    );
    for (const name of ['x', 'y']) await unmount(`${name}-${format}`);
  }
});

t.test('create: a new image, which stays; nothing where it cannot be', async (t) => {
  for (const format of ['raw', 'qcow2'] as const) {
    const path = `${IMAGES}/new.${format}`;
    const params = {
      exportId: `new-${format}`,
      path,
      format,
      access: 'read-write',
      create: { capacity: 6 * MiB },
    } as const;
    const made = await mount(params);
    t.match(made, { drive: { capacity: 6 * MiB, readonly: false } });
    t.strictSame(await mount(params), made, 'a retry');
    await io(nbd(made), 'write -P 4 5M 1M', 'flush');
    await unmount(made.exportId);
    t.equal(statSync(host.path(path)).mode & 0o777, 0o600);
    t.match(JSON.parse(await host.must('qemu-img', ['info', '--output=json', path])), {
      format,
      'virtual-size': 6 * MiB,
    });
    await io(`-f ${format} ${path}`, 'read -P 4 5M 1M', 'read -P 0 0 5M');
    const before = sum(path);
    const again = () => mount({ ...params, exportId: `again-new-${format}` });
    await refused(t, host, 'AlreadyExists', again, /There is a file at/);
    t.equal(sum(path), before);
  }
  const outside = {
    exportId: 'outside',
    format: 'raw',
    access: 'read-write',
    create: { capacity: MiB },
  } as const;
  await refused(t, host, 'PathNotAllowed', () => mount({ ...outside, path: '/etc/new.raw' }), /allowedRoots/);
  await host.must('ln', ['-s', '/etc', `${IMAGES}/link`]);
  await refused(
    t,
    host,
    'PathNotAllowed',
    () => mount({ ...outside, path: `${IMAGES}/link/new.raw` }),
    /allowedRoots/,
  );
  await refused(
    t,
    host,
    'NoSuchImage',
    () => mount({ ...outside, path: `${IMAGES}/none/new.raw` }),
    /directory/,
  );
  t.equal((await host.run('ls', ['/etc/new.raw'])).exitCode, 2);
  t.notMatch(await host.must('ls', ['-A', IMAGES]), /vmdiskd-/);
});

t.test('what does not go together is refused by the schema', async (t) => {
  const disk = { path: `${IMAGES}/x`, format: 'raw' } as const;
  for (const [params, told] of [
    [{ ...disk, create: { capacity: MiB } }, /create goes with path and access read-write/],
    [{ ...disk, create: { capacity: 1000 }, access: 'read-write' }, /capacity/],
    [{ ...disk, create: { capacity: MiB, format: 'qcow2' }, access: 'read-write' }, /create\/format/],
    [{ vmId: 'v', disk: 'vda', snapshotId: 's', access: 'read-write' }, /access read-write goes without/],
    [{ ...disk, as: 'file', transport: { type: 'tcp', tls: 'psk' } }, /as file goes with a unix transport/],
    [{ ...disk, checkpoint: 'c' }, /checkpoint/],
    [{ ...disk, since: { bitmap: 'b' } }, /since/],
  ] as const) {
    const failure = await failureOf(mount({ exportId: 'odd', ...params } as Given<MountDiskParams>));
    t.equal(failure.code, -32602);
    t.match(JSON.stringify(failure.data) + failure.message, told);
  }
});

t.test('as a file: the disk’s content for any program, and gone with the export', async (t) => {
  const disk = await image('file.qcow2', 'qcow2');
  const raw = `${IMAGES}/file.raw`;
  await host.must('qemu-img', ['convert', '-O', 'raw', disk.path, raw]);
  truncateSync(host.path(raw), 8 * MiB);
  const made = await mount({ exportId: 'file', ...disk, as: 'file' });
  t.equal(made.path, '/run/vmdiskd/exports/file/disk');
  t.match(await row('file'), { mountedAt: made.path });
  t.equal((await host.must('sha256sum', [made.path as string])).slice(0, 64), sum(raw));
  t.not((await host.run('dd', ['if=/dev/zero', `of=${made.path}`, 'count=1', 'conv=notrunc'])).exitCode, 0);
  const reader = await host.run('setpriv', [
    '--reuid=nobody',
    '--clear-groups',
    'head',
    '-c1',
    made.path as string,
  ]);
  t.not(reader.exitCode, 0, 'root’s alone');
  await unmount('file');

  const nobody = { type: 'unix', user: 'nobody' } as const;
  const theirs = await mount({
    exportId: 'theirs',
    ...disk,
    as: 'file',
    access: 'scratch',
    transport: nobody,
  });
  const path = theirs.path as string;
  const script = `printf changed | dd of=${path} bs=1 seek=100 conv=notrunc,fsync status=none && dd if=${path} bs=1 skip=100 count=7 status=none`;
  t.equal(await host.must('setpriv', ['--reuid=nobody', '--clear-groups', 'sh', '-c', script]), 'changed');
  t.match(await io(nbd(theirs), 'read -v 100 7'), /63 68 61 6e 67 65 64/, 'by NBD, too');
  await unmount('theirs');

  const written = await mount({ exportId: 'written', ...disk, as: 'file', access: 'read-write' });
  writeFileSync(`${host.dir}/block`, 'written as a file');
  await host.must('dd', [
    `if=${host.dir}/block`,
    `of=${written.path}`,
    'bs=4k',
    'seek=1',
    'conv=notrunc,fsync',
  ]);
  await unmount('written');
  t.match(await io(`-f qcow2 ${disk.path}`, 'read -v 4k 17'), /written\.as\.a\.fil/);
});

t.test('whatever of it dies, it is called failed, and nothing stays', async (t) => {
  const disk = await image('dies.qcow2', 'qcow2');
  for (const [exportId, access, victim, told] of [
    ['file-read', 'read-only', /^qemu-storage-da/, /what serves its file has died/],
    ['file-written', 'scratch', /^nbdfuse/, /what serves its file has died/],
    ['layer', 'scratch', /^qemu-nbd.*"no-flush"/, /throw-away layer has died/],
    ['below', 'scratch', /^qemu-nbd.*--socket=\S*base\.sock/, /its qemu-nbd has died/],
  ] as const) {
    await mount({ exportId, ...disk, as: 'file', access });
    const found = (await host.processes()).filter(({ comm, args }) =>
      victim.test(`${comm} ${args.join(' ')}`),
    );
    const [first] = found;
    await host.must('kill', ['-9', String(first?.pid)]);
    await poll('it to be called failed', 10_000, async () => (await row(exportId)).state === 'failed');
    t.match((await row(exportId)).error?.message, told);
    await unmount(exportId);
    t.strictSame(await remains(host), []);
  }
});

t.test(
  'the daemon dies and comes back: everything goes on; and after a reboot it can be ended',
  async (t) => {
    const disk = await image('back.qcow2', 'qcow2');
    const made = await mount({ exportId: 'back', ...disk, as: 'file', access: 'scratch' });
    await io(nbd(made), 'write -P 3 0 64k');
    await daemon.kill('SIGKILL');
    await io(nbd(made), 'read -P 3 0 64k');
    const config = { limits: { scratchReserve: MiB, scratchPerExport: 4 * MiB } };
    daemon = await host.startDaemon(config);
    t.match(await row('back'), { state: 'ready', scratch: { limit: 4 * MiB }, mountedAt: made.path });
    t.equal((await host.must('head', ['-c', '3', made.path as string])).charCodeAt(0), 3);
    await unmount('back');

    const write = await mount({ exportId: 'boot', ...disk, access: 'read-write' });
    await io(nbd(write), 'write -P 8 0 64k', 'flush');
    const other = await image('other.raw', 'raw');
    await mount({ exportId: 'boot-file', ...other, as: 'file', access: 'scratch' });
    await daemon.kill('SIGKILL');
    await host.reboot();
    daemon = await host.startDaemon(config);
    const { exports }: Verbs['listExports']['result'] = await verb(daemon, 'listExports', {});
    t.strictSame(exports.map(({ exportId, state }) => [exportId, state]).sort(), [
      ['boot', 'failed'],
      ['boot-file', 'failed'],
    ]);
    t.match((await row('boot')).error?.message, /has what was flushed/);
    await unmount('boot');
    await io(`-f qcow2 ${disk.path}`, 'read -P 8 0 64k');
  },
);

t.test('what was written and not flushed is brought to the disk before the export has ended', async (t) => {
  const path = await host.createImage({ name: 'late.qcow2', format: 'qcow2', size: 64 * MiB });
  await host.must('sh', ['-c', 'head -c 67108864 /dev/urandom >/run/late.raw']);
  const made = await mount({ exportId: 'late', path, format: 'qcow2', access: 'read-write' });
  await host.must('nbdcopy', ['/run/late.raw', made.uri]);
  await unmount('late');
  t.equal(await sha256OfImage(host, path, 'qcow2'), sum('/run/late.raw'));
  await host.must('qemu-img', ['check', '-q', path]);
});

t.test(
  'a record that is lost: layers, files and servers are found by their names, and removed',
  async (t) => {
    const disk = await image('lost.qcow2', 'qcow2');
    await mount({ exportId: 'lost', ...disk, as: 'file', access: 'scratch' });
    await daemon.kill('SIGKILL');
    writeRecord(host, 'lost', 'torn');
    daemon = await host.startDaemon({ limits: { scratchReserve: MiB, scratchPerExport: 4 * MiB } });
    await poll('all of it to be removed', 120_000, async () => (await host.leftovers()).length === 0);
    t.strictSame((await verb(daemon, 'listExports', {})).exports, []);
    await host.must('sh', ['-c', 'rm -f /var/lib/vmdiskd/exports/lost.json*']);
  },
);
