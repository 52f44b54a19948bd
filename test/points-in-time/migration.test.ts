/**
 * Real live migrations between two private hosts, held half-way: what each verb that is bound to the VM answers on the
 * host that it leaves and on the one that it comes to, and what is left when it is aborted or has gone. Needs root.
 */
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Drive, PrepareBackupDiskResult, Verbs } from '../../agent/api/generated.js';
import { defineVm, failureOf, prepare, remains as remainsOfExports, verb } from '../exports/rig.js';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { startMigration } from '../host/migration.js';
import { poll } from '../host/poll.js';
import { checkpointsOf, remains, startBackup, virtio, whyFailed } from './rig.js';

t.setTimeout(600_000);

let source: Host;
let destination: Host;
let images: string;
/** The daemons there. */
let here: DaemonHandle;
let there: DaemonHandle;
let uuid: string;
let settings: DaemonConfig;
/** Exports of plain images: plugged into the VM, plugged in nowhere, and one on the destination. */
let plugged: PrepareBackupDiskResult;
let loose: PrepareBackupDiskResult;
let theirs: PrepareBackupDiskResult;

/** A verb and its params. */
type Call = [keyof Verbs, object];

async function image(name: string): Promise<string> {
  const path = `${images}/${name}`;
  await source.must('qemu-img', ['create', '-q', '-f', 'qcow2', path, '8M']);
  return path;
}

t.before(async () => {
  [source, destination] = await Promise.all([startHost(t), startHost(t)]);
  images = `${source.dir}/shared`; // the same path inside both
  mkdirSync(images);
  chmodSync(images, 0o755);
  settings = { images: { allowedRoots: [images] }, limits: { scratchReserve: 1 << 20 } };
  [here, there] = await Promise.all([source.startDaemon(settings), destination.startDaemon(settings)]);
  uuid = await defineVm(source, {
    name: 'web',
    disks: [virtio('vda', await image('web.qcow2'))],
    devicesXml: "<controller type='scsi' index='0' model='virtio-scsi'/>",
  });
  await source.virsh('start', 'web');
  const vm = { vmId: 'web', disk: 'vda' };
  await prepare(here, { exportId: 'first', ...vm, checkpoint: 'good' });
  await verb(here, 'teardownBackupDisk', { exportId: 'first', outcome: 'success' });
  await verb(here, 'createSnapshot', { snapshotId: 'snap', vmId: 'web', checkpoint: 'waits', quiesce: 'no' });
  // libvirt migrates no VM with snapshots that it knows: an engine has it forget them.
  await source.virsh('snapshot-delete', '--metadata', 'web', 'snap');
  const file = async (daemon: DaemonHandle, exportId: string) =>
    prepare(daemon, { exportId, path: await image(`${exportId}.qcow2`), format: 'qcow2' });
  plugged = await file(here, 'plugged');
  loose = await file(here, 'loose');
  theirs = await file(there, 'theirs');
  await verb(here, 'hotplugDisk', { vmId: 'web', drive: plugged.drive });
  // The drive is reached at the same path on the other host, or QEMU would not start there.
  symlinkSync(`${source.dir}/run/vmdiskd/exports/plugged`, destination.path('/run/vmdiskd/exports/plugged'));
});

/** Each answers MigrationInProgress, long before libvirt's 30 s, and changes nothing. */
async function allRefused(
  t: Test,
  daemon: DaemonHandle,
  told: RegExp,
  calls: readonly Call[],
): Promise<void> {
  for (const [method, params] of calls) {
    const began = Date.now();
    const { message, data } = await failureOf(daemon.call(method, params));
    const what = `${method} ${JSON.stringify(params).slice(0, 80)}`;
    t.match(
      { message, data },
      { message: told, data: { name: 'MigrationInProgress', retryable: true } },
      what,
    );
    t.equal(data.vmId, uuid, `${what}: which VM`);
    t.ok(Date.now() - began < 15_000, `${what}: at once`);
  }
}

const OUT = /^.*web is migrating to another host .*on the host where it then runs\.$/;
const IN = /^.*web is migrating to this host .*try again when it runs here\.$/;
const disks = [{ disk: 'vda' }];

/** What every host can be asked about the VM. */
const both = (drive: Drive): Call[] => [
  ['startBackup', { backupId: 'new', vmId: 'web', disks, checkpoint: 'new' }],
  ['prepareBackupDisk', { exportId: 'new', vmId: 'web', disk: 'vda' }],
  ['prepareBackupDisk', { exportId: 'new', vmId: uuid, disk: 'vda', snapshotId: 'snap' }],
  ['hotplugDisk', { vmId: 'web', drive }],
  ['createSnapshot', { snapshotId: 'new', vmId: 'web' }],
  ['getSnapConfig', { snapshotId: 'snap', vmId: 'web' }],
  ['listSnapshots', { vmId: 'web' }],
  ['listCheckpoints', { vmId: 'web' }],
  ['redefineCheckpoints', { vmId: 'web' }],
  ['listDisks', { vmId: 'web' }],
];

t.test('half-way, then aborted', async (t) => {
  // A backup whose job was ended by another hand while no daemon watched: its end has to delete a checkpoint.
  await startBackup(here, { backupId: 'cut', vmId: 'web', disks, checkpoint: 'late', quiesce: 'no' });
  await prepare(here, { exportId: 'cut', vmId: 'web', disk: 'vda', backupId: 'cut' });
  await here.kill('SIGKILL');
  await source.virsh('domjobabort', 'web');
  const migration = await startMigration(source, destination, 'web');
  here = await source.startDaemon(settings);

  await t.test('on the host that it leaves', async (t) => {
    t.match(await whyFailed(here, 'cut'), /another program/, 'watches and recovery go on');
    await allRefused(t, here, OUT, [
      ...both(loose.drive),
      ['hotunplugDisk', { vmId: 'web', drive: plugged.drive }],
      ['teardownBackupDisk', { exportId: 'plugged', force: true }],
      ['deleteSnapshot', { snapshotId: 'snap', vmId: 'web' }],
      ['confirmCheckpoint', { vmId: 'web', checkpoint: 'waits', outcome: 'success' }],
      ['confirmCheckpoint', { vmId: 'web', checkpoint: 'waits', outcome: 'failed' }],
      ['deleteCheckpoint', { vmId: 'web', checkpoint: 'good' }],
    ]);
  });

  await t.test('on the host that it comes to', async (t) => {
    await allRefused(t, there, IN, both(theirs.drive));
    t.strictSame(await remainsOfExports(destination), await onlyExports(), 'nothing is left behind');
  });

  await t.test('what records alone can answer is answered', async (t) => {
    const again = { exportId: 'plugged', path: `${images}/plugged.qcow2`, format: 'qcow2' } as const;
    t.strictSame(await prepare(here, again), plugged);
    t.match(await verb(here, 'hotplugDisk', { vmId: 'web', drive: plugged.drive }), {
      serial: plugged.drive.serial,
    });
    t.match(
      await verb(here, 'createSnapshot', {
        snapshotId: 'snap',
        vmId: 'web',
        checkpoint: 'waits',
        quiesce: 'no',
      }),
      { snapshotId: 'snap', checkpoint: 'waits' },
    );
    t.match(await verb(here, 'confirmCheckpoint', { vmId: 'web', checkpoint: 'good', outcome: 'failed' }), {
      checkpoint: { state: 'kept' },
    });
    t.match(await verb(here, 'listBackups', { vmId: 'web' }), { backups: [{ backupId: 'cut' }] });
    for (const daemon of [here, there]) {
      const drive = daemon === here ? loose.drive : theirs.drive;
      t.match(await verb(daemon, 'hotunplugDisk', { vmId: 'web', drive }), { target: null });
      const { jobId } = await verb(daemon, 'deleteSnapshot', { vmId: 'web', snapshotId: 'never' });
      t.match(await verb(daemon, 'getJob', { jobId }), { state: 'done' });
      await verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'never' });
      await verb(daemon, 'stopBackup', { backupId: 'never' });
      await verb(daemon, 'teardownBackupDisk', { exportId: 'never' });
    }
  });

  await t.test('an end that would delete a checkpoint waits', async (t) => {
    await verb(here, 'teardownBackupDisk', { exportId: 'cut' });
    await allRefused(t, here, OUT, [['stopBackup', { backupId: 'cut', outcome: 'success' }]]);
    t.ok((await checkpointsOf(source, 'web')).includes('late'));
  });

  await migration.abort();
  t.match(await source.virsh('domstate', 'web'), /running/);
  t.strictSame(await destination.domains(), []);
  await poll('the backup to be ended', 30_000, async () => {
    return (await verb(here, 'listBackups', {})).backups.length === 0;
  });
  t.match(await verb(here, 'stopBackup', { backupId: 'cut', outcome: 'success' }), {
    checkpoint: { id: 'late', state: 'deleted' },
  });
  t.strictSame(await checkpointsOf(source, 'web'), ['good', 'waits']);
  t.match(await verb(here, 'listDisks', { vmId: 'web' }), { disks: [{ target: 'vda' }] });
  await startBackup(here, { backupId: 'after', vmId: 'web', disks });
  await verb(here, 'stopBackup', { backupId: 'after' });
  t.match((await failureOf(verb(there, 'listDisks', { vmId: 'web' }))).data, { name: 'NoSuchVM' });
});

t.test('completed: off here, running there', async (t) => {
  const migration = await startMigration(source, destination, 'web');
  await allRefused(t, here, OUT, [['startBackup', { backupId: 'new', vmId: 'web', disks }]]);
  await allRefused(t, there, IN, [['startBackup', { backupId: 'new', vmId: 'web', disks }]]);
  await migration.complete();

  const away: Call[] = [
    ['startBackup', { backupId: 'new', vmId: 'web', disks }],
    ['prepareBackupDisk', { exportId: 'new', vmId: 'web', disk: 'vda' }],
    ['hotplugDisk', { vmId: 'web', drive: loose.drive }],
    ['createSnapshot', { snapshotId: 'new', vmId: 'web' }],
    ['deleteSnapshot', { snapshotId: 'snap', vmId: 'web' }],
  ];
  for (const [method, params] of away) {
    const { message, data } = await failureOf(here.call(method, params));
    t.match({ message, data }, { message: /web.* does not run/, data: { name: 'VMNotRunning' } }, method);
  }
  await poll('the drive to be forgotten', 30_000, async () => {
    return (await verb(here, 'getExport', { exportId: 'plugged' })).attachedTo.length === 0;
  });
  t.match(
    await verb(here, 'confirmCheckpoint', { vmId: 'web', checkpoint: 'waits', outcome: 'failed' }),
    { checkpoint: { state: 'deleted' } },
    'though its bitmap lies in an image that QEMU has open on the other host',
  );
  t.strictSame(await checkpointsOf(source, 'web'), ['good']);

  await startBackup(there, { backupId: 'new', vmId: 'web', disks, checkpoint: 'new' });
  await verb(there, 'stopBackup', { backupId: 'new', outcome: 'success' });
  t.match(await verb(there, 'listCheckpoints', { vmId: 'web' }), { checkpoints: [{ checkpoint: 'new' }] });
});

t.test('gone from here: nothing is left that cannot be taken away', async (t) => {
  await source.virsh('undefine', '--checkpoints-metadata', 'web');
  for (const [method, params] of both(loose.drive)) {
    if (method === 'getSnapConfig') continue; // the record has it
    t.equal((await failureOf(here.call(method, params))).data.name, 'NoSuchVM', method);
  }
  const snap = { vmId: 'web', snapshotId: 'snap' };
  t.match(await failureOf(here.call('deleteSnapshot', snap)), {
    message: /web is not on this host, and .* merged with the VM: on the host that it has moved to/,
    data: { name: 'MergeFailed' },
  });
  const [overlay, ...others] = readdirSync(images).filter((name) => name.includes('.vmdiskd-'));
  t.ok(overlay !== undefined && others.length === 0, `one overlay: ${overlay}`);
  await destination.virsh('blockcommit', 'web', 'vda', '--active', '--pivot', '--wait');
  rmSync(`${images}/${overlay}`);
  const { jobId } = await verb(here, 'deleteSnapshot', snap);
  t.match(await verb(here, 'getJob', { jobId }), { state: 'done' });
  await verb(here, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'good' });
  for (const exportId of ['plugged', 'loose']) await verb(here, 'teardownBackupDisk', { exportId });
  await verb(there, 'teardownBackupDisk', { exportId: 'theirs' });
  rmSync(destination.path('/run/vmdiskd/exports/plugged'));
  t.strictSame(await remains(source), []);
  t.strictSame(await remains(destination), []);
  const states = (await here.call<{ jobs: { state: string }[] }>('listJobs')).jobs.map(({ state }) => state);
  t.ok(states.every((state) => state === 'done'));
});

/** What the destination has before any verb was tried. */
async function onlyExports(): Promise<string[]> {
  return (await remainsOfExports(destination)).filter((line) => /theirs|plugged/.test(line));
}
