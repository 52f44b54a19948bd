/**
 * Every kind of event from a real daemon, as two callers see it that wait in different ways, over an orderly restart and
 * a kill -9 of it. Needs root.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { HostEvent, WaitEventsResult } from '../../agent/api/generated.js';
import { typeSchemas } from '../../agent/api/schemas.js';
import { edgeLimits } from '../../agent/rpc/limits.js';
import { createValidator } from '../../agent/rpc/validate.js';
import { type Caller, defineVm, MiB, prepare, verb } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { remains, smallImage, startBackup, virtio } from '../points-in-time/rig.js';
import { type LibvirtRelay, startLibvirtRelay } from './libvirt-relay.js';

t.setTimeout(600_000);

const SCRATCH = '/mnt';
const RESERVE = 16 * MiB;
const ROOM = 48 * MiB;
const validator = createValidator(edgeLimits);

/** A caller that reads the journal from a number on, and keeps what it was told. */
class Reader {
  readonly events: HostEvent[] = [];
  readonly gaps: { from: number; to: number }[] = [];
  readonly journals = new Set<string>();
  after: number;
  readonly #max: number;

  constructor(after: number, max: number) {
    this.after = after;
    this.#max = max;
  }

  async read(caller: Caller, timeoutSeconds: number): Promise<WaitEventsResult> {
    const page = await verb(caller, 'waitEvents', { after: this.after, max: this.#max, timeoutSeconds });
    const fault = validator.faultOfResult('waitEvents', page);
    if (fault !== undefined) throw new Error(fault);
    this.journals.add(page.journal);
    if (page.gap !== null) this.gaps.push(page.gap);
    this.events.push(...page.events);
    this.after = page.next;
    return page;
  }

  /** Waits for the first event from `since` on that has these members, and returns where it is. */
  async until(caller: Caller, wanted: Partial<HostEvent>, since = 0): Promise<HostEvent & { at: number }> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const at = this.events.findIndex(
        (event, index) =>
          index >= since &&
          Object.entries(wanted).every(
            ([name, value]) => (event as unknown as Record<string, unknown>)[name] === value,
          ),
      );
      const found = this.events[at];
      if (found !== undefined) return { ...found, at };
      if (Date.now() > deadline)
        throw new Error(`waited for ${JSON.stringify(wanted)}: ${JSON.stringify(this.events)}`);
      await this.read(caller, 5);
    }
  }

  /** All that there is by now. */
  async drain(caller: Caller): Promise<void> {
    for (;;) {
      const { events, gap } = await this.read(caller, 0);
      if (events.length === 0 && gap === null) return;
    }
  }
}

let host: Host;
let relay: LibvirtRelay;
let daemon: DaemonHandle;
/** Reads as it goes on, from the beginning; `other` reads everything later, in small bites. */
const reader = new Reader(0, 1000);
const other = new Reader(0, 3);
let web: string;
let appliance: string;

const settings = () => ({
  libvirt: { socket: `${host.dir}/libvirt-relay` },
  paths: { scratch: SCRATCH },
  limits: { scratchReserve: RESERVE },
});

t.before(async () => {
  host = await startHost(t);
  await host.must('mount', ['-t', 'tmpfs', '-o', `size=${ROOM}`, 'scratch', SCRATCH]);
  relay = await startLibvirtRelay(`${host.dir}/libvirt-relay`, host.libvirtSocket);
  t.teardown(() => relay.close());
  daemon = await host.startDaemon(settings());
  web = await defineVm(host, {
    name: 'web',
    disks: [virtio('vda', await smallImage({ host, name: 'web.qcow2' }))],
  });
  appliance = await defineVm(host, {
    name: 'appliance',
    devicesXml: "<controller type='scsi' model='virtio-scsi'/>",
  });
});

/** The next events of the reader from here on are these, in this order, perhaps with others between. @returns the last */
async function follows(t: Test, wanted: Partial<HostEvent>[]): Promise<HostEvent | undefined> {
  let since = mark;
  let last: HostEvent | undefined;
  for (const one of wanted) {
    const { at, ...event } = await reader.until(daemon, one, since);
    t.match(event, one, JSON.stringify(one));
    since = at + 1;
    last = event;
  }
  mark = since;
  return last;
}
let mark = 0;

t.test('VMs, exports and drives', async (t) => {
  await poll('the daemon to hear of VMs', 30_000, async () => {
    await host.virsh('start', 'appliance');
    await host.virsh('destroy', 'appliance');
    await reader.drain(daemon);
    return reader.events.some(({ kind }) => kind === 'vmStopped');
  });
  mark = reader.events.length;
  await host.virsh('start', '--paused', 'web');
  await host.virsh('start', 'appliance');
  await follows(t, [
    { kind: 'vmStarted', vmId: web, name: 'web', reason: 'booted' },
    { kind: 'vmStarted', vmId: appliance, name: 'appliance' },
  ]);

  const exportId = 'live';
  const { drive } = await prepare(daemon, { exportId, vmId: 'web', disk: 'vda', checkpoint: 'monday' });
  const about = { exportId, owner: 'unix' };
  const ready = await follows(t, [{ kind: 'exportReady', ...about, vmId: web, disk: 'vda' }]);
  t.match(ready, { pointInTime: { kind: 'backup' } });

  const plug = () => verb(daemon, 'hotplugDisk', { vmId: 'appliance', drive });
  const { alias } = await plug();
  await verb(daemon, 'hotunplugDisk', { vmId: 'appliance', drive });
  const inVm = { ...about, vmId: appliance, target: 'sda' };
  await follows(t, [
    { kind: 'driveAttached', ...inVm, serial: drive.serial },
    { kind: 'driveDetached', ...inVm, reason: 'unplugged' },
  ]);
  await plug();
  relay.sendRemovalFailed({ name: 'appliance', uuid: appliance }, alias);
  await follows(t, [
    { kind: 'driveAttached', ...inVm },
    { kind: 'driveDetachRefused', ...inVm },
  ]);
  await host.virsh('detach-device-alias', 'appliance', alias, '--live');
  await follows(t, [{ kind: 'driveDetached', ...inVm, reason: 'left' }]);
  await plug();
  await host.virsh('destroy', 'appliance');
  await follows(t, [
    { kind: 'vmStopped', vmId: appliance, name: 'appliance', reason: 'destroyed' },
    { kind: 'driveDetached', ...inVm, reason: 'vmEnded' },
  ]);

  await verb(daemon, 'teardownBackupDisk', { exportId, outcome: 'failed' });
  const closed = await follows(t, [
    { kind: 'checkpointDeleted', checkpoint: 'monday', vmId: web },
    { kind: 'exportClosed', ...about, vmId: web, disk: 'vda', outcome: 'failed' },
  ]);
  t.match(closed, { checkpoint: { id: 'monday', state: 'deleted' } });
  const ofBackups = reader.events.filter(({ kind }) => kind.startsWith('backup'));
  t.strictSame(ofBackups, [], "an export's own job is told as the export alone");
});

t.test('backups, and the scratch space', async (t) => {
  const about = { owner: 'unix', vmId: web };
  await startBackup(daemon, {
    backupId: 'tue',
    vmId: 'web',
    disks: [{ disk: 'vda' }],
    checkpoint: 'tuesday',
  });
  const started = await follows(t, [
    { kind: 'backupStarted', ...about, backupId: 'tue', checkpoint: 'tuesday', quiesced: false },
  ]);
  t.match(started, { disks: ['vda'] });
  await host.must('sh', ['-c', `head -c ${ROOM - RESERVE / 2} /dev/zero >${SCRATCH}/filler`]);
  await follows(t, [
    { kind: 'scratchLow', ...about, backupId: 'tue', exportId: null, path: SCRATCH, reserve: RESERVE },
  ]);
  await host.must('rm', [`${SCRATCH}/filler`]);
  await verb(daemon, 'stopBackup', { backupId: 'tue', outcome: 'success' });
  const ended = await follows(t, [{ kind: 'backupEnded', ...about, backupId: 'tue', outcome: 'success' }]);
  t.match(ended, { checkpoint: { id: 'tuesday', state: 'kept' } });

  await startBackup(daemon, { backupId: 'wed', vmId: 'web', disks: [{ disk: 'vda' }] });
  await prepare(daemon, { exportId: 'wed-vda', vmId: 'web', disk: 'vda', backupId: 'wed' });
  await host.virsh('domjobabort', 'web');
  const backup = { ...about, backupId: 'wed' };
  await follows(t, [
    { kind: 'backupStarted', ...backup, checkpoint: null },
    { kind: 'exportReady', exportId: 'wed-vda' },
  ]);
  const failures = mark;
  await follows(t, [{ kind: 'backupFailed', ...backup }]);
  mark = failures; // whichever is noticed first
  await follows(t, [{ kind: 'exportFailed', exportId: 'wed-vda', vmId: web, disk: 'vda' }]);
  for (const event of reader.events.filter(({ kind }) => kind.endsWith('Failed'))) {
    t.match(event, { error: { name: String, message: /\S.*\.$/ } });
  }
  await verb(daemon, 'stopBackup', { backupId: 'wed', force: true });
  await follows(t, [
    { kind: 'exportClosed', exportId: 'wed-vda', outcome: 'failed' },
    { kind: 'backupEnded', ...backup, outcome: 'failed' },
  ]);
});

t.test('snapshots and jobs', async (t) => {
  await verb(daemon, 'createSnapshot', {
    snapshotId: 'thu',
    vmId: 'web',
    quiesce: 'no',
    checkpoint: 'thursday',
  });
  const { jobId } = await verb(daemon, 'deleteSnapshot', { snapshotId: 'thu', vmId: 'web' });
  const job = { jobId, owner: 'unix', verb: 'deleteSnapshot', subject: 'thu', vmId: web };
  await follows(t, [
    {
      kind: 'snapshotCreated',
      snapshotId: 'thu',
      owner: 'unix',
      vmId: web,
      quiesced: false,
      checkpoint: 'thursday',
    },
    { kind: 'jobProgress', ...job },
    { kind: 'jobEnded', ...job, state: 'done', error: null },
  ]);
  await verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'thursday' });
  const deleted = await follows(t, [{ kind: 'checkpointDeleted', checkpoint: 'thursday' }]);
  t.match(deleted, { madeBy: { kind: 'snapshot', id: 'thu' } });
});

t.test('a VM that comes and one that goes', async (t) => {
  const there = await startHost(t);
  const daemonThere = await there.startDaemon();
  const arrivals = new Reader(0, 10);
  const dir = `${host.dir}/migration`; // the same path inside both
  mkdirSync(dir);
  chmodSync(dir, 0o777);
  const uuid = await defineVm(host, { name: 'traveller' });
  await host.virsh('start', 'traveller');
  await poll('the other daemon to have libvirt', 30_000, async () => {
    return (await verb(daemonThere, 'getHostInfo', {})).capabilities.libvirt.connected;
  });
  await host.virsh(
    ...['migrate', '--live', '--unsafe', 'traveller', `qemu+unix:///system?socket=${there.libvirtSocket}`],
    ...['--migrateuri', `unix://${dir}/socket`],
  );
  await follows(t, [{ kind: 'vmMigrated', vmId: uuid, name: 'traveller', reason: 'left' }]);
  t.notOk(reader.events.slice(mark).some(({ kind }) => kind === 'vmStopped'));
  await arrivals.until(daemonThere, { kind: 'vmMigrated', vmId: uuid, name: 'traveller', reason: 'arrived' });
  t.strictSame(
    arrivals.events.map(({ kind }) => kind),
    ['vmMigrated'],
    'and nothing else there',
  );
});

t.test('libvirt goes and comes back', async (t) => {
  await host.killLibvirtd();
  await follows(t, [{ kind: 'libvirtLost' }]);
  await host.startLibvirtd();
  await follows(t, [{ kind: 'libvirtBack' }]);
});

t.test('every kind was seen, and the same by a caller that comes late', async (t) => {
  await reader.drain(daemon);
  await other.drain(await daemon.connect());
  t.strictSame(other.events, reader.events);
  t.strictSame([...other.journals], [...reader.journals]);
  t.strictSame(
    reader.events.map(({ seq }) => seq),
    reader.events.map((_, index) => index + 1),
    'numbered from 1 on without a gap',
  );
  t.strictSame([...reader.gaps, ...other.gaps], []);
  const variants = typeSchemas.HostEvent?.oneOf as { properties: { kind: { const: string } } }[];
  const seen = new Set(reader.events.map(({ kind }): string => kind));
  const unseen = variants.map(({ properties }) => properties.kind.const).filter((kind) => !seen.has(kind));
  t.strictSame(unseen, ['leaseExpired'], 'told by the watch over leases');
});

t.test('an orderly restart: who waits is answered, the numbering goes on, nothing is missing', async (t) => {
  const waiting = verb(daemon, 'waitEvents', { after: reader.after, timeoutSeconds: 300 });
  await verb(daemon, 'waitEvents', { timeoutSeconds: 0 });
  const before = reader.after;
  await daemon.process.kill('SIGTERM');
  t.match(await waiting, { events: [], next: before, gap: null });
  await daemon.kill();
  daemon = await host.startDaemon(settings());
  await prepare(daemon, { exportId: 'after', vmId: 'web', disk: 'vda' });
  mark = reader.events.length;
  await follows(t, [{ kind: 'exportReady', exportId: 'after', seq: before + 1 }]);
  await other.drain(daemon);
  t.strictSame(other.events, reader.events);
  const late = new Reader(0, 1000);
  await late.drain(daemon);
  t.strictSame(late.events, reader.events, 'what was before is kept');
  t.strictSame([...reader.gaps, ...other.gaps, ...late.gaps], []);
  t.equal(reader.journals.size, 1);
});

t.test('kill -9: the numbering goes on, after a gap that is told', async (t) => {
  await verb(daemon, 'teardownBackupDisk', { exportId: 'after' });
  mark = reader.events.length;
  await follows(t, [{ kind: 'exportClosed', exportId: 'after' }]);
  await reader.drain(daemon);
  const before = reader.after;
  await daemon.kill('SIGKILL');
  daemon = await host.startDaemon(settings());
  await reader.drain(daemon);
  t.match(reader.gaps, [{ from: before + 1 }]);
  await prepare(daemon, { exportId: 'again', vmId: 'web', disk: 'vda' });
  await follows(t, [{ kind: 'exportReady', exportId: 'again', seq: (reader.gaps[0]?.to ?? 0) + 1 }]);
  await other.drain(daemon);
  t.strictSame(other.gaps, reader.gaps);
  t.strictSame(other.events, reader.events);
  t.equal(reader.journals.size, 1);
  const beyond = await verb(daemon, 'waitEvents', { after: reader.after + 5, timeoutSeconds: 300 });
  t.match(beyond, { events: [], next: reader.after, gap: { from: reader.after + 1, to: reader.after + 5 } });
  await verb(daemon, 'teardownBackupDisk', { exportId: 'again' });
  t.strictSame(await remains(host, '/nowhere'), []);
});
