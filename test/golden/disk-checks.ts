import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { BITMAP, type Disk } from './disk.js';
import { assertConsistent, type Rig } from './map-checks.js';
import { FLAG, nbdinfoRanges, rangesOf } from './nbdinfo.js';
import { type Operation, touched } from './operations.js';
import type { SeededRandom } from './random.js';
import { inBlocks, union, without } from './ranges.js';
import { firstDifference, rebuild } from './rebuild.js';

/** The guest and its snapshot, in every round. */
export const VM = 'golden';
export const SNAPSHOT = 'frozen';

export interface DiskInRound extends Disk {
  random: SeededRandom;
  /** Done by the guest so far. */
  inGuest: Operation[];
  directory: string;
}

export const allOperations = ({ inGuest, layers }: Pick<DiskInRound, 'inGuest' | 'layers'>): Operation[] => [
  ...layers.flatMap(({ operations }) => operations),
  ...inGuest,
];

/** The full map of what the snapshot froze, while the guest goes on writing. */
export async function checkFrozen(rig: Rig, disk: DiskInRound): Promise<PrepareBackupDiskResult> {
  const prepared = await prepare(rig, { vmId: VM, disk: disk.target, snapshotId: SNAPSHOT });
  await assertConsistent(rig, prepared, disk.random);
  await assertGivesImage(rig, disk, prepared, null, disk.images.at(-1) ?? '');
  const { cbt, drive } = prepared;
  assert.deepEqual(
    { mode: cbt.mode, origin: cbt.origin, metaContext: cbt.metaContext, blocksStart: prepared.blocksStart },
    { mode: 'full', origin: 'allocation', metaContext: 'base:allocation', blocksStart: false },
  );
  assert.equal(drive.capacity, disk.capacity);
  await teardown(rig, prepared);
  return prepared;
}

/** The map of what changed since the bitmap began, of the shut-off VM's image. */
export async function checkSince(rig: Rig, disk: DiskInRound): Promise<PrepareBackupDiskResult> {
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
  await assertConsistent(rig, prepared, disk.random);
  await assertGivesImage(rig, disk, prepared, disk.base, chain[0] ?? '');
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
