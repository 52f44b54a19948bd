import assert from 'node:assert/strict';
import type { ChangedExtents, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { FLAG, nbdinfoRanges, rangesOf } from './nbdinfo.js';
import { assertWhole, pagedBits, pagedExtents } from './paging.js';
import type { SeededRandom } from './random.js';
import { inBlocks, type Range, without } from './ranges.js';

/** The host and the daemon that all rounds share. */
export interface Rig {
  host: Host;
  daemon: DaemonHandle;
}

/**
 * What holds for the map of any export: it is whole; pages of any size, both encodings and any part of it say the
 * same; and its zeroes are those that nbdinfo sees (not of a live backup: there QEMU's own answer changes while the
 * guest writes). The map must have come inline in full.
 *
 * What QEMU calls zero is in part what the host's file system calls a hole, and ext4 and XFS call what was allocated
 * and not yet written a hole only until it has been read into their cache, by a guest for instance that runs on above a
 * frozen layer. So a map that is read later may call less zero and, where that makes the difference, more dirty; never
 * the other way round.
 */
export async function assertConsistent(
  { host, daemon }: Rig,
  { exportId, uri, cbt, drive }: PrepareBackupDiskResult,
  random: SeededRandom,
  { live = false }: { live?: boolean } = {},
): Promise<void> {
  const { capacity } = drive;
  const { granularity } = cbt;
  assert.equal(cbt.nextOffset, null, 'the map came in full');
  assertWhole(cbt.extents, 0, capacity);
  const first = mapOf(cbt.extents);
  assert.equal(
    cbt.changedBytes,
    first.dirty.reduce((sum, { start, end }) => sum + end - start, 0),
    'changedBytes is the sum of what is dirty',
  );
  const incremental = cbt.mode === 'incremental';

  const paged = mapOf(await pagedExtents(daemon, { exportId, capacity, maxExtents: 7 }));
  assertLater(first, paged, 'pages of 7', incremental);

  const blocks = 1 + 2 * random.below(300);
  const bits = await pagedBits(daemon, { exportId, capacity, blocks });
  const after = mapOf(await pagedExtents(daemon, { exportId, capacity, maxExtents: 10_000 }));
  assertLater(paged, after, 'pages of 10,000', incremental);
  const what = `pages of ${blocks} bits`;
  assertWithin(inBlocks(paged.dirty, granularity, capacity), bits, what);
  assertWithin(bits, inBlocks(after.dirty, granularity, capacity), what);

  for (let part = 0; part < 3; part++) {
    const offset = random.below(capacity);
    const length = 1 + random.below(capacity - offset);
    const page: ChangedExtents = await daemon.call('getChangedBlocks', { exportId, offset, length });
    const place = `${length} bytes from ${offset}`;
    assertWhole(page.extents, offset, offset + length);
    assertLater(mapOf(clip(cbt.extents, offset, offset + length)), mapOf(page.extents), place, incremental);
    assert.equal(page.nextOffset, offset + length < capacity ? offset + length : null, place);
  }

  if (live) return;
  const before = mapOf(await pagedExtents(daemon, { exportId, capacity, maxExtents: 10_000 }));
  const zeroes = await nbdinfoRanges(host, uri, 'base:allocation', FLAG.zero);
  const last = mapOf(await pagedExtents(daemon, { exportId, capacity, maxExtents: 10_000 }));
  assertWithin(zeroes, before.zero, 'zeroes are those that nbdinfo sees');
  assertWithin(last.zero, zeroes, 'zeroes are those that nbdinfo sees');
}

interface Ranges {
  dirty: Range[];
  zero: Range[];
}

function mapOf(extents: readonly Extent[]): Ranges {
  return { dirty: rangesOf(extents, 'dirty'), zero: rangesOf(extents, 'zero') };
}

/** @param incremental what a bitmap calls dirty does not depend on the file system: it is the same each time */
function assertLater(earlier: Ranges, later: Ranges, what: string, incremental: boolean): void {
  assertWithin(later.zero, earlier.zero, what);
  if (incremental) assert.deepEqual(later.dirty, earlier.dirty, what);
  else assertWithin(earlier.dirty, later.dirty, what);
}

function assertWithin(inner: readonly Range[], outer: readonly Range[], what: string): void {
  assert.deepEqual(without(inner, outer), [], what);
}

function clip(extents: readonly Extent[], start: number, end: number): Extent[] {
  return extents.flatMap((extent) => {
    const from = Math.max(extent.start, start);
    const until = Math.min(extent.start + extent.length, end);
    return from < until ? [{ ...extent, start: from, length: until - from }] : [];
  });
}
