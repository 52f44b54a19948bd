/** The main job, step by step: one VM's disk, frozen in time, read in another VM. */
import { readFileSync } from 'node:fs';
import type {
  GetHostInfoResult,
  HotplugDiskResult,
  HotunplugDiskResult,
  ListExportsResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { copyByMap, drawing, size, table } from './map.js';
import { jsonLines, type Report } from './report.js';

const MIB = 1 << 20;
const CAPACITY = 64 * MIB;
const SNAPSHOT = 'nightly';
const EXPORT = 'nightly-1';

/** A JSON-RPC call that is shown in one line; `shown` are its params where they are too long for that. */
type Rpc = <Result>(method: string, params: object, shown?: string) => Promise<Result>;

/** The private host and who is in it. */
interface Stage {
  report: Report;
  host: Host;
  daemon: DaemonHandle;
  rpc: Rpc;
  /** The VM whose disk is backed up. */
  shop: Guest;
  /** The VM in which a backup product runs. */
  appliance: Guest;
}

/** Runs the demo. @returns the private host's directory. @throws Error when something is not as it should be */
export async function runDemo(t: Teardown, report: Report): Promise<string> {
  const stage = await setTheStage(t, report);
  try {
    const frozen = await writeAndFreeze(stage);
    const exported = await exportDisk(stage);
    const plugged = await plugIn(stage, exported);
    await compare(stage, exported, plugged, frozen);
    await unplugAndEnd(stage, exported, plugged);
    await expectNothingLeft(stage, plugged);
    return stage.host.dir;
  } catch (error) {
    report.done('what the daemon said last:');
    report.detail(stage.daemon.log().trimEnd().split('\n').slice(-10));
    throw error;
  }
}

async function setTheStage(t: Teardown, report: Report): Promise<Stage> {
  report.step('Start a private host: libvirtd, two small guests (emulated, without KVM), and the daemon');
  const [host, hostMs] = await timed(startHost(t));
  report.done(`libvirtd in namespaces of its own; files under ${host.dir}`, hostMs);
  const path = await host.createImage({ name: 'shop.qcow2', format: 'qcow2', size: CAPACITY });
  const [[shop, shopMs], [appliance, applianceMs], [daemon, daemonMs]] = await Promise.all([
    timed(host.startGuest({ name: 'shop', disks: [{ target: 'vda', path, format: 'qcow2' }] })),
    timed(host.startGuest({ name: 'appliance', scsiController: true })),
    timed(host.startDaemon()),
  ]);
  report.done(`VM "shop": its disk vda (${size(CAPACITY)}, qcow2) is to be backed up`, shopMs);
  report.done('VM "appliance": no disk; a backup product would run in it', applianceMs);
  report.done('vmdiskd: JSON-RPC on /run/vmdiskd/vmdiskd.sock (below, "> verb params" is a call)', daemonMs);
  const rpc = shownCalls(daemon, report);
  report.detail(jsonLines((await rpc<GetHostInfoResult>('getHostInfo', {})).versions));
  return { report, host, daemon, rpc, shop, appliance };
}

/** Writes known data, freezes it by a snapshot and goes on writing. @returns the checksum of what was frozen */
async function writeAndFreeze({ report, host, shop }: Stage): Promise<string> {
  report.step('Write data in shop, then take a snapshot; shop runs on and overwrites its disk');
  const write = (at: number, length: number): string => `write-random /dev/vda ${at} ${length} seed-${at}`;
  const commands = [
    write(4 * MIB, 12 * MIB),
    `discard-range /dev/vda ${8 * MIB} ${3 * MIB}`,
    write(33 * MIB, MIB / 8),
    write(48 * MIB, 4 * MIB),
    write(63 * MIB, MIB),
  ];
  const [, writeMs] = await timed(shop.sh(commands.join(' && ')));
  report.done('wrote random bytes in four places, and discarded 3 MiB of the first', writeMs);
  const [frozen, sumMs] = await timed(shop.sha256('/dev/vda'));
  report.done(`all of vda: ${checksum(frozen)}`, sumMs);
  const snapshot = ['snapshot-create-as', 'shop', SNAPSHOT, '--disk-only', '--atomic'];
  const [, snapshotMs] = await timed(host.virsh(...snapshot));
  report.done(`virsh ${snapshot.join(' ')}`, snapshotMs);
  // Until it is told to stop: a mebibyte here, a mebibyte there, over what was written before too.
  await shop.sh(`touch /tmp/writing; (n=0
    while [ ! -e /tmp/stop ]; do
      write-random /dev/vda $((n * 7 % 64 * ${MIB})) ${MIB} after-$n
      n=$((n + 1)); echo $n >/tmp/writes
    done; rm /tmp/writing) >/dev/null 2>&1 &`);
  return frozen;
}

async function exportDisk({ report, rpc }: Stage): Promise<PrepareBackupDiskResult> {
  report.step('Export what the snapshot froze: a drive, and the map of its blocks');
  const params = { exportId: EXPORT, vmId: 'shop', disk: 'vda', snapshotId: SNAPSHOT };
  const exported = await rpc<PrepareBackupDiskResult>('prepareBackupDisk', params);
  const { drive, cbt } = exported;
  report.done('the drive, an NBD export on a UNIX socket:');
  report.detail(jsonLines(drive));
  if (cbt.changedBytes === null) throw new Error('The map did not fit inline.');
  report.done(
    `the map (${cbt.mode}): ${size(cbt.changedBytes)} of ${size(drive.capacity)} hold data; ` +
      'a character is 1 MiB: # data, + partly, . zeroes',
  );
  report.detail([`|${drawing(cbt.extents, drive.capacity)}|`, ...table(cbt.extents)]);
  return exported;
}

async function plugIn(
  { report, rpc }: Stage,
  { drive }: PrepareBackupDiskResult,
): Promise<HotplugDiskResult> {
  report.step('Plug the drive into the running appliance: the dict is passed on as it came');
  const plugged = await rpc<HotplugDiskResult>('hotplugDisk', { vmId: 'appliance', drive }, PLUG_PARAMS);
  const { target, bus, guestPath } = plugged;
  report.detail(jsonLines({ target, bus, guestPath }));
  return plugged;
}

async function compare(
  { report, shop, appliance }: Stage,
  { cbt }: PrepareBackupDiskResult,
  { guestPath }: HotplugDiskResult,
  frozen: string,
): Promise<void> {
  report.step(`Read it in the appliance, and compare: it should be ${checksum(frozen)}`);
  const row = (what: string, sum: string): string => `${what.padEnd(52)} ${checksum(sum)}`;
  await appliance.sh(`until [ -e ${guestPath} ]; do sleep 0.1; done`);
  const [whole, wholeMs] = await timed(appliance.sha256(guestPath));
  report.check(whole === frozen, row('the whole drive, by its guestPath', whole), wholeMs);

  const [, copyMs] = await timed(appliance.sh(copyByMap(cbt.extents, guestPath, '/tmp/copy')));
  const copied = await appliance.sha256('/tmp/copy');
  const data = size(cbt.changedBytes ?? 0);
  report.check(copied === frozen, row(`a copy of the ${data} that the map calls data`, copied), copyMs);

  const stop = 'touch /tmp/stop; while [ -e /tmp/writing ]; do sleep 0.1; done; cat /tmp/writes';
  const written = await shop.sh(stop);
  const [now, nowMs] = await timed(shop.sha256('/dev/vda'));
  report.check(now !== frozen, row(`shop's own disk, ${written} writes later: another`, now), nowMs);
}

async function unplugAndEnd(
  { report, rpc }: Stage,
  { drive }: PrepareBackupDiskResult,
  { target }: HotplugDiskResult,
): Promise<void> {
  report.step('Take the drive out again, and end the export');
  const out = await rpc<HotunplugDiskResult>('hotunplugDisk', { vmId: 'appliance', drive }, PLUG_PARAMS);
  report.check(out.target === target, `QEMU has let go of ${target}`);
  await rpc('teardownBackupDisk', { exportId: EXPORT });
}

async function expectNothingLeft(stage: Stage, { guestPath }: HotplugDiskResult): Promise<void> {
  const { report, rpc, host, appliance } = stage;
  report.step('See that nothing is left');
  const { exports } = await rpc<ListExportsResult>('listExports', {});
  report.check(exports.length === 0, 'no exports');
  const left = (await host.leftovers()).map((what) => `: ${what}`).join('');
  report.check(left === '', `no NBD server, socket, directory or mount${left}`);
  const inLibvirt = /<disk type=.network/.test(await appliance.xml());
  const inGuest = (await appliance.try(`test -e ${guestPath}`)).exitCode === 0;
  report.check(!inLibvirt && !inGuest, 'no drive in the appliance: not in libvirt, not in the guest');
  const record = JSON.parse(readFileSync(host.path(`/var/lib/vmdiskd/exports/${EXPORT}.json`), 'utf8'));
  report.check(
    record.state === 'ended' && record.server === null && record.attachments.length === 0,
    'the record says "ended"; it is kept for an hour, so that a late retry brings nothing back',
  );
  const running = (await host.virsh('list', '--name')).split('\n').filter(Boolean).sort().join(' and ');
  report.check(running === 'appliance and shop', `${running} run on`);
}

const PLUG_PARAMS = '{"vmId":"appliance","drive":<the drive above>}';

function shownCalls(daemon: DaemonHandle, report: Report): Rpc {
  return async <Result>(method: string, params: object, shown = JSON.stringify(params)) => {
    const [result, ms] = await timed(daemon.call<Result>(method, params));
    report.call(method, shown, ms);
    return result;
  };
}

/** The beginning is enough for the eye; what is compared is all of it. */
function checksum(sha256: string): string {
  return `sha256 ${sha256.slice(0, 16)}...`;
}

async function timed<T>(work: Promise<T>): Promise<[result: T, ms: number]> {
  const began = performance.now();
  const result = await work;
  return [result, performance.now() - began];
}
