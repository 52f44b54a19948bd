/** drain: everything is ended in order, what cannot be is told by id, and nothing new comes meanwhile. Needs root. */
import t from 'tap';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { poll } from '../host/poll.js';
import { checkpointsOf, pausedHost, remains, smallImage, startBackup } from '../points-in-time/rig.js';
import { failureOf, prepare, readRecord, refused, verb } from './rig.js';

t.setTimeout(600_000);

let config: DaemonConfig;
let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  ({ host, image, config, daemon } = await pausedHost(t, ['vm', 'appliance']));
});

const byPath = (exportId: string) => prepare(daemon, { exportId, path: image, format: 'qcow2' });
const drain = (timeoutSeconds = 120) => verb(daemon, 'drain', { timeoutSeconds });
const disks = [{ disk: 'vda' }];
const jobOf = (jobId: string) => verb(daemon, 'getJob', { jobId });
async function ended(jobId: string) {
  await poll('the drain to end', 150_000, async () => (await jobOf(jobId)).state !== 'running');
  return jobOf(jobId);
}
const pidOfServer = (exportId: string) =>
  (readRecord(host, exportId) as { server: { process: { identity: { pid: number } } } }).server.process
    .identity.pid;
const signal = (name: string, exportId: string) =>
  host.must('kill', [`-${name}`, String(pidOfServer(exportId))]);

t.test('exports, mounts, drives and backups of a host, in order', async (t) => {
  const { drive } = await byPath('plugged');
  await verb(daemon, 'hotplugDisk', { vmId: 'appliance', drive });
  await startBackup(daemon, { backupId: 'b', vmId: 'vm', disks, checkpoint: 'c' });
  await prepare(daemon, { exportId: 'of-b', vmId: 'vm', disk: 'vda', backupId: 'b' });
  const written = await smallImage({ host, name: 'written.qcow2' });
  const target = { path: written, format: 'qcow2', access: 'read-write' } as const;
  const writer = await verb(daemon, 'mountDisk', { exportId: 'writer', ...target });
  await host.must('qemu-io', ['-f', 'raw', '-c', 'write -P 5 0 64k', writer.uri]);
  await verb(daemon, 'mountDisk', {
    ...{ exportId: 'file', path: image, format: 'qcow2', access: 'scratch', as: 'file' },
  });
  await prepare(daemon, { exportId: 'own', vmId: 'appliance', disk: 'vda' });
  const { next } = await verb(daemon, 'waitEvents', { timeoutSeconds: 0 });

  const { jobId } = await drain();
  const job = await ended(jobId);
  t.match(job, {
    kind: 'drain',
    state: 'done',
    owner: 'unix',
    vmId: null,
    progress: { current: 6, total: 6 },
  });
  t.strictSame(job.result?.exports.toSorted(), ['file', 'of-b', 'own', 'plugged', 'writer']);
  t.strictSame(job.result?.backups, ['b']);
  t.strictSame(job.result?.left, []);
  t.strictSame(await remains(host), []);
  t.strictSame(await checkpointsOf(host, 'vm'), [], 'the outcome is failed');
  t.notMatch(await host.virsh('dumpxml', 'appliance'), drive.serial);
  const { events } = await verb(daemon, 'waitEvents', { after: next, timeoutSeconds: 0 });
  const order = events.flatMap((event) => {
    if (event.kind === 'driveDetached') return ['plugged: out'];
    if (event.kind === 'exportClosed') return [event.exportId];
    return event.kind === 'backupEnded' ? [event.backupId] : [];
  });
  t.ok(order.indexOf('plugged: out') < order.indexOf('plugged'), 'the drive first');
  t.ok(order.indexOf('of-b') < order.indexOf('b'), 'exports before their backup');
  t.match(events.at(-1), { kind: 'jobEnded', jobId, verb: 'drain', state: 'done' });
  const read = await host.must('qemu-io', ['-f', 'qcow2', '-c', 'read -P 5 0 64k', written]);
  t.notMatch(read, /verification failed/, 'what was written is there');
  t.ok((await verb(daemon, 'listJobs', {})).jobs.some((row) => row.jobId === jobId));
  t.match(await verb(daemon, 'cancelJob', { jobId }), { state: 'done' }, 'nothing to cancel any more');
});

t.test('nothing to end is done, and is another job each time', async (t) => {
  const first = await drain();
  t.match(await ended(first.jobId), { state: 'done', result: { exports: [], backups: [], left: [] } });
  t.not((await drain()).jobId, first.jobId);
});

t.test('while it runs: joined, and nothing new is begun', async (t) => {
  const { drive } = await byPath('stuck');
  await verb(daemon, 'hotplugDisk', { vmId: 'appliance', drive, bus: 'virtio' }); // paused: no guest answers
  await byPath('free');
  const first = await drain(600);
  t.strictSame(await drain(5), first, 'the same job, and its own time');
  await poll('the other to be ended', 60_000, async () => {
    const { progress } = await jobOf(first.jobId);
    return progress.current === 1 && progress.total === 2;
  });
  const about = { retryable: true };
  await refused(t, host, 'LimitReached', () => byPath('new'), /A drain is at work \(job /, about);
  const mount = { exportId: 'new', path: image, format: 'qcow2' } as const;
  await refused(t, host, 'LimitReached', () => verb(daemon, 'mountDisk', mount), /A drain is at work/, about);
  const backup = () => startBackup(daemon, { backupId: 'new', vmId: 'vm', disks });
  await refused(t, host, 'LimitReached', backup, /A drain is at work/, about);

  t.match(await verb(daemon, 'cancelJob', { jobId: first.jobId }), {
    ...{ state: 'cancelled', result: { exports: ['free'], left: [{ kind: 'export', id: 'stuck' }] } },
  });
  await byPath('new');
  t.match(
    (await verb(daemon, 'getExport', { exportId: 'new' })).state,
    'ready',
    'cancelled, it is in no way',
  );
});

t.test('what is not ended in time is named, and why', async (t) => {
  await daemon.kill();
  daemon = await host.startDaemon({ limits: { scratchReserve: 1 << 20, stateSeconds: { detach: 1 } } });
  const written = await smallImage({ host, name: 'hung.qcow2' });
  await verb(daemon, 'mountDisk', {
    ...{ exportId: 'hung', path: written, format: 'qcow2', access: 'read-write' },
  });
  await signal('STOP', 'hung');
  const began = Date.now();
  const job = await ended((await drain(8)).jobId);
  t.ok(Date.now() - began < 30_000, 'it ends at its time');
  t.match(job, { state: 'failed', error: { name: 'DrainFailed' } });
  t.match(job.error?.message, /^2 of 3 exports and backups were not ended within 8 s; .*drain again\./);
  t.match(job.error?.message, /export "stuck": .*appliance/);
  t.strictSame(job.result?.exports, ['new']);
  t.match(job.result?.left.map(({ id, error }) => [id, error.name]).toSorted(), [
    ['hung', 'Timeout'],
    ['stuck', 'HotunplugTimeout'],
  ]);
  await host.must('kill', ['-0', String(pidOfServer('hung'))]);
  t.pass('a writer is waited for, and not killed');

  await signal('CONT', 'hung');
  await host.virsh('destroy', 'appliance');
  t.match(await ended((await drain()).jobId), { state: 'done' }, 'again, when nothing holds them');
  t.strictSame(await remains(host), []);
  await host.virsh('start', '--paused', 'appliance');
});

for (const [how, name] of [
  ['crash', 'SIGKILL'],
  ['stop', 'SIGTERM'],
] as const) {
  t.test(`a ${how} in the middle: the job has failed, and the next drain is done`, async (t) => {
    const exportId = `held-${how}`;
    const { drive } = await byPath(exportId);
    await verb(daemon, 'hotplugDisk', { vmId: 'appliance', drive, bus: 'virtio' });
    const { jobId } = await drain();
    await daemon.kill(name);
    if (how === 'stop') {
      t.match(daemon.log(), /stopping; 1 export, 0 backups, 0 merges live on; `vmdiskctl drain --wait`/);
    }
    daemon = await host.startDaemon(config);
    await poll('the job to be ended', 10_000, async () => (await jobOf(jobId)).state !== 'running');
    t.match(await jobOf(jobId), {
      state: 'failed',
      error: { name: 'DrainFailed', message: 'The daemon ended while it drained the host; drain again.' },
    });
    await prepare(daemon, { exportId: `new-${how}`, path: image, format: 'qcow2' });
    await host.virsh('destroy', 'appliance');
    t.match(await ended((await drain()).jobId), { state: 'done' });
    t.strictSame(await remains(host), []);
    await host.virsh('start', '--paused', 'appliance');
  });
}

t.test('a call that had begun before: it is refused, or what it makes is ended', async (t) => {
  const made = Array.from({ length: 8 }, (_, i) => byPath(`race-${i}`).catch((error: unknown) => error));
  const { jobId } = await drain();
  const answers = await Promise.all(made);
  t.match(await ended(jobId), { state: 'done' });
  for (const answer of answers) {
    if (answer instanceof Error) t.match(answer, { data: { name: /LimitReached|ExportFailed/ } });
  }
  t.strictSame(await remains(host), []);
  t.equal((await failureOf(verb(daemon, 'drain', { timeoutSeconds: 0 }))).code, -32602);
});
