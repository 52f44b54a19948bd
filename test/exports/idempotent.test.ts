/** Every verb that changes something, said twice at once, again, and again after a crash: one deed, one answer. Needs root. */
import t from 'tap';
import { verbSchemas } from '../../agent/api/schemas.js';
import type { VerbName } from '../../agent/verbs/verb.js';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { poll } from '../host/poll.js';
import { checkpointsOf, pausedHost, remains } from '../points-in-time/rig.js';
import { failureOf, verb } from './rig.js';

t.setTimeout(600_000);

let config: DaemonConfig;
let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  ({ host, image, config, daemon } = await pausedHost(t, ['vm', 'appliance']));
});

/** What is known only when its turn has come. */
const seen: Record<string, unknown> = {};
const drive = () => (seen.prepareBackupDisk as { drive: object }).drive;
const vm = { vmId: 'vm' };

/** In the order of a client. The members of an answer that may differ between the first call and later ones. */
const steps: { name: VerbName; params: () => object; varies?: string[] }[] = [
  {
    name: 'prepareBackupDisk',
    params: () => ({ exportId: 'e', path: image, format: 'qcow2', leaseSeconds: 600 }),
  },
  { name: 'renewExport', params: () => ({ exportId: 'e', leaseSeconds: 700 }), varies: ['lease'] },
  { name: 'hotplugDisk', params: () => ({ vmId: 'appliance', drive: drive() }) },
  { name: 'hotunplugDisk', params: () => ({ vmId: 'appliance', drive: drive() }), varies: ['target'] },
  { name: 'teardownBackupDisk', params: () => ({ exportId: 'e' }) },
  {
    name: 'mountDisk',
    params: () => ({
      exportId: 'm',
      path: image,
      format: 'qcow2',
      access: 'scratch',
      as: 'file',
      leaseSeconds: 600,
    }),
  },
  { name: 'unmountDisk', params: () => ({ exportId: 'm' }) },
  {
    name: 'startBackup',
    params: () => ({ backupId: 'b', ...vm, disks: [{ disk: 'vda' }], checkpoint: 'c1', leaseSeconds: 600 }),
  },
  { name: 'renewBackup', params: () => ({ backupId: 'b', leaseSeconds: 700 }), varies: ['lease'] },
  { name: 'stopBackup', params: () => ({ backupId: 'b', outcome: 'success' }) },
  { name: 'createSnapshot', params: () => ({ snapshotId: 's', ...vm, quiesce: 'no', checkpoint: 'c2' }) },
  { name: 'confirmCheckpoint', params: () => ({ ...vm, checkpoint: 'c2', outcome: 'success' }) },
  { name: 'redefineCheckpoints', params: () => vm },
  { name: 'deleteSnapshot', params: () => ({ ...vm, snapshotId: 's' }) },
  { name: 'cancelJob', params: () => seen.deleteSnapshot as object, varies: ['state', 'progress', 'ended'] },
  { name: 'deleteCheckpoint', params: () => ({ ...vm, checkpoint: 'c1' }) },
  { name: 'deleteCheckpoint', params: () => ({ ...vm, checkpoint: 'c2' }) },
  // No id of the caller's: once it has ended, the same call is another drain.
  { name: 'drain', params: () => ({ timeoutSeconds: 60 }), varies: ['jobId'] },
];

t.test('all of them are here', async (t) => {
  const changing = Object.values(verbSchemas).flatMap(({ name, changes }) => (changes ? [name] : []));
  const tried = [...new Set<string>(steps.map(({ name }) => name))];
  t.strictSame(tried.sort(), changing.sort());
});

for (const { name, params, varies = [] } of steps) {
  t.test(name, async (t) => {
    const call = () => daemon.call<Record<string, unknown>>(name, params());
    const fixed = (answer: Record<string, unknown>) =>
      Object.fromEntries(Object.entries(answer).filter(([member]) => !varies.includes(member)));
    const answers = await Promise.all([call(), call()]);
    seen[name] = answers[0];
    if (name === 'drain') t.strictSame(answers[1], answers[0], 'one drain');
    answers.push(await call());
    if (name === 'deleteSnapshot') await untilDone();
    await daemon.kill('SIGKILL');
    daemon = await host.startDaemon(config);
    answers.push(await call());
    const [first = {}, ...others] = answers.map(fixed);
    for (const other of others) t.strictSame(other, first);
  });
}

const untilDone = () =>
  poll('the snapshot to be deleted', 60_000, async () => {
    const { jobId } = seen.deleteSnapshot as { jobId: string };
    return (await verb(daemon, 'getJob', { jobId })).state !== 'running';
  });

t.test('one deed each, and nothing left of it; an ended id is not made again', async (t) => {
  t.strictSame(await remains(host), []);
  t.strictSame(await checkpointsOf(host, 'vm'), []);
  t.equal((await host.virsh('snapshot-list', 'vm', '--name')).trim(), '');
  for (const step of steps) {
    if (!['prepareBackupDisk', 'mountDisk', 'startBackup', 'createSnapshot'].includes(step.name)) continue;
    const failure = await failureOf(daemon.call(step.name, step.params()));
    t.equal(failure.data.name, 'AlreadyExists', step.name);
  }
});
