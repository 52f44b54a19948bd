/** Backups that come to a bad end: the VM stops, another hand ends the job, the scratch space runs out. Needs root. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { defineVm, failureOf, MiB, prepare, refused, sha256OfExport, verb } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  bitmapsIn,
  checkpointsOf,
  jobOf,
  remains,
  smallImage,
  startBackup,
  virtio,
  whyFailed,
  writeTo,
} from './rig.js';

t.setTimeout(900_000);

/** A tmpfs of the host's own: as small as a test needs it. */
const SCRATCH = '/mnt';
const ROOM = 48 * MiB;
let host: Host;
let daemon: DaemonHandle;

t.before(async () => {
  host = await startHost(t);
  await host.must('mount', ['-t', 'tmpfs', '-o', `size=${ROOM}`, 'scratch', SCRATCH]);
  daemon = await startDaemon(16 * MiB);
});

const startDaemon = (scratchReserve: number) =>
  host.startDaemon({ paths: { scratch: SCRATCH }, limits: { scratchReserve } });
const stop = (backupId: string, outcome?: 'success' | 'failed') =>
  verb(daemon, 'stopBackup', { backupId, ...(outcome !== undefined && { outcome }) });
const tearDown = (exportId: string, outcome?: 'success' | 'failed') =>
  verb(daemon, 'teardownBackupDisk', { exportId, ...(outcome !== undefined && { outcome }) });
/** The scratch directory is inside the host's own mount, which the outside does not see. */
const scratchFiles = async () =>
  (await host.must('find', [SCRATCH, '-mindepth', '1'])).split('\n').filter(Boolean);
const left = async () => [...(await remains(host, '/nowhere')), ...(await scratchFiles())];

/** A VM whose QEMU holds a disk with the good checkpoint `good`, and a running backup with the pending `late`. */
async function doomed(name: string): Promise<string> {
  const image = await smallImage({ host, name: `${name}.qcow2` });
  await defineVm(host, { name, disks: [virtio('vda', image)] });
  await host.virsh('start', '--paused', name);
  await prepare(daemon, { exportId: `${name}-good`, vmId: name, disk: 'vda', checkpoint: 'good' });
  await tearDown(`${name}-good`, 'success');
  await startBackup(daemon, {
    backupId: name,
    vmId: name,
    disks: [{ disk: 'vda' }],
    checkpoint: 'late',
  });
  await prepare(daemon, { exportId: name, vmId: name, disk: 'vda', backupId: name });
  return image;
}

/** The failed backup ends whatever the caller calls it; its checkpoint and all its files are gone. */
async function endsFailed(t: Test, name: string): Promise<void> {
  await poll(
    'the pending checkpoint to be deleted',
    30_000,
    async () => !(await checkpointsOf(host, name)).includes('late'),
  );
  t.strictSame(await checkpointsOf(host, name), ['good']);
  const another = { exportId: `${name}-2`, vmId: name, disk: 'vda', backupId: name };
  await refused(t, host, 'BackupError', () => prepare(daemon, another), /has failed.*stopBackup/);
  t.match(await verb(daemon, 'listBackups', { vmId: name }), {
    backups: [{ backupId: name, state: 'failed' }],
  });
  t.strictSame(await tearDown(name), { exportId: name, checkpoint: null });
  t.strictSame(await stop(name, 'success'), { backupId: name, checkpoint: { id: 'late', state: 'deleted' } });
  t.strictSame(await left(), []);
}

/** What was good before counts on. */
async function countsSinceGood(t: Test, name: string): Promise<void> {
  await writeTo(host, name, 'virtio-disk0', 'write -P 9 2M 64k');
  const made = await prepare(daemon, {
    exportId: `${name}-since`,
    vmId: name,
    disk: 'vda',
    since: { checkpoint: 'good' },
  });
  t.equal(made.cbt.mode, 'incremental');
  t.equal(made.cbt.changedBytes, 65536);
  await tearDown(`${name}-since`);
}

t.test(
  'a disk outside the allowed roots; a bitmap of the wanted name that is no checkpoint of ours',
  async (t) => {
    const name = 'refused';
    const image = await smallImage({ host, name: 'inside.qcow2' });
    const elsewhere = '/run/elsewhere.qcow2';
    await host.must('cp', [image, elsewhere]);
    await host.must('qemu-img', ['bitmap', '--add', image, 'stray']);
    await defineVm(host, { name, disks: [virtio('vda', elsewhere), virtio('vdb', image)] });
    await host.virsh('start', '--paused', name);
    for (const begin of [
      () => prepare(daemon, { exportId: name, vmId: name, disk: 'vda', checkpoint: 'c' }),
      () => startBackup(daemon, { backupId: name, vmId: name, disks: [{ disk: 'vdb' }, { disk: 'vda' }] }),
    ]) {
      await refused(
        t,
        host,
        'PathNotAllowed',
        begin,
        /elsewhere\.qcow2 lies under none of the allowed roots/,
      );
    }
    const stray = () =>
      startBackup(daemon, { backupId: name, vmId: name, disks: [{ disk: 'vdb' }], checkpoint: 'stray' });
    await refused(
      t,
      host,
      'AlreadyExists',
      stray,
      /has a bitmap of the checkpoint's name already .*new name/,
    );
    t.strictSame([await checkpointsOf(host, name), await left()], [[], []]);
    await host.virsh('destroy', name);
  },
);

t.test('the VM is destroyed in mid-backup', async (t) => {
  const image = await doomed('destroyed');
  await host.virsh('destroy', 'destroyed');
  t.match(await whyFailed(daemon, 'destroyed'), /its VM has stopped/);
  await endsFailed(t, 'destroyed');
  t.strictSame(
    await bitmapsIn(host, image),
    ['good'],
    'and the bitmap, which would block its name, from the image',
  );
  t.match((await verb(daemon, 'listCheckpoints', { vmId: 'destroyed' })).checkpoints, [{ state: 'good' }]);
  await host.virsh('start', '--paused', 'destroyed');
  await countsSinceGood(t, 'destroyed');
  await host.virsh('destroy', 'destroyed');
});

t.test('QEMU is killed in mid-backup', async (t) => {
  const image = await doomed('killed');
  const qemu = (await host.processes()).find(({ args }) =>
    args.some((arg) => arg.startsWith('guest=killed')),
  );
  await host.must('kill', ['-9', String(qemu?.pid)]);
  t.match(await whyFailed(daemon, 'killed'), /its VM has stopped/);
  await endsFailed(t, 'killed');
  t.notOk((await bitmapsIn(host, image)).includes('late'));
  const unsaved = { checkpoint: 'good', state: 'broken', reason: /No bitmap is named "good"|in use/ };
  t.match(
    (await verb(daemon, 'listCheckpoints', { vmId: 'killed' })).checkpoints,
    [unsaved],
    'QEMU could not store it',
  );
});

t.test(
  'QEMU dies while an export of the backup is prepared: said so, and nothing is left of it',
  async (t) => {
    const name = 'mid-prepare';
    await doomed(name);
    await tearDown(name);
    const qemu = (await host.processes()).find(({ args }) =>
      args.some((arg) => arg.startsWith(`guest=${name}`)),
    );
    await host.must('kill', ['-STOP', String(qemu?.pid)]);
    const call = failureOf(prepare(daemon, { exportId: 'dying', vmId: name, disk: 'vda', backupId: name }));
    const record = host.path('/var/lib/vmdiskd/exports/dying.json');
    await poll('it to turn to QEMU', 30_000, async () => existsSync(record));
    await host.must('kill', ['-9', String(qemu?.pid)]);
    const failure = await call;
    t.equal(failure.data.name, 'ExportFailed', failure.message);
    t.match(failure.message, /"dying" has failed.*prepare a new one/);
    await endsFailed(t, name);
  },
);

t.test('an end that QEMU is slow to come to: the same call again joins it', async (t) => {
  await doomed('slow');
  await tearDown('slow');
  const qemu = (await host.processes()).find(({ args }) => args.some((arg) => arg.startsWith('guest=slow')));
  await host.must('kill', ['-STOP', String(qemu?.pid)]);
  const first = stop('slow', 'success');
  const again = stop('slow', 'success');
  await sleep(1500);
  await host.must('kill', ['-CONT', String(qemu?.pid)]);
  t.strictSame(await again, { backupId: 'slow', checkpoint: { id: 'late', state: 'kept' } });
  t.strictSame(await first, await again);
  await host.virsh('destroy', 'slow');
  t.strictSame(await left(), []);
});

t.test("the job is ended by another's hand", async (t) => {
  await doomed('aborted');
  await host.virsh('domjobabort', 'aborted');
  t.match(await whyFailed(daemon, 'aborted'), /another program/);
  await endsFailed(t, 'aborted');
  await countsSinceGood(t, 'aborted');
  await host.virsh('destroy', 'aborted');
});

t.test('the VM is undefined in mid-backup', async (t) => {
  await doomed('undefined');
  await host.virsh('undefine', '--checkpoints-metadata', 'undefined').catch(() => undefined);
  await host.virsh('destroy', 'undefined');
  t.match(await whyFailed(daemon, 'undefined'), /its VM (is gone|has stopped)/);
  await tearDown('undefined');
  await stop('undefined', 'success');
  t.strictSame(await left(), []);
});

/**
 * A VM with a running backup with the pending checkpoint `late`, whose image is by now a link to one that may not be looked into;
 * then it is destroyed.
 */
async function outside(name: string): Promise<string> {
  const image = await smallImage({ host, name: `${name}.qcow2` });
  await defineVm(host, { name, disks: [virtio('vda', image)] });
  await host.virsh('start', '--paused', name);
  const disks = [{ disk: 'vda' }];
  await startBackup(daemon, { backupId: name, vmId: name, disks, checkpoint: 'late' });
  const away = `/var/lib/libvirt/outside/${name}.qcow2`;
  await host.must('mkdir', ['-p', '/var/lib/libvirt/outside']);
  await host.must('mv', [image, away]);
  await host.must('ln', ['-s', away, image]);
  await host.virsh('destroy', name);
  return image;
}
const LATE_DELETED = { id: 'late', state: 'deleted' };

t.test('an image that may not be opened here holds up no end: its bitmap goes when it can', async (t) => {
  const image = await outside('outside');
  t.strictSame(await stop('outside', 'failed'), { backupId: 'outside', checkpoint: LATE_DELETED });
  t.strictSame(
    await left(),
    ['checkpoint late (deleting)'],
    'all but the bitmap, and libvirt knows of it still',
  );
  const deletion = verb(daemon, 'deleteCheckpoint', { vmId: 'outside', checkpoint: 'late' });
  t.equal((await failureOf(deletion)).data.name, 'PathNotAllowed', 'a caller that asks is told why');
  t.strictSame(await bitmapsIn(host, image), ['late']);
  await host.virsh('start', '--paused', 'outside');
  await poll('libvirt to delete it', 30_000, async () => (await left()).length === 0);
  await host.virsh('destroy', 'outside');
  t.strictSame(await bitmapsIn(host, image), []);
});

t.test('an image that is gone has no bitmap to be removed', async (t) => {
  const image = await outside('gone');
  await host.must('rm', [image]);
  t.strictSame(await stop('gone', 'failed'), { backupId: 'gone', checkpoint: LATE_DELETED });
  t.strictSame(await left(), []);
});

t.test('libvirt is away when the backup is to end, and it is ended when libvirt is back', async (t) => {
  await doomed('away');
  await host.virsh('destroy', 'away');
  await host.killLibvirtd('SIGKILL');
  await host.startLibvirtd();
  t.match(await whyFailed(daemon, 'away'), /its VM has stopped/);
  await endsFailed(t, 'away');
});

t.test(
  'libvirtd dies under a start and under an end: the one is taken back, the other finished',
  async (t) => {
    await doomed('cut');
    /** libvirtd has the call and never answers it. */
    const cut = async (method: string, params: object): Promise<void> => {
      await host.killLibvirtd('SIGSTOP');
      const call = failureOf(daemon.call(method, params));
      await host.killLibvirtd('SIGKILL');
      t.equal((await call).data.name, 'LibvirtUnavailable', method);
      await host.startLibvirtd();
    };
    await tearDown('cut');
    await cut('stopBackup', { backupId: 'cut', outcome: 'success' });
    await poll('the end to be finished', 30_000, async () => (await jobOf(host, 'cut')) === '');
    t.strictSame(
      await stop('cut', 'failed'),
      { backupId: 'cut', checkpoint: { id: 'late', state: 'kept' } },
      'as decided',
    );
    const wanted = { backupId: 'cut-2', vmId: 'cut', disks: [{ disk: 'vda' }], checkpoint: 'later' };
    await cut('startBackup', wanted);
    await poll('the start to be taken back', 30_000, async () => (await left()).length === 0);
    t.strictSame(await checkpointsOf(host, 'cut'), ['good', 'late']);
    await startBackup(daemon, { ...wanted, backupId: 'cut-3' });
    await stop('cut-3', 'success');
    await host.virsh('destroy', 'cut');
    t.strictSame(await left(), []);
  },
);

t.test('the daemon is killed in mid-backup, and the VM destroyed before it is back', async (t) => {
  await doomed('unseen');
  await daemon.kill('SIGKILL');
  await host.virsh('destroy', 'unseen');
  daemon = await startDaemon(16 * MiB);
  t.match(await whyFailed(daemon, 'unseen'), /its VM has stopped/);
  await endsFailed(t, 'unseen');
});

t.test('the daemon is killed while a backup begins, and its VM is gone before it is back', async (t) => {
  await doomed('vanished');
  await tearDown('vanished');
  await daemon.kill('SIGKILL');
  // As it stands while the guest is frozen.
  const file = host.path('/var/lib/vmdiskd/backups/vanished.json');
  const record = JSON.parse(readFileSync(file, 'utf8'));
  t.equal(record.quiesce, 'try');
  writeFileSync(file, JSON.stringify({ ...record, state: 'starting' }));
  await host.virsh('destroy', 'vanished');
  await host.virsh('undefine', '--checkpoints-metadata', 'vanished');
  daemon = await startDaemon(16 * MiB);
  await poll('it to be taken back', 30_000, async () => (await left()).length === 0);
  t.strictSame(await left(), []);
});

t.test(
  'a scratch directory that cannot be made, or is gone: said by its name, and it holds up no end',
  async (t) => {
    await host.virsh('start', '--paused', 'unseen');
    const wanted = { backupId: 'place', vmId: 'unseen', disks: [{ disk: 'vda' }], checkpoint: 'place' };
    await daemon.kill();
    const scratch = '/run/scratch';
    await host.must('touch', [scratch]);
    daemon = await host.startDaemon({
      paths: { scratch: `${scratch}/below` },
      limits: { scratchReserve: MiB },
    });
    const told = /\/run\/scratch\/below, cannot be used \(ENOTDIR.*\[paths\] scratch/;
    await refused(t, host, 'BackupError', () => startBackup(daemon, wanted), told);
    t.strictSame(await left(), [], 'all is taken back');
    await host.must('rm', [scratch]);
    await startBackup(daemon, wanted);
    await host.must('mv', [scratch, `${scratch}-moved`]);
    t.match(await stop('place', 'success'), { checkpoint: { id: 'place', state: 'kept' } });
    t.strictSame(await left(), []);
    await host.virsh('destroy', 'unseen');
    await daemon.kill();
    daemon = await startDaemon(16 * MiB);
  },
);

t.test('too little scratch space to begin with: refused, with the numbers', async (t) => {
  await host.must('sh', ['-c', `head -c ${ROOM - 8 * MiB} /dev/zero >${SCRATCH}/filler`]);
  await host.virsh('start', '--paused', 'aborted');
  const wanted = { backupId: 'none', vmId: 'aborted', disks: [{ disk: 'vda' }], checkpoint: 'none' };
  const told = new RegExp(`Only 8\\d{6} bytes are free in ${SCRATCH}.* ${16 * MiB} to begin with`);
  await refused(t, host, 'ScratchFull', () => startBackup(daemon, wanted), told);
  t.strictSame(await checkpointsOf(host, 'aborted'), ['good']);
  await host.must('rm', [`${SCRATCH}/filler`]);
  await host.virsh('destroy', 'aborted');
  t.strictSame(await left(), []);
});

/** Overwrites the whole disk and says how it went; a guest that is left paused never answers. */
const overwrite = (guest: Guest, seed: string) =>
  guest.try(`write-random /dev/vda 0 ${96 * MiB} ${seed}`, { timeoutMs: 240_000 });

t.test('the scratch space runs out while the guest writes: the guest goes on', async (t) => {
  const path = await host.createImage({ name: 'busy.qcow2', format: 'qcow2', size: 96 * MiB });
  const guest = await host.startGuest({ name: 'busy', disks: [virtio('vda', path)] });
  t.equal((await overwrite(guest, 'first')).exitCode, 0);
  // With a reserve the backup is ended in time, unless the host is very busy; without one to speak of, QEMU pauses the
  // guest before. Which of the two it was the log says; the guest goes on in either case.
  for (const [reserve, how] of [
    [24 * MiB, 'reserve'],
    [MiB, 'paused'],
  ] as const) {
    await daemon.kill();
    daemon = await startDaemon(reserve);
    const disks = [{ disk: 'vda' }];
    await startBackup(daemon, { backupId: how, vmId: 'busy', disks, checkpoint: how });
    const made = await prepare(daemon, { exportId: how, vmId: 'busy', disk: 'vda', backupId: how });
    await sha256OfExport(host, made.uri);
    const { exitCode, stderr } = await overwrite(guest, how);
    t.equal(exitCode, 0, `the guest's I/O completes ${stderr}`);
    t.match(await whyFailed(daemon, how), /scratch space in \/mnt ran out/);
    t.match(daemon.log(), /"event":"scratchLow".*"free":\d+/);
    await poll('the job to be gone', 30_000, async () => (await jobOf(host, 'busy')) === '');
    t.equal((await host.virsh('domstate', 'busy')).trim(), 'running');
    await tearDown(how);
    t.strictSame(await stop(how), { backupId: how, checkpoint: { id: how, state: 'deleted' } });
    t.strictSame(await checkpointsOf(host, 'busy'), []);
    t.strictSame(await left(), []);
  }
  t.equal((await failureOf(verb(daemon, 'getExport', { exportId: 'paused' }))).data.name, 'NoSuchExport');
  await guest.sh('sync; sha256sum /dev/vda >/tmp/sum');
  await guest.destroy();
});
