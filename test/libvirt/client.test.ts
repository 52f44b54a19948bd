// The client against a real libvirtd and QEMU on a private host.
import { symlinkSync } from 'node:fs';
import t from 'tap';
import {
  BlockCommitFlag,
  BlockJobAbortFlag,
  BlockJobStatus,
  BlockJobType,
  BlockStat,
  CheckpointDeleteFlag,
  CheckpointListFlag,
  ConnectionLostError,
  connectLibvirt,
  type Domain,
  DomainAffect,
  DomainDefineFlag,
  DomainStartFlag,
  DomainState,
  DomainUndefineFlag,
  DomainXmlFlag,
  ErrorCode,
  ErrorDomain,
  ErrorLevel,
  type EventMessages,
  type EventName,
  findSocket,
  formatVersion,
  isAgentUnavailable,
  isDeviceMissing,
  isNoBackup,
  isNoCheckpoint,
  isNoDomain,
  isNoMetadata,
  isNoSnapshot,
  isOperationInvalid,
  isOperationUnsupported,
  JobOperation,
  JobStat,
  JobType,
  type LibvirtClient,
  LibvirtError,
  LifecycleEvent,
  ListDomainsFlag,
  MetadataType,
  NotConnectedError,
  ShutoffReason,
  SnapshotCreateFlag,
  SnapshotDeleteFlag,
  StoppedDetail,
} from '../../agent/libvirt/index.js';
import { startHost } from '../host/host.js';
import { poll } from '../host/poll.js';

const WAIT_MS = 60_000;

const host = await startHost(t);
const client = connectLibvirt({ socket: host.libvirtSocket });
t.teardown(() => client.close());
await client.ready({ timeoutMs: WAIT_MS });

/** A guest that boots nothing: its firmware runs, and QEMU does all that libvirt asks of it. */
const xmlOf = (name: string, devices = ''): string => `
  <domain type='qemu'>
    <name>${name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='q35'>hvm</type></os>
    <devices>
      <emulator>/usr/bin/qemu-system-x86_64</emulator>
      <controller type='usb' model='none'/><memballoon model='none'/>
      <controller type='scsi' index='0' model='virtio-scsi'/>
      ${devices}
    </devices>
  </domain>`;
const diskXml = (file: string, target: string, alias = ''): string => `
  <disk type='file' device='disk'>
    <driver name='qemu' type='qcow2' discard='unmap'/><source file='${file}'/>
    <target dev='${target}' bus='scsi'/>${alias && `<alias name='${alias}'/>`}
  </disk>`;

/** Collects a kind's events and waits for the one that is meant. */
async function listen<N extends EventName>(on: LibvirtClient, name: N, domain?: Domain) {
  const seen: EventMessages[N][] = [];
  const subscription = on.subscribe(
    name,
    (message) => seen.push(message),
    domain === undefined ? {} : { domain },
  );
  await subscription.registered({ timeoutMs: WAIT_MS });
  return {
    seen,
    close: () => subscription.close(),
    until: (what: string, is: (message: EventMessages[N]) => boolean) =>
      poll(what, WAIT_MS, async () => seen.some(is), 10),
  };
}

t.test('the host', async (t) => {
  t.match(await client.host.getURI(), 'qemu:///system');
  t.equal(await client.host.getHostname(), (await host.must('hostname')).trim());
  const version = (await host.virsh('version', '--daemon')).match(/daemon: ([\d.]+)/)?.[1];
  t.equal(formatVersion(await client.host.getLibVersion()), version);
  const qemu = (await host.must('qemu-system-x86_64', ['--version'])).match(/version ([\d.]+)/)?.[1];
  t.equal(formatVersion(await client.host.getVersion()), qemu);
  t.match(await client.host.getCapabilities(), /<capabilities>/);
  const query = { virtType: 'qemu', arch: 'x86_64', machine: 'q35' };
  t.match(await client.host.getDomainCapabilities(query), /<backup supported='yes'/);
});

t.test('domains: defined, found, listed, described, undefined', async (t) => {
  const defined = await listen(client, 'lifecycle');
  const domain = await client.domains.defineXML(xmlOf('größe-1'), DomainDefineFlag.validate);
  t.match(domain, { name: 'größe-1', id: -1, uuid: /^[0-9a-f-]{36}$/ });
  await defined.until(
    'defined',
    ({ event, domain: { uuid } }) => event === LifecycleEvent.defined && uuid === domain.uuid,
  );
  t.same(await client.domains.lookupByName('größe-1'), domain);
  t.same(await client.domains.lookupByUUID(domain.uuid.toUpperCase()), domain);
  t.same(await client.domains.listAll(), [domain]);
  t.same(await client.domains.listAll(ListDomainsFlag.active), []);
  t.match(await client.domains.getXMLDesc(domain, DomainXmlFlag.inactive), `<uuid>${domain.uuid}</uuid>`);
  t.same(await client.domains.getState(domain), {
    state: DomainState.shutoff,
    reason: ShutoffReason.unknown,
  });
  t.match(await client.domains.getInfo(domain), { state: 5, maxMemoryKiB: 32768, vcpus: 1, cpuTimeNs: 0n });
  t.equal(await client.domains.isPersistent(domain), true);
  t.equal(await client.domains.isActive(domain), false);
  t.equal(await client.domains.isUpdated(domain), false);
  const about = { type: MetadataType.element, uri: 'urn:test', key: 'm' };
  await t.rejects(client.domains.getMetadata(domain, about.type, about.uri), {
    code: ErrorCode.noDomainMetadata,
  });
  await client.domains.setMetadata(domain, { ...about, metadata: "<a b='ü'/>" });
  t.match(await client.domains.getMetadata(domain, about.type, about.uri), /<a b=.(ü|&#xFC;).\/>/);
  await client.domains.setMetadata(
    domain,
    { type: MetadataType.title, metadata: 'A title' },
    DomainAffect.config,
  );
  t.equal(await client.domains.getMetadata(domain, MetadataType.title), 'A title');
  await client.domains.setMetadata(domain, { ...about, metadata: null });
  t.ok(
    isNoMetadata(await client.domains.getMetadata(domain, about.type, about.uri).catch((e: unknown) => e)),
  );
  await client.domains.undefine(domain, DomainUndefineFlag.managedSave);
  t.same(await client.domains.listAll(), []);
  defined.close();
});

t.test('an error has the code, the origin, the level and the words of libvirt', async (t) => {
  const error: unknown = await client.domains.lookupByName('nobody').catch((error: unknown) => error);
  t.ok(error instanceof LibvirtError && isNoDomain(error));
  t.match(error, {
    code: ErrorCode.noDomain,
    domain: ErrorDomain.qemu,
    level: ErrorLevel.error,
    procedure: 'domainLookupByName',
    message: "Domain not found: no domain with matching name 'nobody'",
  });
  t.match(await client.domains.lookupByID(4711).catch((e: unknown) => e), { code: ErrorCode.noDomain });
  t.match(await client.domains.defineXML('<domain>').catch((e: unknown) => e), {
    domain: ErrorDomain.domain,
  });
});

t.test('two hundred calls at once', async (t) => {
  const domain = await client.domains.defineXML(xmlOf('busy'));
  const calls = Array.from({ length: 200 }, (_, i) =>
    i % 2 === 0
      ? client.domains.getXMLDesc(domain)
      : client.domains.lookupByName(`no${i}`).catch((error: Error) => error.message),
  );
  t.ok(client.status.waiting > 100);
  for (const [i, answer] of (await Promise.all(calls)).entries()) {
    if (i % 2 === 0) t.match(answer, /<name>busy<\/name>/);
    else t.match(answer, `'no${i}'`, 'each its own answer');
  }
  t.match(client.status, {
    waiting: 0,
    inFlight: 0,
    ignored: { unknownReplies: 0, lateReplies: 0, events: 0 },
  });
  await client.domains.undefine(domain);
});

t.test('a life: start, suspend, resume, reset, destroy, and the events of it', async (t) => {
  const all = await listen(client, 'lifecycle');
  const reboots = await listen(client, 'reboot');
  const started = await client.domains.createXML(xmlOf('short'), DomainStartFlag.paused);
  t.ok(started.id > 0);
  t.same(await client.domains.lookupByID(started.id), started);
  t.equal(await client.domains.isPersistent(started), false);
  await client.domains.resume(started);
  t.equal((await client.domains.getState(started)).state, DomainState.running);
  await client.domains.suspend(started);
  t.equal((await client.domains.getState(started)).state, DomainState.paused);
  await client.domains.resume(started);
  await client.domains.reset(started);
  await reboots.until('a reboot', ({ domain }) => domain.uuid === started.uuid);
  await client.domains.shutdown(started);
  await client.domains.destroy(started);
  await all.until(
    'the end',
    ({ event, detail }) => event === LifecycleEvent.stopped && detail === StoppedDetail.destroyed,
  );
  const { started: start, suspended, resumed, stopped } = LifecycleEvent;
  const order = all.seen.filter(({ domain }) => domain.uuid === started.uuid).map(({ event }) => event);
  t.same([order[0], order.at(-1)], [start, stopped]);
  for (const event of [suspended, resumed]) t.ok(order.includes(event));
  all.close();
  reboots.close();
});

t.test('devices and disks of a running domain', async (t) => {
  const [a, b, c] = await Promise.all(
    ['a', 'b', 'c'].map((name) =>
      host.createImage({ name: `${name}.qcow2`, format: 'qcow2', size: 4 << 20 }),
    ),
  );
  const defined = await client.domains.defineXML(xmlOf('disks', diskXml(`${a}`, 'sda')));
  const domain = await client.domains.start(defined);
  const added = await listen(client, 'deviceAdded', domain);
  const removed = await listen(client, 'deviceRemoved', domain);
  await listen(client, 'deviceRemovalFailed', domain);
  await client.devices.attach(domain, diskXml(`${b}`, 'sdb', 'ua-second'), DomainAffect.live);
  await added.until('the disk', ({ alias }) => alias === 'ua-second');
  t.match(await client.block.getInfo(domain, 'sdb'), { capacity: 4 << 20, physical: Number });
  await client.devices.detachAlias(domain, 'ua-second');
  await removed.until('the removal', ({ alias }) => alias === 'ua-second');
  t.ok(isDeviceMissing(await client.devices.detach(domain, diskXml(`${b}`, 'sdb')).catch((e: unknown) => e)));
  await t.rejects(client.devices.detachAlias(domain, 'ua-second'), {
    name: 'LibvirtError',
    message: /ua-second/,
  });
  await client.devices.attach(domain, diskXml(`${c}`, 'sdc'));
  const readonly = diskXml(`${c}`, 'sdc').replace('<target', '<readonly/><target');
  t.ok(isOperationUnsupported(await client.devices.update(domain, readonly).catch((e: unknown) => e)));
  await client.devices.detach(domain, diskXml(`${c}`, 'sdc'));
  await removed.until('the other removal', ({ alias }) => alias !== 'ua-second');

  await client.block.resize(domain, 'sda', 6 << 20);
  t.equal((await client.block.getInfo(domain, 'sda')).capacity, 6 << 20);
  t.type((await client.block.getStats(domain, 'sda'))[BlockStat.readBytes], 'number');
  t.same(await client.block.getDiskErrors(domain), []);
  t.equal(await client.block.getJobInfo(domain, 'sda'), null);
  await client.block.setThreshold(domain, 'sda', 1 << 20);
  t.ok(isAgentOrConfig(await client.guest.fsFreeze(domain).catch((e: unknown) => e)));
  t.ok(isAgentOrConfig(await client.guest.fsThaw(domain, ['/']).catch((e: unknown) => e)));
  await client.domains.destroy(domain);
  await client.domains.undefine(domain);
});

/** Without an agent's channel libvirt calls the argument unsupported; with a silent one, the agent unresponsive. */
function isAgentOrConfig(error: unknown): boolean {
  return isAgentUnavailable(error) || isOperationUnsupported(error);
}

t.test('checkpoints, a pull-mode backup, a snapshot and its merge', async (t) => {
  const path = await host.createImage({ name: 'tracked.qcow2', format: 'qcow2', size: 8 << 20 });
  const domain = await client.domains.start(
    await client.domains.defineXML(xmlOf('tracked', diskXml(path, 'sda'))),
  );
  const cp = (name: string): string =>
    `<domaincheckpoint><name>${name}</name><disks><disk name='sda' checkpoint='bitmap'/></disks></domaincheckpoint>`;
  const first = await client.checkpoints.create(domain, cp('monday'));
  t.match(first, { name: 'monday', domain: { uuid: domain.uuid } });

  t.ok(isNoBackup(await client.backup.getXMLDesc(domain).catch((e: unknown) => e)));
  t.match(await client.jobs.getInfo(domain), { type: JobType.none });
  const completed = await listen(client, 'jobCompleted', domain);
  const socket = '/var/lib/libvirt/qemu/backup.sock';
  const backupXml = `
    <domainbackup mode='pull'><incremental>monday</incremental><server transport='unix' socket='${socket}'/>
      <disks><disk name='sda' backup='yes' type='file'><scratch file='/var/lib/libvirt/images/scratch'/></disk></disks>
    </domainbackup>`;
  await client.backup.begin(domain, backupXml, cp('tuesday'));
  t.match(await client.backup.getXMLDesc(domain), socket);
  t.match(await client.jobs.getInfo(domain), { type: JobType.unbounded });
  const running = await client.jobs.getStats(domain);
  t.equal(running.params[JobStat.operation], JobOperation.backup);
  t.type(running.params[JobStat.diskTempTotal], 'number');
  await client.jobs.abort(domain);
  await completed.until('the job', ({ params }) => params[JobStat.operation] === JobOperation.backup);

  const second = await client.checkpoints.lookupByName(domain, 'tuesday');
  t.equal((await client.checkpoints.getParent(second)).name, 'monday');
  t.ok(isNoCheckpoint(await client.checkpoints.getParent(first).catch((e: unknown) => e)));
  t.ok(isNoCheckpoint(await client.checkpoints.lookupByName(domain, 'sunday').catch((e: unknown) => e)));
  const names = (list: readonly { name: string }[]): string[] => list.map(({ name }) => name);
  t.same(names(await client.checkpoints.listAll(domain, CheckpointListFlag.topological)), [
    'monday',
    'tuesday',
  ]);
  t.same(names(await client.checkpoints.listAll(domain, CheckpointListFlag.roots)), ['monday']);
  t.same(names(await client.checkpoints.listAllChildren(first)), ['tuesday']);
  t.match(await client.checkpoints.getXMLDesc(second), /<parent>\s*<name>monday/);

  t.equal(await client.snapshots.hasCurrent(domain), false);
  t.equal(await client.snapshots.getCurrent(domain), null);
  t.ok(isNoSnapshot(await client.snapshots.lookupByName(domain, 'one').catch((e: unknown) => e)));
  const snap = (name: string): string =>
    `<domainsnapshot><name>${name}</name><disks><disk name='sda' snapshot='external'><source file='${path}.${name}'/></disk></disks></domainsnapshot>`;
  const flags = SnapshotCreateFlag.diskOnly | SnapshotCreateFlag.atomic;
  const one = await client.snapshots.create(domain, snap('one'), flags);
  const two = await client.snapshots.create(domain, snap('two'), flags);
  t.same(names(await client.snapshots.listAll(domain)).sort(), ['one', 'two']);
  t.equal((await client.snapshots.getCurrent(domain))?.name, 'two');
  t.equal((await client.snapshots.getParent(two)).name, 'one');
  t.equal(await client.snapshots.countChildren(one), 1);
  t.same(names(await client.snapshots.listAllChildren(one)), ['two']);
  t.match(await client.snapshots.getXMLDesc(one), /<name>one<\/name>/);

  const jobs = await listen(client, 'blockJob', domain);
  await client.block.commit(domain, 'sda', { flags: BlockCommitFlag.active, bandwidth: 1 << 30 });
  await jobs.until(
    'ready',
    ({ type, status }) => type === BlockJobType.activeCommit && status === BlockJobStatus.ready,
  );
  t.match(await client.block.getJobInfo(domain, 'sda'), {
    type: BlockJobType.activeCommit,
    bandwidth: 1 << 30,
  });
  await client.block.abortJob(domain, 'sda', BlockJobAbortFlag.pivot);
  await jobs.until('the pivot', ({ status }) => status === BlockJobStatus.completed);
  t.match(await client.domains.getXMLDesc(domain), `<source file='${path}'`);
  await client.snapshots.delete(two, SnapshotDeleteFlag.metadataOnly);
  await client.snapshots.delete(one, SnapshotDeleteFlag.metadataOnly);

  await client.snapshots.create(domain, snap('three'), flags | SnapshotCreateFlag.noMetadata);
  jobs.seen.length = 0;
  await client.block.pull(domain, 'sda', 1 << 30);
  await jobs.until(
    'the pull',
    ({ type, status }) => type === BlockJobType.pull && status === BlockJobStatus.completed,
  );
  await client.snapshots.create(domain, snap('four'), flags | SnapshotCreateFlag.noMetadata);
  jobs.seen.length = 0;
  await client.block.rebase(domain, 'sda', { base: `${path}.three`, bandwidth: 1 << 30 });
  await jobs.until('the rebase', ({ status }) => status === BlockJobStatus.completed);

  await client.checkpoints.delete(first, CheckpointDeleteFlag.metadataOnly | CheckpointDeleteFlag.children);
  t.same(await client.checkpoints.listAll(domain), []);
  await client.domains.destroy(domain);
  await client.domains.undefine(domain);
});

t.test('a QEMU that hangs holds up its own domain and no other', async (t) => {
  const domain = await client.domains.createXML(xmlOf('hung'));
  const qemu = (await host.processes()).find(({ comm }) => comm.startsWith('qemu-system'));
  if (qemu === undefined) throw new Error('no QEMU');
  await host.must('kill', ['-STOP', String(qemu.pid)]);
  const stuck = Array.from({ length: 30 }, () =>
    client.block.getStats(domain, '', { timeoutMs: 3_000 }).catch((error: unknown) => error),
  );
  for (let i = 0; i < 20; i++) t.match(await client.host.getHostname(), /./);
  const outcomes = (await Promise.all(stuck)) as { name: string; sent: boolean }[];
  t.same(new Set(outcomes.map(({ name }) => name)), new Set(['CallTimeoutError']));
  t.equal(outcomes.filter(({ sent }) => sent).length, 3, 'only so many were let through');
  await host.must('kill', ['-CONT', String(qemu.pid)]);
  await poll('the late answers', WAIT_MS, async () => client.status.ignored.lateReplies === 3);
  await client.domains.destroy(domain);
});

t.test('libvirtd dies in the middle of calls and comes back', async (t) => {
  const domain = await client.domains.createXML(xmlOf('survivor'));
  const events = await listen(client, 'lifecycle', domain);
  const lost = new Promise((resolve) => client.once('lost', resolve));
  const back = new Promise<void>((resolve) => client.once('back', resolve));
  const qemu = (await host.processes()).find(({ comm }) => comm.startsWith('qemu-system'));
  await host.must('kill', ['-STOP', String(qemu?.pid)]);
  // It hangs on the stopped QEMU, and with it the second of the two, which libvirtd has not begun.
  const calls = [1, 2].map(() => client.block.getStats(domain, '').catch((error: unknown) => error));
  await host.killLibvirtd();
  for (const outcome of await Promise.all(calls)) {
    t.ok(outcome instanceof ConnectionLostError);
    t.match(outcome, { sent: true });
  }
  t.ok((await lost) instanceof ConnectionLostError);
  await poll('all connections to go', WAIT_MS, async () => client.status.connections === 0);
  const refused: unknown = await client.domains.getState(domain).catch((error: unknown) => error);
  t.ok(refused instanceof NotConnectedError);
  t.match(refused, { sent: false, message: new RegExp(host.libvirtSocket) });
  await host.must('kill', ['-CONT', String(qemu?.pid)]);
  await host.startLibvirtd();
  await back;
  // libvirtd answers before it has found its QEMU again; a call that needs the domain's lock waits for that.
  await client.domains.suspend(domain);
  t.same(
    (await client.domains.listAll()).map(({ name }) => name),
    ['survivor'],
  );
  await client.domains.destroy(domain);
  await events.until('destroyed', ({ event }) => event === LifecycleEvent.stopped);
  events.close();
});

t.test('the modular daemon’s socket', async (t) => {
  // Debian 12 has no virtqemud: the choice of the path is tested with the real libvirtd behind that name.
  const directory = host.path('/run/libvirt');
  t.equal(await findSocket('qemu:///system', {}, directory), `${directory}/libvirt-sock`);
  symlinkSync('libvirt-sock', `${directory}/virtqemud-sock`);
  const socket = await findSocket('qemu:///system', {}, directory);
  t.equal(socket, `${directory}/virtqemud-sock`);
  const other = connectLibvirt({ socket, connections: 1 });
  t.teardown(() => other.close());
  await other.ready({ timeoutMs: WAIT_MS });
  t.equal(await other.host.getURI(), 'qemu:///system');
  const domain = await other.domains.defineXML(xmlOf('seen-by-both'));
  t.match(await client.domains.lookupByName('seen-by-both'), domain);
  t.ok(isOperationInvalid(await other.domains.destroy(domain).catch((e: unknown) => e)));
});
