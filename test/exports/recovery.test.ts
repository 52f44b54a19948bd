/** The start after a crash: what is refused until the host agrees with the records, and what no record names. Needs root. */
import { writeFileSync } from 'node:fs';
import t from 'tap';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { poll } from '../host/poll.js';
import { checkpointsOf, jobOf, pausedHost, records, remains, startBackup } from '../points-in-time/rig.js';
import { failureOf, MiB, prepare, readRecord, recordFiles, verb, writeRecord } from './rig.js';

t.setTimeout(600_000);

let config: DaemonConfig;
let host: Host;
let daemon: DaemonHandle;
let image = '';

t.before(async () => {
  ({ host, image, config, daemon } = await pausedHost(t, ['one', 'two']));
});

const byPath = (exportId: string) => prepare(daemon, { exportId, path: image, format: 'qcow2' });
const tearDown = (exportId: string, force = false) => verb(daemon, 'teardownBackupDisk', { exportId, force });
const stateOfHost = async () => (await verb(daemon, 'getHostInfo', {})).state;
const untilReady = () => poll('the recovery', 60_000, async () => (await stateOfHost()) === 'ready');
const signal = (name: string, pid: number) => host.must('kill', [`-${name}`, String(pid)]);

async function pidOf(comm: RegExp, argument: string): Promise<number> {
  const found = (await host.processes()).find(
    (process) => comm.test(process.comm) && process.args.some((arg) => arg.includes(argument)),
  );
  if (found === undefined) throw new Error(`no process ${comm} with ${argument}`);
  return found.pid;
}

/** A backup of `one` that is being ended when its QEMU stops answering. */
async function endingForEver(backupId: string, checkpoint?: string) {
  const disks = [{ disk: 'vda' }];
  await startBackup(daemon, {
    backupId,
    vmId: 'one',
    disks,
    ...(checkpoint !== undefined && { checkpoint }),
  });
  const qemu = await pidOf(/^qemu-system/, 'guest=one');
  await signal('STOP', qemu);
  const ending = verb(daemon, 'stopBackup', { backupId, outcome: 'failed' }).catch(() => {});
  await poll('the end to be written down', 10_000, () =>
    records(host, 'backups').some((record) => record.backupId === backupId && record.state === 'ending'),
  );
  return { qemu, ending };
}

t.test('verbs are refused until it is over, and what this host is has an answer', async (t) => {
  await byPath('closing');
  const nbd = await pidOf(/^qemu-nbd/, '--export-name=closing');
  await signal('STOP', nbd);
  const lost = tearDown('closing').catch((error: Error) => error);
  await poll('the teardown to begin', 10_000, () => readRecord(host, 'closing').state === 'closing');
  await daemon.kill('SIGKILL');
  await lost;
  daemon = await host.startDaemon(config, { awaitRecovery: false });
  t.equal(await stateOfHost(), 'recovering');
  for (const call of [() => byPath('early'), () => verb(daemon, 'listExports', {})]) {
    const failure = await failureOf(call());
    t.match(failure, {
      code: 99,
      message: /has just started.*try again in a moment\.$/,
      data: { name: 'RecoveryInProgress', retryable: true },
    });
  }
  await untilReady();
  t.strictSame(await remains(host), []);
  await byPath('early');
  await tearDown('early');
});

t.test(
  'drives, servers and backup jobs whose records are lost are removed; others are let alone',
  async (t) => {
    const lost = await byPath('lost');
    const kept = await byPath('kept');
    for (const { drive } of [lost, kept]) await verb(daemon, 'hotplugDisk', { vmId: 'one', drive });
    const disks = [{ disk: 'vda' }];
    await startBackup(daemon, { backupId: 'lost', vmId: 'two', disks });
    await startBackup(daemon, { backupId: 'kept', vmId: 'one', disks });
    for (const exportId of ['lost-layer', 'kept-layer'])
      await verb(daemon, 'mountDisk', {
        ...{ exportId, path: image, format: 'qcow2', access: 'scratch', as: 'file' },
      });
    await daemon.kill('SIGKILL');
    for (const exportId of ['lost', 'lost-layer']) writeRecord(host, exportId, 'torn');
    writeFileSync(host.path('/var/lib/vmdiskd/backups/lost.json'), '{');
    daemon = await host.startDaemon(config);
    t.match(daemon.log(), /unplugged a drive that no record names/);
    const xml = await host.virsh('dumpxml', 'one');
    t.notMatch(xml, lost.drive.serial);
    t.match(xml, kept.drive.serial);
    t.equal(await jobOf(host, 'two'), '', 'the job is ended');
    t.match(await jobOf(host, 'one'), /backups\/kept\/nbd\.sock/);
    const left = (await host.leftovers()).join('\n');
    t.notMatch(left, /exports\/lost/, 'no server, no mount, no file');
    t.match(left, /mount \/run\/vmdiskd\/exports\/kept-layer\/disk/);
    await verb(daemon, 'unmountDisk', { exportId: 'kept-layer' });
    await tearDown('kept', true);
    await verb(daemon, 'stopBackup', { backupId: 'kept' });
    const aside = [...recordFiles(host).map((name) => `exports/${name}`), 'backups/lost.json.*'].filter(
      (name) => /unreadable|\*/.test(name),
    );
    await host.must('sh', ['-c', aside.map((name) => `rm /var/lib/vmdiskd/${name}`).join(';')]);
    t.strictSame(await remains(host), []);
  },
);

t.test('a persistent drive whose record is lost is taken out of a VM that is off', async (t) => {
  const lost = await byPath('gone');
  const kept = await byPath('stays');
  const other = `<disk type='network' device='disk'><source protocol='nbd' name='x'><host name='192.0.2.9'/></source><target dev='vdz' bus='virtio'/><alias name='ua-others-drive'/></disk>`;
  writeFileSync(host.path('/run/other.xml'), other);
  await host.virsh('attach-device', 'one', '/run/other.xml', '--config');
  for (const { drive } of [lost, kept]) {
    await verb(daemon, 'hotplugDisk', { vmId: 'one', drive, persistent: true });
  }
  await host.virsh('destroy', 'one');
  await daemon.kill('SIGKILL');
  writeRecord(host, 'gone', 'torn');
  daemon = await host.startDaemon(config);
  const xml = await host.virsh('dumpxml', 'one');
  t.notMatch(xml, lost.drive.serial);
  t.match(xml, kept.drive.serial, 'one on record stays');
  t.match(xml, 'ua-others-drive', 'so does what is not ours');
  t.match(daemon.log(), /unplugged a drive that no record names/);
  await tearDown('stays', true);
  t.notMatch(await host.virsh('dumpxml', 'one'), kept.drive.serial);
  await host.virsh('detach-device', 'one', '/run/other.xml', '--config');
  await host.virsh('start', '--paused', 'one');
  for (const name of recordFiles(host).filter((name) => /unreadable/.test(name))) {
    await host.must('rm', [`/var/lib/vmdiskd/exports/${name}`]);
  }
  t.strictSame(await remains(host), []);
});

t.test('a drive that libvirt plugs in after its answer was given up is taken out again', async (t) => {
  const { drive } = await byPath('late');
  await daemon.kill();
  daemon = await host.startDaemon({
    limits: { deadlineSeconds: { hotplugDisk: 1 }, stateSeconds: { detach: 1 } },
  });
  const qemu = await pidOf(/^qemu-system/, 'guest=one');
  await signal('STOP', qemu);
  const failure = await failureOf(verb(daemon, 'hotplugDisk', { vmId: 'one', drive }));
  t.equal(failure.data.name, 'Timeout');
  await signal('CONT', qemu);
  await poll('record and VM to agree', 90_000, async () => {
    const inVm = (await host.virsh('dumpxml', 'one')).includes(drive.serial);
    const { attachedTo } = await verb(daemon, 'getExport', { exportId: 'late' });
    return inVm === attachedTo.length > 0;
  });
  await tearDown('late', true);
  await daemon.kill();
  daemon = await host.startDaemon(config);
  t.strictSame(await remains(host), []);
});

t.test(
  'without libvirt the start is not held up; what was half-way is finished when it is back',
  async (t) => {
    const { qemu, ending } = await endingForEver('half', 'c');
    await daemon.kill('SIGKILL');
    await ending;
    await host.killLibvirtd('SIGKILL');
    await signal('CONT', qemu);
    daemon = await host.startDaemon(config);
    t.equal(await stateOfHost(), 'ready');
    await byPath('anyway').catch(() => {}); // who owns the file cannot be asked: refused, or made
    await host.startLibvirtd();
    await poll('the backup to be taken back', 60_000, async () => (await remains(host)).length === 0);
    t.strictSame(await checkpointsOf(host, 'one'), []);
    t.strictSame(await verb(daemon, 'stopBackup', { backupId: 'half' }), {
      backupId: 'half',
      checkpoint: { id: 'c', state: 'deleted' },
    });
    t.strictSame(await remains(host), []);
  },
);

t.test('a QEMU that hangs holds up its own VM alone, at the start and later', async (t) => {
  await daemon.kill();
  const short: DaemonConfig = {
    limits: {
      scratchReserve: MiB,
      stateSeconds: { recovery: 3, halfWay: 5 },
      deadlineSeconds: { startBackup: 20 },
    },
  };
  daemon = await host.startDaemon(short);
  const disks = [{ disk: 'vda' }];
  const { qemu, ending } = await endingForEver('hung');
  await daemon.kill('SIGKILL');
  await ending;
  daemon = await host.startDaemon(short);
  t.match(daemon.log(), /could not be brought in order yet/, 'its recovery has run out of time');

  const many = ['listCheckpoints', 'listDisks', 'listSnapshots', 'listCheckpoints', 'listDisks'].map((name) =>
    daemon.call(name, { vmId: 'one' }).catch((error: unknown) => error),
  );
  many.push(startBackup(daemon, { backupId: 'hung-2', vmId: 'one', disks }).catch((error: unknown) => error));
  const made = await prepare(daemon, { exportId: 'free', vmId: 'two', disk: 'vda', checkpoint: 'free' });
  await verb(daemon, 'listDisks', { vmId: 'two' });
  const { drive } = await byPath('free-2');
  await verb(daemon, 'hotplugDisk', { vmId: 'two', drive });
  await verb(daemon, 'hotunplugDisk', { vmId: 'two', drive });
  await tearDown('free-2');
  t.match(
    await verb(daemon, 'teardownBackupDisk', { exportId: made.exportId, outcome: 'success' }),
    { checkpoint: { state: 'kept' } },
    'a whole backup of the other VM',
  );
  await signal('CONT', qemu);
  await Promise.all(many);
  await verb(daemon, 'stopBackup', { backupId: 'hung-2' }).catch(() => {});
  await poll('all to be taken back', 90_000, async () => (await remains(host)).length === 0);
});
