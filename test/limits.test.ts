/** Every limit of the daemon, reached: told by name, and what this host is has an answer all the while. Needs root. */
import t, { type Test } from 'tap';
import { defineVm, failureOf, MiB, prepare, remains, verb } from './exports/rig.js';
import type { DaemonHandle } from './host/daemon.js';
import { type Host, startHost } from './host/host.js';
import { smallImage, startBackup, virtio } from './points-in-time/rig.js';
import { LineClient } from './rpc/line-client.js';

t.setTimeout(600_000);

let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  host = await startHost(t);
  image = await smallImage({ host, name: 'image.qcow2' });
  const disks = [virtio('vda', await smallImage({ host, name: 'a.qcow2' }))];
  await defineVm(host, { name: 'vm', disks });
});

async function restart(limits: object): Promise<void> {
  await daemon?.kill();
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, ...limits } });
}
const byPath = (exportId: string) => prepare(daemon, { exportId, path: image, format: 'qcow2' });
const ofVm = (exportId: string) => prepare(daemon, { exportId, vmId: 'vm', disk: 'vda' });
const tearDown = (exportId: string) => verb(daemon, 'teardownBackupDisk', { exportId });

/** A further client, which comes when the limit is reached, asks and is told. The patience is a busy machine's. */
async function isAnswered(t: Test): Promise<void> {
  const another = await LineClient.connect(host.daemonSocket);
  const asked = performance.now();
  const answer = await another.call('getHostInfo');
  t.match(answer.result, { state: 'ready' }, 'getHostInfo');
  t.comment(`getHostInfo took ${Math.round(performance.now() - asked)} ms`);
  another.destroy();
}

t.test('exports of the host, and of a VM', async (t) => {
  await restart({ exports: 3, exportsPerVm: 1 });
  const { limits } = await verb(daemon, 'getHostInfo', {});
  t.match(limits, { exports: 3, exportsPerVm: 1, scratchReserve: MiB });
  const results = await Promise.allSettled([ofVm('v1'), ofVm('v2'), ofVm('v3')]);
  const refused = results.filter((one) => one.status === 'rejected').map(({ reason }) => reason);
  t.equal(refused.length, 2, 'also when they come at once');
  for (const { message, data } of refused) {
    t.match(data, { name: 'LimitReached', retryable: true });
    t.match(
      message,
      /^The VM has 1 exports, which is the limit of one; tear some down, or raise \[limits\] exportsPerVm\.$/,
    );
  }
  await byPath('p1');
  await byPath('p2');
  t.match((await failureOf(byPath('p3'))).message, /^This host has 3 exports.*raise \[limits\] exports\.$/);
  await isAnswered(t);
  for (const id of ['v1', 'v2', 'v3', 'p1', 'p2', 'p3']) await tearDown(id);
  await byPath('p4');
  await tearDown('p4');
  t.strictSame(await remains(host), []);
});

t.test('clients, verbs at work, the size of a message and of a batch', async (t) => {
  await restart({ clients: 2, verbs: 1, frameBytes: 4096, batch: 2 });
  const second = await daemon.connect();
  const guest = await LineClient.connect(host.daemonSocket);
  const told = await guest.call('listExports');
  t.match(told.error, { code: 5018, message: /2 clients are connected/ });
  await isAnswered(t);
  second.close();

  await host.killLibvirtd('SIGSTOP');
  const atWork = verb(daemon, 'listDisks', { vmId: 'vm' });
  t.match((await failureOf(verb(daemon, 'listExports', {}))).message, /1 verbs are at work/);
  await isAnswered(t);
  await host.killLibvirtd('SIGCONT');
  await atWork;

  const long = await LineClient.connect(host.daemonSocket);
  long.sendMessage({ jsonrpc: '2.0', id: 1, method: 'getHostInfo', params: { x: 'y'.repeat(5000) } });
  t.match(await long.untilEnd(), [{ error: { code: -32600, message: /at most 4096 bytes/ } }]);
  const batch = await LineClient.connect(host.daemonSocket);
  const call = (id: number) => ({ jsonrpc: '2.0', id, method: 'getHostInfo' });
  batch.sendMessage([call(1), call(2), call(3)]);
  t.match(await batch.next(), { error: { code: -32600, message: /at most 2 calls/ } });
  batch.sendMessage([call(1), call(2)]);
  t.ok(Array.isArray(await batch.next()));
  batch.destroy();
});

t.test('scratch space', async (t) => {
  await host.virsh('start', '--paused', 'vm');
  await restart({ scratchReserve: Number.MAX_SAFE_INTEGER });
  const failure = await failureOf(
    startBackup(daemon, { backupId: 'b', vmId: 'vm', disks: [{ disk: 'vda' }] }),
  );
  t.match(failure.data, { name: 'ScratchFull', retryable: true });
  t.match(
    failure.message,
    /^Only \d+ bytes are free in \S+, and a backup wants \d+ to begin with; make room/,
  );
  await isAnswered(t);
  t.strictSame(await remains(host), []);
});
