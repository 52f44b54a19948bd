/** Leases of exports and backups: kept, renewed, ended by themselves, whatever the clock and the daemon do. Needs root. */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { poll } from '../host/poll.js';
import { checkpointsOf, pausedHost, remains, startBackup } from '../points-in-time/rig.js';
import { failureOf, MiB, prepare, readRecord, refused, verb } from './rig.js';

t.setTimeout(600_000);

let config: DaemonConfig;
let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  ({ host, image, config, daemon } = await pausedHost(t, ['vm']));
});

const byPath = (exportId: string, leaseSeconds?: number) =>
  prepare(daemon, {
    exportId,
    path: image,
    format: 'qcow2',
    ...(leaseSeconds !== undefined && { leaseSeconds }),
  });
const renew = (exportId: string, leaseSeconds: number) =>
  verb(daemon, 'renewExport', { exportId, leaseSeconds });
const isLive = async (exportId: string) =>
  (await verb(daemon, 'listExports', {})).exports.some((row) => row.exportId === exportId);
const untilGone = (exportId: string) =>
  poll(`${exportId} to be gone`, 60_000, async () => !(await isLive(exportId)));

t.test('an export that nobody renews is torn down, and not made again by a late retry', async (t) => {
  const before = Date.now();
  const { next } = await verb(daemon, 'waitEvents', { timeoutSeconds: 0 });
  const made = await byPath('short', 1);
  t.equal(made.lease?.seconds, 1);
  t.ok(Date.parse(made.lease?.expires ?? '') >= before + 1000);
  await untilGone('short');
  t.strictSame(await remains(host), []);
  const { events } = await verb(daemon, 'waitEvents', { after: next });
  t.match(events, [
    { kind: 'exportReady', exportId: 'short' },
    { kind: 'leaseExpired', exportId: 'short', backupId: null, owner: 'unix' },
    { kind: 'exportClosed', exportId: 'short', outcome: 'failed' },
  ]);
  await refused(t, host, 'AlreadyExists', () => byPath('short', 1), /within the last hour/);
  t.strictSame(await verb(daemon, 'teardownBackupDisk', { exportId: 'short' }), {
    exportId: 'short',
    checkpoint: null,
  });
  await refused(t, host, 'NoSuchExport', () => renew('short', 60), /any more: it was torn down/);
});

t.test('renewed it lives on; its retries and rows show the lease that it has', async (t) => {
  const made = await byPath('kept', 2);
  const { lease } = await renew('kept', 600);
  t.equal(lease.seconds, 600);
  await sleep(3500);
  t.ok(await isLive('kept'), 'after the first lease');
  t.strictSame((await verb(daemon, 'getExport', { exportId: 'kept' })).lease, lease);
  t.strictSame(await byPath('kept', 2), { ...made, lease }, 'the same call');
  const other = await failureOf(byPath('kept', 3));
  t.equal(other.data.name, 'AlreadyExists', 'another lease is another call');
  await renew('kept', 1);
  await untilGone('kept');
  t.strictSame(await remains(host), []);
});

t.test('without a lease it stays, until it gets one', async (t) => {
  t.equal((await byPath('plain')).lease, null);
  t.equal((await verb(daemon, 'getExport', { exportId: 'plain' })).lease, null);
  await renew('plain', 1);
  await untilGone('plain');
});

t.test('a drive that is plugged in is taken out first; the pending checkpoint is deleted', async (t) => {
  const made = await prepare(daemon, { exportId: 'plugged', path: image, format: 'qcow2' });
  await verb(daemon, 'hotplugDisk', { vmId: 'vm', drive: made.drive });
  await renew('plugged', 1);
  await untilGone('plugged');
  t.notMatch(await host.virsh('dumpxml', 'vm'), made.drive.serial);

  await prepare(daemon, { exportId: 'live', vmId: 'vm', disk: 'vda', checkpoint: 'c', leaseSeconds: 1 });
  await untilGone('live');
  t.strictSame(await checkpointsOf(host, 'vm'), []);
  t.strictSame(await remains(host), []);
});

t.test('a backup ends with its exports; their leases are their own', async (t) => {
  const params = { backupId: 'b', vmId: 'vm', disks: [{ disk: 'vda' }], checkpoint: 'b', leaseSeconds: 3 };
  const made = await startBackup(daemon, params);
  t.equal(made.lease?.seconds, 3);
  await prepare(daemon, { exportId: 'b-vda', vmId: 'vm', disk: 'vda', backupId: 'b', leaseSeconds: 1 });
  await untilGone('b-vda');
  const { lease } = await verb(daemon, 'renewBackup', { backupId: 'b', leaseSeconds: 600 });
  t.match(await verb(daemon, 'listBackups', {}), { backups: [{ backupId: 'b', lease }] });
  t.strictSame(await startBackup(daemon, params), { ...made, lease }, 'the same call');
  await prepare(daemon, { exportId: 'b-2', vmId: 'vm', disk: 'vda', backupId: 'b' });
  await verb(daemon, 'renewBackup', { backupId: 'b', leaseSeconds: 1 });
  await untilGone('b-2');
  await poll('the backup to be gone', 60_000, async () => {
    return (await verb(daemon, 'listBackups', {})).backups.length === 0;
  });
  t.strictSame(await checkpointsOf(host, 'vm'), []);
  t.strictSame(await remains(host), []);
  const late = await failureOf(verb(daemon, 'renewBackup', { backupId: 'b', leaseSeconds: 1 }));
  t.match(late, { message: /any more: it has ended/, data: { name: 'NoSuchBackup' } });
});

t.test('time that passes while no daemon runs counts', async (t) => {
  await byPath('down', 3);
  await byPath('up', 600);
  await daemon.kill('SIGKILL');
  await sleep(3500);
  daemon = await host.startDaemon(config);
  await untilGone('down');
  t.ok(await isLive('up'));
  await verb(daemon, 'teardownBackupDisk', { exportId: 'up' });
  t.strictSame(await remains(host), []);
});

/** The machine's clock is not the test's to set: the daemon is told another time, by what /run/clock says in ms. */
const SHIFTED = `data:text/javascript,${encodeURIComponent(`
import { readFileSync } from 'node:fs';
const Real = Date;
const now = () => Real.now() + Number(readFileSync('/run/clock', 'utf8'));
globalThis.Date = class extends Real {
  constructor(...of) { if (of.length > 0) super(...of); else super(now()); }
  static now() { return now(); }
};`)}`;
const DAY = 86_400_000;

t.test('a clock that is set forward or back ends no lease early, and keeps none for longer', async (t) => {
  const setClock = (ms: number) => writeFileSync(host.path('/run/clock'), String(ms));
  const start = () => host.startDaemon(config, { nodeArgs: ['--import', SHIFTED] });
  await daemon.kill();
  setClock(0);
  daemon = await start();
  await byPath('long', 600);
  await byPath('brief', 8);
  setClock(DAY);
  await sleep(2500);
  t.ok((await isLive('long')) && (await isLive('brief')), 'a day later by the clock');
  const shown = Date.parse((await verb(daemon, 'getExport', { exportId: 'long' })).lease?.expires ?? '');
  t.ok(Math.abs(shown - Date.now() - DAY) < 600_000, 'shown by the clock as it is set now');
  setClock(-DAY);
  await untilGone('brief');
  await daemon.kill('SIGKILL');
  setClock(DAY);
  daemon = await start();
  await sleep(1500);
  t.ok(await isLive('long'), 'set while no daemon ran');
  await renew('long', 1);
  await untilGone('long');
  await daemon.kill();
  daemon = await host.startDaemon(config);
  t.strictSame(await remains(host), []);
});

t.test('where the host has a longest lease, nothing is without one', async (t) => {
  await daemon.kill();
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB, maxLease: 60 } });
  t.equal((await verb(daemon, 'getHostInfo', {})).limits.maxLease, 60);
  const made = await byPath('most');
  t.equal(made.lease?.seconds, 60);
  t.strictSame(await byPath('most', 60), made, 'the default, said');
  for (const call of [() => byPath('more', 61), () => renew('most', 61)]) {
    t.match(await failureOf(call()), { code: -32602, message: /leaseSeconds must be at most 60/ });
  }
  t.equal(
    (await startBackup(daemon, { backupId: 'm', vmId: 'vm', disks: [{ disk: 'vda' }] })).lease?.seconds,
    60,
  );
  await verb(daemon, 'stopBackup', { backupId: 'm' });
  await verb(daemon, 'teardownBackupDisk', { exportId: 'most' });
  t.strictSame(await remains(host), []);
});

t.test(
  'a server that dies keeps its lease: the failed export is cleared away, and not renewed',
  async (t) => {
    await byPath('dead', 6);
    const { process } = (readRecord(host, 'dead') as { server: { process: { identity: { pid: number } } } })
      .server;
    await host.must('kill', ['-9', String(process.identity.pid)]);
    await poll('it to fail', 10_000, async () => {
      return (await verb(daemon, 'getExport', { exportId: 'dead' })).state === 'failed';
    });
    await refused(t, host, 'ExportFailed', () => renew('dead', 50), /qemu-nbd has died/);
    await untilGone('dead');
    t.strictSame(await remains(host), []);
  },
);
