import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Guest } from '../host/guest.js';
import { BITMAP, createDisk, type Disk, ENDINGS, LAYOUTS, planDisk } from './disk.js';
import { assertConsistent, type Rig } from './map-checks.js';
import { FLAG, nbdinfoRanges, rangesOf } from './nbdinfo.js';
import { guestScript, makePool, type Operation, planOperations, touched } from './operations.js';
import { SeededRandom } from './random.js';
import { bytesIn, inBlocks, union, without } from './ranges.js';
import { firstDifference, rebuild } from './rebuild.js';

const VM = 'golden';
const SNAPSHOT = 'frozen';

/** What a round went through, to be summed up. */
export interface RoundCounts {
  /** Layout and ending of each disk. */
  disks: string[];
  operations: number;
  /** Maps that were checked: a full and an incremental one a disk. */
  maps: number;
  extents: number;
  /** Bytes that the incremental maps called dirty. */
  dirtyBytes: number;
}

/**
 * One round: a guest with two disks, each with a bitmap from before it started, has both written to, snapshot while
 * it writes, merged or not, and is shut off. The full map of the snapshot and the map since the bitmap must then
 * each give the image, byte for byte. `seed` and `round` decide all of it but the instant of the snapshot.
 */
export async function runRound(rig: Rig, seed: string, round: number): Promise<RoundCounts> {
  const { host } = rig;
  const directory = `${host.dir}/golden-${round}`;
  await host.must('mkdir', ['-p', directory]);
  const random = [0, 1].map((disk) => new SeededRandom(seed, round, disk));
  const disks: DiskInRound[] = [];
  for (const [index, choices] of random.entries()) {
    const plan = planDisk(choices, index, variantOf(round, index));
    const made = await createDisk(host, directory, plan, choices);
    disks.push({ ...made, random: choices, inGuest: [], directory });
  }
  try {
    const guest = await host.startGuest({
      name: VM,
      disks: disks.map(({ target, bus, images, driver }) => ({
        ...{ target, bus, driver, format: 'qcow2' as const, serial: target },
        path: images.at(-1) ?? '',
      })),
    });
    await guest.sh(makePool(`${seed}/${round}`));
    await both(disks, (disk) => operate(guest, disk));
    // The snapshot comes while both disks are being written to.
    const going = both(disks, (disk) => operate(guest, disk));
    await Promise.all([going, snapshot(rig, disks, SNAPSHOT)]);
    const writing = both(disks, (disk) => operate(guest, disk));
    const full = await Promise.all([writing, both(disks, (disk) => checkFrozen(rig, disk))]);
    for (const disk of disks) await end(rig, disk);
    await both(disks, (disk) => operate(guest, disk));
    await guest.shutdown();
    const incremental = await both(disks, (disk) => checkSince(rig, disk));
    return {
      disks: disks.map(({ layout, ending }) => `${layout}, ${ending}`),
      operations: disks.reduce(
        (sum, { inGuest, layers }) => sum + allOperations({ inGuest, layers }).length,
        0,
      ),
      maps: full[1].length + incremental.length,
      extents: [...full[1], ...incremental].reduce((sum, { cbt }) => sum + cbt.extents.length, 0),
      dirtyBytes: incremental.reduce((sum, { cbt }) => sum + (cbt.changedBytes ?? 0), 0),
    };
  } finally {
    await host.run('virsh', ['--connect', 'qemu:///system', 'destroy', VM]);
    await host.run('virsh', ['--connect', 'qemu:///system', 'undefine', VM, '--snapshots-metadata']);
    await host.must('sh', ['-c', `rm -rf "$0" /var/lib/libvirt/images/[sv]da*`, directory]);
  }
}

/** Every pair of layout and ending comes round, whatever the seed: all in six rounds, on either bus in twelve. */
function variantOf(round: number, disk: number): number {
  const pairs = LAYOUTS.length * ENDINGS.length;
  return (round * 2 + ((disk + Math.floor((round * 2) / pairs)) % 2)) % pairs;
}

interface DiskInRound extends Disk {
  random: SeededRandom;
  /** Done by the guest so far. */
  inGuest: Operation[];
  directory: string;
}

const both = <T>(disks: DiskInRound[], deed: (disk: DiskInRound) => Promise<T>): Promise<T[]> =>
  Promise.all(disks.map(deed));

/** The next few operations; now and then none, as disks are that nobody writes to. */
async function operate(guest: Guest, { random, capacity, target, inGuest }: DiskInRound): Promise<void> {
  const operations = planOperations(random, capacity, random.chance(0.2) ? 0 : 2 + random.below(10));
  inGuest.push(...operations);
  await guest.sh(`set -e; d=$(disk-by-serial ${target})\n${guestScript(operations, '$d')}`);
}

const allOperations = ({ inGuest, layers }: Pick<DiskInRound, 'inGuest' | 'layers'>): Operation[] => [
  ...layers.flatMap(({ operations }) => operations),
  ...inGuest,
];

async function snapshot({ host }: Rig, disks: readonly DiskInRound[], name: string): Promise<void> {
  const specs = (['vda', 'sda'] as const).map((target) =>
    disks.some((disk) => disk.target === target) ? target : `${target},snapshot=no`,
  );
  await host.virsh(
    ...['snapshot-create-as', VM, name, '--disk-only', '--atomic'],
    ...specs.flatMap((spec) => ['--diskspec', spec]),
  );
}

/** The full map of what the snapshot froze, while the guest goes on writing. */
async function checkFrozen(rig: Rig, disk: DiskInRound): Promise<PrepareBackupDiskResult> {
  const prepared = await prepare(rig, { vmId: VM, disk: disk.target, snapshotId: SNAPSHOT });
  const { cbt, drive } = prepared;
  assert.deepEqual(
    { mode: cbt.mode, origin: cbt.origin, metaContext: cbt.metaContext, blocksStart: prepared.blocksStart },
    { mode: 'full', origin: 'allocation', metaContext: 'base:allocation', blocksStart: false },
  );
  assert.equal(drive.capacity, disk.capacity);
  await assertConsistent(rig, prepared, disk.random);
  await assertGivesImage(rig, disk, prepared, null, disk.images.at(-1) ?? '');
  await teardown(rig, prepared);
  return prepared;
}

/** What is to become of the snapshot's overlay, while the guest runs. */
async function end(rig: Rig, disk: DiskInRound): Promise<void> {
  if (disk.ending === 'merged') {
    await rig.host.virsh('blockcommit', VM, disk.target, '--active', '--shallow', '--pivot', '--wait');
  } else if (disk.ending === 'kept under another') {
    await snapshot(rig, [disk], `second-${disk.target}`);
  }
}

/** The map of what changed since the bitmap began, of the shut-off VM's image. */
async function checkSince(rig: Rig, disk: DiskInRound): Promise<PrepareBackupDiskResult> {
  const { host } = rig;
  const { capacity, layers } = disk;
  const chain = await chainOf(rig, disk);
  const overlays = { merged: 0, kept: 1, 'kept under another': 2 }[disk.ending];
  const spanned = chain.slice(0, layers.length + overlays);
  assert.equal(spanned.length + (disk.layout === 'alone' ? 0 : 1), chain.length, 'the chain is as planned');

  const prepared = await prepare(rig, {
    ...{ path: chain[0] ?? '', format: 'qcow2' },
    since: { bitmap: BITMAP },
  });
  const { cbt, drive } = prepared;
  const granularities = layers.map(({ granularity }) => granularity);
  const metaContext = spanned.length === 1 ? `qemu:dirty-bitmap:${BITMAP}` : null;
  assert.deepEqual(
    { mode: cbt.mode, since: cbt.since, origin: cbt.origin, metaContext: cbt.metaContext },
    { mode: 'incremental', since: { bitmap: BITMAP }, origin: 'bitmap', metaContext },
  );
  assert.equal(cbt.granularity, Math.min(...granularities));
  assert.equal(prepared.blocksStart, true);
  assert.equal(drive.capacity, capacity);
  await assertConsistent(rig, prepared, disk.random);
  await assertGivesImage(rig, disk, prepared, disk.base, chain[0] ?? '');

  const dirty = rangesOf(cbt.extents, 'dirty');
  const recorded = await Promise.all(
    spanned.map((image) =>
      nbdinfoRanges(
        host,
        ['qemu-nbd', '-r', '-f', 'qcow2', '-B', BITMAP, image],
        `qemu:dirty-bitmap:${BITMAP}`,
        FLAG.dirty,
      ),
    ),
  );
  assert.deepEqual(dirty, inBlocks(recorded.flat(), cbt.granularity, capacity), 'dirty is what nbdinfo sees');

  const reached = allOperations(disk).map((operation) => touched(operation, capacity));
  const lacking = without(union(reached.map(({ least }) => least)), dirty);
  assert.deepEqual(lacking, [], 'every byte that was written to is dirty');
  // A merge copies whole clusters of the overlay, which the bitmap below it records.
  const clusters = disk.ending === 'merged' ? layers.map(({ clusterSize }) => clusterSize) : [];
  const unit = Math.max(...granularities, ...clusters, disk.ending === 'merged' ? 65536 : 0);
  const most = inBlocks(
    reached.map((range) => range.most),
    unit,
    capacity,
  );
  assert.deepEqual(without(dirty, most), [], `nothing but blocks of ${unit} that were written to is dirty`);
  assert.ok(bytesIn(dirty) <= bytesIn(most));
  await teardown(rig, prepared);
  return prepared;
}

/** What the map says to read, over `base`, is the image. */
async function assertGivesImage(
  { host }: Rig,
  { directory, target, capacity }: DiskInRound,
  { uri, cbt }: PrepareBackupDiskResult,
  base: string | null,
  image: string,
): Promise<void> {
  const rebuilt = `${directory}/${target}.rebuilt`;
  const expected = `${directory}/${target}.image`;
  await rebuild(host, { base, target: rebuilt, capacity, uri, extents: cbt.extents });
  await host.must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, expected]);
  assert.equal(firstDifference(rebuilt, expected), null, `${target}: base and changed blocks give the image`);
}

/** The images of a disk as qemu-img sees them, top first. */
async function chainOf({ host }: Rig, { target }: DiskInRound): Promise<string[]> {
  const listed = await host.virsh('domblklist', VM);
  const top = new RegExp(`^\\s*${target}\\s+(\\S+)`, 'm').exec(listed)?.[1] ?? '';
  const info = JSON.parse(await host.must('qemu-img', ['info', '--backing-chain', '--output=json', top]));
  return (info as { filename: string }[]).map(({ filename }) => filename);
}

const prepare = ({ daemon }: Rig, params: object): Promise<PrepareBackupDiskResult> =>
  daemon.call('prepareBackupDisk', { exportId: randomUUID(), inlineExtents: 10_000, ...params });

const teardown = ({ daemon }: Rig, { exportId }: PrepareBackupDiskResult): Promise<unknown> =>
  daemon.call('teardownBackupDisk', { exportId });
