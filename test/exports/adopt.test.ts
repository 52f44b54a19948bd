/** Exports over restarts and crashes: of the daemon, of libvirtd, of the whole host. Needs root. */
import { mkdirSync, statSync } from 'node:fs';
import t from 'tap';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, type HostProcess, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  defineVm,
  MiB,
  prepare,
  readRecord,
  recordFiles,
  refused,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
  wholeMap,
  writeRecord,
} from './rig.js';

t.setTimeout(600_000);

const SIZE = 16 * MiB;
let host: Host;
let daemon: DaemonHandle;
let image = '';
let content = '';

t.before(async () => {
  host = await startHost(t);
  image = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: SIZE });
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 2M', image]);
  await host.must('qemu-img', ['bitmap', '--add', image, 'b']);
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 8M 64k', image]);
  content = await sha256OfImage(host, image, 'qcow2');
  const disk = await host.createImage({ name: 'vm.qcow2', format: 'qcow2', size: MiB });
  // Never booted: virtio-scsi disks come and go without a guest's help.
  await defineVm(host, {
    name: 'vm',
    disks: [{ target: 'vda', path: disk, format: 'qcow2' }],
    devicesXml: "<controller type='scsi' index='0' model='virtio-scsi'/>",
  });
  daemon = await host.startDaemon();
});

const made = (exportId: string) =>
  prepare(daemon, { exportId, path: image, format: 'qcow2', since: { bitmap: 'b' } });
const plug = (drive: Awaited<ReturnType<typeof made>>['drive']) =>
  verb(daemon, 'hotplugDisk', { vmId: 'vm', drive });
const tearDown = (exportId: string, force = false) => verb(daemon, 'teardownBackupDisk', { exportId, force });
const row = (exportId: string) => verb(daemon, 'getExport', { exportId });
const startVm = () => host.virsh('start', 'vm', '--paused');

async function processOf(exportId: string): Promise<HostProcess> {
  const all = await host.processes();
  const found = all.find(
    ({ comm, args }) => comm === 'qemu-nbd' && args.includes(`--export-name=${exportId}`),
  );
  if (found === undefined) throw new Error(`no qemu-nbd serves ${exportId}`);
  return found;
}

async function qemuPid(): Promise<number> {
  const qemu = (await host.processes()).find(({ comm }) => comm.startsWith('qemu-system'));
  if (qemu === undefined) throw new Error('no VM runs');
  return qemu.pid;
}

const signal = (name: string, pid: number) => host.must('kill', [`-${name}`, String(pid)]);

async function restart(how: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  await daemon.kill(how);
  daemon = await host.startDaemon();
}

for (const how of ['SIGTERM', 'SIGKILL'] as const) {
  t.test(`${how} with an export open, read and plugged in: the next daemon has it as it was`, async (t) => {
    const one = await made(how);
    await startVm();
    const plugged = await plug(one.drive);
    const before = await row(how);
    const map = await wholeMap(daemon, { exportId: how, maxExtents: 2 });
    const reader = host.must('nbdsh', [
      ...['-u', one.uri, '-c'],
      `
import os, time
before = h.pread(65536, ${MiB})
open("/run/reading-${how}", "w").close()
while not os.path.exists("/run/restarted-${how}"): time.sleep(0.02)
print(before == h.pread(65536, 2 * ${MiB}) == bytes([7]) * 65536)
`,
    ]);
    await poll('the reader', 30_000, () => exists(`/run/reading-${how}`));
    const server = await processOf(how);
    await restart(how);
    await host.must('touch', [`/run/restarted-${how}`]);
    t.equal((await reader).trim(), 'True', 'the reader has not noticed');
    t.equal((await processOf(how)).pid, server.pid);
    t.strictSame(await row(how), before);
    t.strictSame(await made(how), one, 'the same call, the same answer');
    t.strictSame(await plug(one.drive), plugged);
    t.strictSame(await wholeMap(daemon, { exportId: how, maxExtents: 2 }), map);
    t.equal(await sha256OfExport(host, one.uri), content);
    await refused(t, host, 'ExportInUse', () => tearDown(how), /plugged into vm as sda/);
    t.equal((await verb(daemon, 'hotunplugDisk', { vmId: 'vm', drive: one.drive })).target, 'sda');
    await tearDown(how);
    await host.virsh('destroy', 'vm');
    t.strictSame(await remains(host), []);
    await restart(how);
    await refused(t, host, 'AlreadyExists', () => made(how), /within the last hour/, { exportId: how });
  });
}

const exists = (inside: string): boolean =>
  statSync(host.path(inside), { throwIfNoEntry: false }) !== undefined;

t.test('what happened while no daemon ran is seen at its start', async (t) => {
  const [gone, dead, fine] = await Promise.all([made('gone'), made('dead'), made('fine')]);
  await startVm();
  await plug(gone.drive);
  await daemon.kill('SIGKILL');
  await host.virsh('destroy', 'vm');
  await signal('KILL', (await processOf('dead')).pid);
  daemon = await host.startDaemon();
  t.match(await row('dead'), {
    state: 'failed',
    error: { name: 'ExportFailed', message: /qemu-nbd has died/ },
  });
  await poll('the VM to be forgotten', 10_000, async () => (await row('gone')).attachedTo.length === 0);
  const mode = () => statSync(host.path('/run/vmdiskd/exports/gone/nbd.sock')).mode & 0o777;
  await poll("QEMU's way in to be closed", 10_000, () => mode() === 0o600);
  t.equal((await row('fine')).state, 'ready');
  t.equal(await sha256OfExport(host, fine.uri), content);
  await refused(t, host, 'ExportFailed', () => made('dead'), /qemu-nbd has died.*prepare a new one/, {
    exportId: 'dead',
  });
  await refused(t, host, 'ExportFailed', () => plug(dead.drive), /prepare a new one/);
  for (const id of ['gone', 'dead', 'fine']) await tearDown(id);
  t.strictSame(await remains(host), []);
});

t.test('killed half-way: an export that was being made, and one that was being torn down', async (t) => {
  // A qemu-nbd that never gets ready: it waits for a writer of a FIFO. A confined program sees libraries and no shell, so
  // that these lie among the libraries for a while.
  const slow = '#!/usr/lib/apt/busybox sh\nread _ </usr/lib/apt/never\n';
  const make = 'mkdir /run/slow; cd /run/slow; mkfifo never; cp /bin/busybox .; cat >slow; chmod 755 slow';
  await host.must('sh', ['-c', make], { input: slow });
  await host.must('mount', ['--bind', '/run/slow', '/usr/lib/apt']);
  await host.must('mount', ['--bind', '/run/slow/slow', '/usr/bin/qemu-nbd']);
  const lost = made('half').catch((error: Error) => error);
  const waits = async () => (await host.processes()).some(({ comm }) => comm === 'qemu-nbd');
  await poll('its server to start', 30_000, waits);
  t.match(readRecord(host, 'half'), { state: 'starting', server: null });
  await daemon.kill('SIGKILL');
  t.match(await lost, { message: /closed|reset/i });
  await host.must('umount', ['--lazy', '/usr/bin/qemu-nbd', '/usr/lib/apt']);
  t.ok(await waits(), 'the server outlives the daemon');
  daemon = await host.startDaemon();
  t.notOk(await waits(), 'and is found again by its name alone');
  t.strictSame(await remains(host), []);
  t.equal((await made('half')).exportId, 'half', 'nobody had an answer: the retry makes it');

  const { pid } = await processOf('half');
  await signal('STOP', pid);
  const ending = tearDown('half').catch((error: Error) => error);
  await poll('the teardown to begin', 10_000, () => readRecord(host, 'half').state === 'closing');
  await daemon.kill('SIGKILL');
  await ending;
  t.equal((await processOf('half')).pid, pid, 'its server hangs');
  daemon = await host.startDaemon();
  t.strictSame(await remains(host), [], 'the next daemon ends it');
  t.strictSame(await tearDown('half'), { exportId: 'half', checkpoint: null });
  t.equal(readRecord(host, 'half').state, 'ended');
});

t.test('killed while libvirt plugs a drive in: the next daemon knows of it', async (t) => {
  const one = await made('plugging');
  await startVm();
  const qemu = await qemuPid();
  await signal('STOP', qemu);
  const lost = plug(one.drive).catch((error: Error) => error);
  const attachments = () => readRecord(host, 'plugging').attachments as { state: string }[];
  await poll('the attachment to be written down', 10_000, () => attachments().length === 1);
  t.equal(attachments()[0]?.state, 'attaching');
  await daemon.kill('SIGKILL');
  await lost;
  await signal('CONT', qemu);
  daemon = await host.startDaemon();
  // libvirt has had the request, or has not: either way record and VM agree, and the same call gives the drive.
  const plugged = await plug(one.drive);
  t.equal(plugged.target, 'sda');
  t.match(await host.virsh('dumpxml', 'vm'), one.drive.serial);
  t.strictSame((await row('plugging')).attachedTo, [{ vmId: plugged.vmId, target: 'sda' }]);
  await tearDown('plugging', true);
  t.notMatch(await host.virsh('dumpxml', 'vm'), one.drive.serial);
  await host.virsh('destroy', 'vm');
  t.strictSame(await remains(host), []);
});

t.test('records that cannot be read are set aside; one of a newer program stops the start', async (t) => {
  await made('torn');
  await made('whole');
  const record = readRecord(host, 'torn');
  await daemon.kill();
  writeRecord(host, 'torn', JSON.stringify(record).slice(0, 200));
  mkdirSync(host.path('/run/vmdiskd/exports/stray'));
  daemon = await host.startDaemon();
  t.strictSame(
    (await verb(daemon, 'listExports', {})).exports.map(({ exportId }) => exportId),
    ['whole'],
  );
  t.match(daemon.log(), /set an unreadable record aside/);
  const aside = recordFiles(host).filter((name) => !name.endsWith('.json'));
  t.match(aside, [/^torn\.json\.unreadable-[0-9a-f]{8}$/]);
  await host.must(
    'rm',
    aside.map((name) => `/var/lib/vmdiskd/exports/${name}`),
  );
  await tearDown('whole');
  t.strictSame(await remains(host), [], 'what no record names is removed: server, socket, directory');

  const guarded = await made('guarded');
  await daemon.kill();
  const current = readRecord(host, 'guarded');
  writeRecord(host, 'guarded', { ...current, version: 99, somethingNew: true });
  const started = await host.startDaemon().catch((error: Error) => error);
  t.match(started, {
    message:
      /guarded\.json was written by a newer vmdiskd \(record version 99, this program knows 1\); start the newer/,
  });
  const refusedStart = await host.run(process.execPath, [
    ...[new URL('../../dist/daemon.js', import.meta.url).pathname, '--config', '/dev/null'],
  ]);
  t.match(refusedStart, { exitCode: 2, stderr: /^vmdiskd: \S*guarded\.json was written by a newer/ });
  t.equal(await sha256OfExport(host, guarded.uri), content, 'the export is served on');
  writeRecord(host, 'guarded', current);
  daemon = await host.startDaemon();
  t.strictSame(await made('guarded'), guarded);
  await tearDown('guarded');
  t.strictSame(await remains(host), []);
});

t.test(
  'libvirtd gone in mid-call: named at once, nothing left, and found again when it is back',
  async (t) => {
    const one = await made('plug');
    await startVm();
    await host.virsh('snapshot-create-as', 'vm', 's', '--disk-only');
    await host.killLibvirtd('SIGSTOP');
    const calls = {
      prepareBackupDisk: { exportId: 'cut', vmId: 'vm', disk: 'vda', snapshotId: 's' },
      hotplugDisk: { vmId: 'vm', drive: one.drive },
      listDisks: { vmId: 'vm' },
    };
    const before = await remains(host);
    const answers = Object.entries(calls).map(([name, params]) =>
      daemon.call(name, params).catch((error: unknown) => error),
    );
    const path = prepare(daemon, { exportId: 'path', path: image, format: 'qcow2' }).catch(
      (error: unknown) => error,
    );
    const info = await verb(daemon, 'getHostInfo', {});
    t.type(info.versions.vmdiskd, 'string', 'who asks what this host is has an answer meanwhile');
    await host.killLibvirtd('SIGKILL');
    for (const failure of [...(await Promise.all(answers)), await path]) {
      const message =
        /^libvirt went away or cannot be reached, so vmdiskd could not .*libvirtd .*runs, then try again\.$/;
      t.match(failure, { code: 5015, message, data: { name: 'LibvirtUnavailable', retryable: true } });
    }
    t.strictSame(await remains(host), before);
    t.strictSame(readRecord(host, 'plug').attachments, []);
    const down = () => prepare(daemon, { exportId: 'down', vmId: 'vm', disk: 'vda' });
    await refused(t, host, 'LibvirtUnavailable', down, /see that libvirtd/);
    t.equal((await verb(daemon, 'getHostInfo', {})).capabilities.libvirt.connected, false);
    t.equal(
      (await verb(daemon, 'getChangedBlocks', { exportId: 'plug' })).nextOffset,
      null,
      'exports live on',
    );
    t.strictSame(await made('plug'), one);

    await host.startLibvirtd();
    await poll('libvirt to be found again', 30_000, async () => {
      return (await verb(daemon, 'getHostInfo', {})).capabilities.libvirt.connected;
    });
    t.match(daemon.log(), /libvirt is gone[\s\S]*libvirt is back/);
    const cut = await prepare(daemon, calls.prepareBackupDisk);
    t.match(cut, { exportId: 'cut', blocksStart: false });
    await plug(one.drive);

    // With the drive in: libvirtd dies, the VM too, and nobody was told.
    await host.killLibvirtd('SIGKILL');
    await signal('KILL', await qemuPid());
    await host.startLibvirtd();
    await poll('the VM to be forgotten', 30_000, async () => (await row('plug')).attachedTo.length === 0);
    await Promise.all(['plug', 'cut'].map((id) => tearDown(id)));
    t.strictSame(await remains(host), []);
  },
);

t.test('libvirtd that hangs: Timeout at the deadline, nothing left', async (t) => {
  const one = await made('slow');
  await daemon.kill();
  daemon = await host.startDaemon({ limits: { deadlineSeconds: { prepareBackupDisk: 2, hotplugDisk: 2 } } });
  await startVm();
  await host.killLibvirtd('SIGSTOP');
  const hung = () => prepare(daemon, { exportId: 'hung', vmId: 'vm', disk: 'vda' });
  await refused(t, host, 'Timeout', hung, /prepareBackupDisk did not finish within 2 s.*may be made again/);
  await refused(t, host, 'Timeout', () => plug(one.drive), /hotplugDisk did not finish within 2 s/);
  await host.killLibvirtd('SIGCONT');

  // A QEMU that hangs, under a libvirtd that does not.
  const qemu = await qemuPid();
  await signal('STOP', qemu);
  const stuck = daemon.call('hotplugDisk', { vmId: 'vm', drive: one.drive }).catch((error: unknown) => error);
  t.match(await stuck, { code: 5016, data: { name: 'Timeout', retryable: true } });
  await signal('CONT', qemu);
  await poll('record and VM to agree', 60_000, async () => {
    const inVm = (await host.virsh('dumpxml', 'vm')).includes(one.drive.serial);
    return (await row('slow')).attachedTo.length === (inVm ? 1 : 0);
  });
  t.match(await plug(one.drive), { target: 'sda' }, 'the same call may be made again');
  await tearDown('slow', true);
  await host.virsh('destroy', 'vm');
  t.strictSame(await remains(host), []);
});

t.test(
  'after a power failure the exports are failed, with the reason, until they are torn down',
  async (t) => {
    const one = await made('power');
    await startVm();
    await plug(one.drive);
    await host.reboot();
    daemon.close();
    daemon = await host.startDaemon();
    t.match(await row('power'), {
      state: 'failed',
      error: { name: 'ExportFailed', message: /qemu-nbd has died/ },
    });
    await poll('the VM to be forgotten', 10_000, async () => (await row('power')).attachedTo.length === 0);
    await tearDown('power');
    t.strictSame(await remains(host), []);
  },
);
