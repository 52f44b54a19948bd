/** Scratch and writable drives in real guests with a real file system, and a whole restore. Needs root. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import t from 'tap';
import type { Drive, MountDiskParams, MountDiskResult } from '../../agent/api/generated.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { appears, type Given, MiB, prepare, refused, remains, verb, wholeMap } from './rig.js';

t.setTimeout(900_000);

const SIZE = 48 * MiB;
let host: Host;
let daemon: DaemonHandle;
/** Its disk vda has an ext4 file system. */
let shop: Guest;
/** Another program runs in it: a scanner, an inventory tool, a restore. */
let app: Guest;
let path = '';

t.before(async () => {
  host = await startHost(t);
  path = await host.createImage({ name: 'shop.qcow2', format: 'qcow2', size: SIZE });
  [daemon, shop, app] = await Promise.all([
    host.startDaemon({ limits: { scratchReserve: MiB, scratchPerExport: 16 * MiB } }),
    host.startGuest({ name: 'shop', disks: [{ target: 'vda', path, format: 'qcow2' }] }),
    host.startGuest({ name: 'app', scsiController: true }),
  ]);
  await shop.sh('mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt');
  await shop.sh('mkdir /mnt/etc && echo "NAME=shop" >/mnt/etc/os-release && echo first >/mnt/file && sync');
});

const mount = (params: Given<MountDiskParams>): Promise<MountDiskResult> => verb(daemon, 'mountDisk', params);
const unmount = (exportId: string) => verb(daemon, 'unmountDisk', { exportId });
const plug = (vmId: string, drive: Drive) => verb(daemon, 'hotplugDisk', { vmId, drive });
/** Plugs a drive into the appliance. @returns its path in there */
async function plugged(drive: Drive): Promise<string> {
  const { guestPath } = await plug('app', drive);
  await appears(app, guestPath);
  return guestPath;
}
const unplug = (vmId: string, drive: Drive) =>
  verb(daemon, 'hotunplugDisk', { vmId, drive, timeoutSeconds: 60 });
const imageSum = () =>
  createHash('sha256')
    .update(readFileSync(host.path(path)))
    .digest('hex');

/** Boots the VM and mounts its file system, as its own init would. */
async function startShop(): Promise<void> {
  await shop.start();
  await shop.sh('mkdir -p /mnt && mount /dev/vda /mnt');
}

t.test('a scanner: the running VM’s disk as it is now, mounted for writing in an appliance', async (t) => {
  // A file system that is in use has a journal to be replayed, which takes writing.
  await shop.sh('echo journal >/mnt/journaled && sync && echo more >/mnt/more');
  const made = await mount({ exportId: 'scan', vmId: 'shop', disk: 'vda', access: 'scratch' });
  t.match(made, { drive: { readonly: false }, blocksStart: false });
  t.match(await verb(daemon, 'getExport', { exportId: 'scan' }), {
    pointInTime: { kind: 'backup' },
    access: 'scratch',
  });
  const second = await mount({ exportId: 'list', vmId: 'shop', disk: 'vda', access: 'scratch' }).catch(
    (e) => e,
  );
  t.match(
    second,
    { data: { name: 'BackupBusy' } },
    'libvirt has one backup a VM: several scratch exports share one by backupId',
  );
  const guestPath = await plugged(made.drive);
  await app.sh(`mkdir -p /mnt && mount ${guestPath} /mnt`);
  t.equal(await app.sh('cat /mnt/etc/os-release /mnt/journaled'), 'NAME=shop\njournal');
  await app.sh('echo found >/mnt/report && rm /mnt/file && sync && cat /mnt/report');
  t.equal(
    await shop.sh('echo goes on >/mnt/after && sync && cat /mnt/file'),
    'first',
    'the VM sees nothing of it',
  );
  await refused(t, host, 'ExportInUse', () => unmount('scan'), /plugged into app/);
  await refused(t, host, 'HotplugDiskFailed', () => plug('shop', made.drive), /itself serves/);
  await app.sh('umount /mnt');
  await unplug('app', made.drive);
  await unmount('scan');
  t.equal(await shop.sh('ls /mnt | sort | tr "\\n" " "'), 'after etc file journaled lost+found more ');
  t.strictSame(await remains(host), []);
});

t.test('several scratch exports of one snapshot at once, each with writes of its own', async (t) => {
  await verb(daemon, 'createSnapshot', { snapshotId: 'daily', vmId: 'shop', quiesce: 'no' });
  const before = imageSum();
  const of = (exportId: string) =>
    mount({ exportId, vmId: 'shop', disk: 'vda', snapshotId: 'daily', access: 'scratch' });
  const [one, two] = await Promise.all([of('one'), of('two')]);
  for (const { drive, exportId } of [one, two]) {
    const guestPath = await plugged(drive);
    await app.sh(
      `mkdir -p /mnt/${exportId} && mount ${guestPath} /mnt/${exportId} && echo ${exportId} >/mnt/${exportId}/mine`,
    );
  }
  t.equal(await app.sh('sync; cat /mnt/one/mine /mnt/two/mine /mnt/one/file'), 'one\ntwo\nfirst');
  // More than its layer may take: an error in this guest, which goes on, and no matter to the other layer.
  const big = await app.try('dd if=/dev/urandom of=/mnt/one/big bs=1M count=24 conv=fsync');
  t.match(big, { exitCode: 1, stderr: /error|No space left/i });
  t.equal(
    await app.sh(
      'echo 3 >/proc/sys/vm/drop_caches; cat /mnt/one/file; echo on >/mnt/two/mine; sync; cat /mnt/two/mine',
    ),
    'first\non',
  );
  t.equal((await host.virsh('domstate', 'app')).trim(), 'running');
  for (const { drive, exportId } of [one, two]) {
    await app.sh(`umount /mnt/${exportId}`);
    await unplug('app', drive);
    await unmount(exportId);
  }
  t.equal(imageSum(), before, 'what the snapshot froze has not changed by one byte');
  const { jobId } = await verb(daemon, 'deleteSnapshot', { vmId: 'shop', snapshotId: 'daily' });
  await poll('the merge', 120_000, async () => (await verb(daemon, 'getJob', { jobId })).state !== 'running');
  t.match(await verb(daemon, 'getJob', { jobId }), { state: 'done' });
  t.strictSame(await remains(host), []);
});

t.test(
  'a lease that runs out while a guest has the disk mounted: the drive goes, the guest lives',
  async (t) => {
    const made = await mount({
      exportId: 'lease',
      vmId: 'shop',
      disk: 'vda',
      access: 'scratch',
      leaseSeconds: 15,
    });
    const guestPath = await plugged(made.drive);
    await app.sh(`mkdir -p /mnt/l && mount ${guestPath} /mnt/l && cat /mnt/l/file`);
    await poll(
      'the export to be gone',
      60_000,
      async () => (await verb(daemon, 'listExports', {})).exports.length === 0,
    );
    t.equal(
      (
        await app.try(
          'ls /mnt/l/etc && cat /mnt/l/after && dd if=/dev/zero of=/mnt/l/x bs=1k count=1 conv=fsync',
        )
      ).exitCode,
      1,
    );
    t.equal(await app.sh('umount -l /mnt/l; echo alive'), 'alive');
    t.notMatch(await app.xml(), made.drive.serial);
    t.strictSame(await remains(host), []);
    t.equal((await host.virsh('domstate', 'shop')).trim(), 'running');
  },
);

t.test(
  'read-write: alone with the disk of a VM that is off, which cannot start, and finds what was written',
  async (t) => {
    const writable = (exportId: string) =>
      mount({ exportId, vmId: 'shop', disk: 'vda', access: 'read-write' });
    await refused(t, host, 'DiskInUse', () => writable('early'), /shop runs and writes to vda/);
    const clone = await host.createImage({
      name: 'clone.qcow2',
      format: 'qcow2',
      backing: { path, format: 'qcow2' },
    });
    await shop.shutdown();
    await host.must('sh', [
      '-c',
      `cat >/run/clone.xml <<'X'\n<domain type='qemu'><name>clone</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${clone}'/><target dev='vda'/></disk></devices></domain>\nX`,
    ]);
    await host.virsh('define', '/run/clone.xml');
    await refused(
      t,
      host,
      'DiskInUse',
      () => writable('shared'),
      /vda of clone has .*shop.qcow2 in its chain/,
    );
    await host.virsh('undefine', 'clone');
    // A checkpoint of the VM that is off: what a restore writes is a change since then.
    const base = await prepare(daemon, { exportId: 'base', vmId: 'shop', disk: 'vda', checkpoint: 'before' });
    t.match(base.cbt, { mode: 'full' });
    await verb(daemon, 'teardownBackupDisk', { exportId: 'base', outcome: 'success' });

    await host.virsh('start', 'shop');
    await host.virsh('managedsave', 'shop');
    await refused(t, host, 'DiskInUse', () => writable('saved'), /was saved with its memory/);
    await host.virsh('managedsave-remove', 'shop');

    const made = await writable('restore');
    t.match(made, { blocksStart: true, drive: { readonly: false } });
    const start = await host.run('virsh', ['--connect', 'qemu:///system', 'start', 'shop']);
    t.match(start.stderr, /lock/, 'the VM cannot start on it meanwhile');
    const snapshot = () => verb(daemon, 'createSnapshot', { snapshotId: 'now', vmId: 'shop', quiesce: 'no' });
    await refused(t, host, 'DiskInUse', snapshot, /"restore" writes to vda of shop|SnapshotFailed/).catch(
      () => {},
    );
    const guestPath = await plugged(made.drive);
    const third = await host.startGuest({ name: 'third', scsiController: true });
    await refused(
      t,
      host,
      'DiskInUse',
      () => plug('third', made.drive),
      /can be written to and is plugged into app/,
    );
    await third.destroy();
    await app.sh(
      `mkdir -p /mnt/r && mount ${guestPath} /mnt/r && echo restored >/mnt/r/file && sync && umount /mnt/r`,
    );
    await unplug('app', made.drive);
    await unmount('restore');
    const since = await prepare(daemon, {
      exportId: 'since',
      vmId: 'shop',
      disk: 'vda',
      since: { checkpoint: 'before' },
    });
    t.match(since.cbt, { mode: 'incremental', origin: 'bitmap' });
    t.ok((since.cbt.changedBytes ?? 0) > 0, 'what was written is a change');
    await verb(daemon, 'teardownBackupDisk', { exportId: 'since' });
    await startShop();
    t.equal(await shop.sh('cat /mnt/file'), 'restored');
    t.strictSame(await remains(host), []);
  },
);

t.test('a lease that runs out while a guest restores: what it flushed is there', async (t) => {
  const disk = await host.createImage({ name: 'leased.raw', format: 'raw', size: 16 * MiB });
  const of = { path: disk, format: 'raw' } as const;
  const made = await mount({ exportId: 'leased', ...of, access: 'read-write', leaseSeconds: 10 });
  const guestPath = await plugged(made.drive);
  await app.sh(`printf restored | dd of=${guestPath} bs=512 conv=fsync,notrunc status=none`);
  await app.try(`dd if=/dev/urandom of=${guestPath} bs=64k seek=16 count=200 oflag=direct status=none; true`);
  await poll(
    'the export to be gone',
    60_000,
    async () => (await verb(daemon, 'listExports', {})).exports.length === 0,
  );
  t.notMatch(await app.xml(), made.drive.serial);
  t.equal(await host.must('head', ['-c', '8', disk]), 'restored');
  t.equal(await app.sh('echo alive'), 'alive');
  t.strictSame(await remains(host), []);
});

t.test('a raw disk: its VM cannot start, and neither server nor VM gets it twice', async (t) => {
  const raw = await host.createImage({ name: 'raw.raw', format: 'raw', size: 16 * MiB });
  const guest = await host.startGuest({
    name: 'rawvm',
    disks: [{ target: 'vda', path: raw, format: 'raw' }],
  });
  const writable = (exportId: string) =>
    mount({ exportId, vmId: 'rawvm', disk: 'vda', access: 'read-write' });
  const byPath = () => mount({ exportId: 'bypath', path: raw, format: 'raw', access: 'read-write' });
  await refused(t, host, 'DiskInUse', () => writable('running'), /rawvm runs/);
  await refused(t, host, 'DiskInUse', byPath, /rawvm/);
  await guest.shutdown();
  const made = await writable('raw');
  t.equal(made.blocksStart, true);
  t.match((await host.run('virsh', ['--connect', 'qemu:///system', 'start', 'rawvm'])).stderr, /lock/);
  await refused(t, host, 'DiskInUse', byPath, /"raw" writes to/);
  await unmount('raw');
  await guest.start();
  await guest.shutdown();
});

t.test('a whole restore: full and incremental, the disk destroyed, written back, the VM boots', async (t) => {
  const backup = `${host.dir}/backup.raw`;
  const take = async (exportId: string, checkpoint: string, since?: string) => {
    const made = await prepare(daemon, {
      ...{ exportId, vmId: 'shop', disk: 'vda', checkpoint },
      ...(since !== undefined && { since: { checkpoint: since } }),
    });
    t.equal(made.cbt.mode, since === undefined ? 'full' : 'incremental');
    await copyChanges(made, backup, since === undefined);
    await verb(daemon, 'teardownBackupDisk', { exportId, outcome: 'success' });
  };
  await shop.sh(
    'for i in 1 2 3 4 5; do dd if=/dev/urandom of=/mnt/data$i bs=64k count=8 status=none; done; sync',
  );
  await take('full', 'monday');
  await shop.sh(
    'dd if=/dev/urandom of=/mnt/data3 bs=64k count=12 status=none; rm /mnt/data5; echo tuesday >/mnt/day; sync',
  );
  await take('incremental', 'tuesday', 'monday');
  const wanted = await shop.sh('sha256sum /mnt/data* /mnt/day');
  await shop.sh('dd if=/dev/urandom of=/mnt/data1 bs=64k count=8 status=none; rm /mnt/data2; sync');
  await shop.destroy();
  await host.must('rm', [path]);

  const image = { path, format: 'qcow2', create: { capacity: SIZE } } as const;
  const made = await mount({ exportId: 'back', ...image, access: 'read-write' });
  await host.must('nbdcopy', ['--flush', '--allocated', backup, made.uri]);
  await unmount('back');
  await startShop();
  t.equal(await shop.sh('sha256sum /mnt/data* /mnt/day'), wanted, 'from inside, the day it was backed up');
  // The new image has no bitmap of the days before: the next backup is a full one, says why, and begins anew.
  await shop.sh('echo wednesday >/mnt/day; sync');
  const next = await prepare(daemon, {
    ...{ exportId: 'next', vmId: 'shop', disk: 'vda', since: { checkpoint: 'tuesday' } },
    ...{ ifUntracked: 'full', checkpoint: 'wednesday' },
  });
  t.match(next.cbt, {
    mode: 'full',
    reason: { name: /^(BitmapDoesNotExist|InconsistentCheckpoint|InvalidBitmapChain)$/ },
  });
  await copyChanges(next, backup, true);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'next', outcome: 'success' });
  await shop.shutdown();
  const off = await mount({ exportId: 'off', vmId: 'shop', disk: 'vda' });
  await host.must('nbdcopy', [off.uri, `${host.dir}/now.raw`]);
  await unmount('off');
  t.strictSame(
    await host.must('cmp', ['-s', `${host.dir}/now.raw`, backup]).catch(String),
    '',
    'the next backup has the restore',
  );
  t.strictSame(await remains(host), []);
});

/** Brings a backup file up to date with an export, by its map. */
async function copyChanges(
  { exportId, uri }: { exportId: string; uri: string },
  file: string,
  full: boolean,
): Promise<void> {
  const whole = `${host.dir}/whole.raw`;
  await host.must('nbdcopy', [uri, full ? file : whole]);
  if (full) return;
  const { extents } = await wholeMap(daemon, { exportId, maxExtents: 1000 });
  const [from, to] = [openSync(whole, 'r'), openSync(file, 'r+')];
  for (const { start, length } of extents.filter(({ dirty }) => dirty)) {
    const block = Buffer.alloc(length);
    readSync(from, block, 0, length, start);
    writeSync(to, block, 0, length, start);
  }
  closeSync(from);
  closeSync(to);
}
