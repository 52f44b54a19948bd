/** Every verb's deadline and every state's runs out, is told by name, and leaves nothing behind. Needs root. */
import t from 'tap';
import { verbSchemas } from '../agent/api/schemas.js';
import type { VerbName } from '../agent/verbs/verb.js';
import { failureOf, MiB, prepare, readRecord, verb } from './exports/rig.js';
import type { DaemonHandle } from './host/daemon.js';
import { type Host, startHost } from './host/host.js';
import { poll } from './host/poll.js';
import { pausedVm, remains, smallImage, startBackup, writeTo } from './points-in-time/rig.js';

t.setTimeout(600_000);

/** Verbs that answer from memory: there is nothing that they could wait for. */
const WAIT_FOR_NOTHING = [
  'getHostInfo',
  'getExport',
  'listExports',
  'listBackups',
  'getJob',
  'listJobs',
  'rpc.discover',
  // Writes down a job, which has its own time; here the daemon is killed before it ends.
  'drain',
];
/** Verbs whose caller says how long. */
const LONG_POLLS = ['waitEvents'];
/** Its own deadline has to be long here, for the merge that cancelJob is tried on. */
const LATER = ['deleteSnapshot'];
/** Long enough for what has to work before libvirt hangs, also on a busy machine. */
const LONG = 120;

let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  host = await startHost(t);
  image = await smallImage({ host, name: 'image.qcow2' });
  for (const name of ['vm', 'backed', 'merged', 'merging']) await pausedVm(host, name);
});

const signal = (name: string, pid: number) => host.must('kill', [`-${name}`, String(pid)]);
const byPath = (exportId: string, more: object = {}) =>
  prepare(daemon, { exportId, path: image, format: 'qcow2', ...more });
async function restart(limits: object): Promise<void> {
  await daemon?.kill();
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, ...limits } });
}
const pidOfServer = (exportId: string) =>
  (readRecord(host, exportId) as { server: { process: { identity: { pid: number } } } }).server.process
    .identity.pid;

t.test('verbs', async (t) => {
  await restart({});
  const { limits } = await verb(daemon, 'getHostInfo', {});
  t.strictSame(
    Object.keys(limits.deadlineSeconds).sort(),
    Object.keys(verbSchemas).sort(),
    'each has one, shown',
  );

  const { drive } = await byPath('image');
  await verb(daemon, 'hotplugDisk', { vmId: 'vm', drive });
  const second = await byPath('second');
  await byPath('mapped');
  await byPath('locked');
  const disks = [{ disk: 'vda' }];
  await startBackup(daemon, { backupId: 'b', vmId: 'backed', disks });
  await verb(daemon, 'createSnapshot', { snapshotId: 's', vmId: 'merged', quiesce: 'no', checkpoint: 's' });
  await verb(daemon, 'createSnapshot', { snapshotId: 'm', vmId: 'merging', quiesce: 'no' });
  await writeTo(host, 'merging', 'virtio-disk0', 'write -P 3 0 6M');

  await daemon.kill();
  const seconds = Object.fromEntries(Object.keys(verbSchemas).map((name) => [name, 1]));
  // The renewals wait for these.
  Object.assign(seconds, { teardownBackupDisk: 4, stopBackup: 4 });
  daemon = await host.startDaemon({
    limits: {
      scratchReserve: MiB,
      deadlineSeconds: { ...seconds, deleteSnapshot: LONG },
      stateSeconds: { detach: 1, halfWay: 5 },
      mergeBytesPerSecond: 65536,
    },
  });
  const job = await verb(daemon, 'deleteSnapshot', { snapshotId: 'm', vmId: 'merging' });
  await host.killLibvirtd('SIGSTOP');
  await signal('STOP', pidOfServer('mapped'));
  const vm = { vmId: 'vm' };
  const calls: Partial<Record<VerbName, object>> = {
    prepareBackupDisk: { exportId: 'new', ...vm, disk: 'vda' },
    mountDisk: { exportId: 'new-mount', ...vm, disk: 'vda' },
    hotplugDisk: { ...vm, drive: second.drive },
    hotunplugDisk: { ...vm, drive },
    getChangedBlocks: { exportId: 'mapped' },
    teardownBackupDisk: { exportId: 'image', force: true },
    startBackup: { backupId: 'new', ...vm, disks },
    stopBackup: { backupId: 'b' },
    createSnapshot: { snapshotId: 'new', ...vm, quiesce: 'no' },
    getSnapConfig: { vmId: 'merged', snapshotId: 's' },
    listSnapshots: vm,
    listDisks: vm,
    listCheckpoints: vm,
    confirmCheckpoint: { vmId: 'merged', checkpoint: 's', outcome: 'success' },
    deleteCheckpoint: { vmId: 'merged', checkpoint: 's' },
    redefineCheckpoints: vm,
    cancelJob: job,
    // These wait for a verb that hangs: for the teardown, and for the end of the backup.
    renewExport: { exportId: 'image', leaseSeconds: 60 },
    renewBackup: { backupId: 'b', leaseSeconds: 60 },
    unmountDisk: { exportId: 'image', force: true },
  };
  const untried = Object.keys(verbSchemas).filter(
    (name) => !(name in calls) && ![...WAIT_FOR_NOTHING, ...LONG_POLLS, ...LATER].includes(name),
  );
  t.strictSame(untried, [], 'each verb is tried here, or is one that waits for nothing');
  const answers = Object.entries(calls).map(async ([name, params]) => ({
    name,
    failure: await failureOf(daemon.call(name, params)),
  }));
  for (const { name, failure } of await Promise.all(answers)) {
    t.match(
      failure,
      { code: 5016, data: { name: 'Timeout', retryable: true } },
      `${name}: ${failure.message}`,
    );
    t.match(failure.message, /^\S.*\.$/);
  }
  for (const name of WAIT_FOR_NOTHING) {
    const params = { getExport: { exportId: 'image' }, getJob: { jobId: 'none' } }[name] ?? {};
    const answer = await daemon
      .call(name, params)
      .catch((error: { data: { name: string } }) => error.data.name);
    t.not(answer, 'Timeout', `${name} is answered meanwhile`);
  }
  await host.killLibvirtd('SIGCONT');
  await signal('CONT', pidOfServer('mapped'));
  await restart({ stateSeconds: { detach: 1 }, deadlineSeconds: { deleteSnapshot: 1 } });
  await host.killLibvirtd('SIGSTOP');
  const deletion = verb(daemon, 'deleteSnapshot', { vmId: 'merged', snapshotId: 's' });
  t.equal((await failureOf(deletion)).data.name, 'Timeout', 'deleteSnapshot');
  await host.killLibvirtd('SIGCONT');
  await restart({ stateSeconds: { detach: 1 } });
  for (const [vmId, snapshotId] of [
    ['merging', 'm'],
    ['merged', 's'],
  ] as const) {
    await poll(`${snapshotId} to be deleted`, 90_000, async () => {
      const { jobId } = await verb(daemon, 'deleteSnapshot', { vmId, snapshotId });
      return (await verb(daemon, 'getJob', { jobId })).state === 'done';
    });
  }
  for (const exportId of ['image', 'second', 'mapped', 'locked', 'new']) {
    await verb(daemon, 'teardownBackupDisk', { exportId, force: true, outcome: 'failed' });
  }
  for (const backupId of ['b', 'new']) await verb(daemon, 'stopBackup', { backupId, force: true });
  await verb(daemon, 'confirmCheckpoint', { vmId: 'merged', checkpoint: 's', outcome: 'failed' }).catch(
    () => {},
  );
  await poll('nothing to be left', 90_000, async () => (await remains(host)).length === 0);
});

t.test('states', async (t) => {
  await restart({
    stateSeconds: { recovery: 1, halfWay: 1, detach: 1, leaseEnd: 1, libvirtAway: 1 },
    deadlineSeconds: { teardownBackupDisk: LONG },
  });
  const { stateSeconds } = (await verb(daemon, 'getHostInfo', {})).limits;
  t.strictSame(Object.keys(stateSeconds).sort(), [
    ...['detach', 'freeze', 'frozen', 'halfWay', 'leaseEnd', 'libvirtAway', 'recovery'],
  ]);

  await t.test('detach: a guest that does not let go of a drive', async (t) => {
    const { drive } = await byPath('virtio');
    await verb(daemon, 'hotplugDisk', { vmId: 'vm', drive, bus: 'virtio' }); // paused: no guest answers
    const failure = await failureOf(verb(daemon, 'teardownBackupDisk', { exportId: 'virtio', force: true }));
    t.equal(failure.data.name, 'HotunplugTimeout');
    t.match(failure.message, /within 1 s/);
    await host.virsh('destroy', 'vm');
    await verb(daemon, 'teardownBackupDisk', { exportId: 'virtio' });
    await host.virsh('start', '--paused', 'vm');
  });

  await t.test('leaseEnd: what its lease has left cannot be ended, and is later', async (t) => {
    const { drive } = await byPath('leased');
    await verb(daemon, 'hotplugDisk', { vmId: 'vm', drive });
    await host.killLibvirtd('SIGSTOP');
    await verb(daemon, 'renewExport', { exportId: 'leased', leaseSeconds: 1 });
    await poll('the attempt to be given up', 30_000, () =>
      /what its lease has left could not be ended yet/.test(daemon.log()),
    );
    await host.killLibvirtd('SIGCONT');
    await poll('the export to be ended', 90_000, async () => (await remains(host)).length === 0);
    t.notMatch(await host.virsh('dumpxml', 'vm'), drive.serial);
  });

  await t.test('libvirtAway: a merge does not wait for libvirt for ever', async (t) => {
    await restart({ stateSeconds: { libvirtAway: 1 }, mergeBytesPerSecond: 65536 });
    await verb(daemon, 'createSnapshot', { snapshotId: 'a', vmId: 'merging', quiesce: 'no' });
    await writeTo(host, 'merging', 'virtio-disk0', 'write -P 4 0 2M');
    const { jobId } = await verb(daemon, 'deleteSnapshot', { snapshotId: 'a', vmId: 'merging' });
    await host.killLibvirtd('SIGKILL');
    await poll('the job to end', 60_000, async () => {
      return (await verb(daemon, 'getJob', { jobId })).state !== 'running';
    });
    t.match(await verb(daemon, 'getJob', { jobId }), {
      state: 'failed',
      error: { name: 'LibvirtUnavailable' },
    });
    await host.startLibvirtd();
    await restart({ stateSeconds: { recovery: 1, halfWay: 1, detach: 1, leaseEnd: 1 } });
    await poll('the merge to be finished', 90_000, async () => {
      const again = await verb(daemon, 'deleteSnapshot', { vmId: 'merging', snapshotId: 'a' });
      return (await verb(daemon, 'getJob', again)).state === 'done';
    });
  });

  await t.test('halfWay and recovery: an end that hangs', async (t) => {
    await startBackup(daemon, { backupId: 'h', vmId: 'backed', disks: [{ disk: 'vda' }], checkpoint: 'h' });
    await host.killLibvirtd('SIGSTOP');
    const lost = verb(daemon, 'stopBackup', { backupId: 'h', outcome: 'failed' }).catch(() => {});
    await poll('the end to begin', 10_000, async () => {
      return (await verb(daemon, 'listBackups', {})).backups[0]?.state === 'ending';
    });
    await daemon.kill('SIGKILL');
    await lost;
    await restart({ stateSeconds: { recovery: 1, halfWay: 1 } });
    t.match(daemon.log(), /a backup could not be brought in order yet/);
    t.equal((await verb(daemon, 'getHostInfo', {})).state, 'ready', 'and verbs are answered');
    await host.killLibvirtd('SIGCONT');
    await poll('the backup to be ended', 90_000, async () => {
      await host.reviveLibvirtd(); // 9.0 was once seen to crash here, in libvirt.so, having gone on with its clients gone
      return (await remains(host)).length === 0;
    });
  });
});
