import assert from 'node:assert/strict';
import type { ChangedExtents, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Host } from '../host/host.js';
import { FLAG, nbdinfoRanges, rangesOf } from './nbdinfo.js';
import { assertWhole, pagedBits, pagedExtents } from './paging.js';
import type { SeededRandom } from './random.js';
import { inBlocks } from './ranges.js';

/** The host and the daemon that all rounds share. */
export interface Rig {
  host: Host;
  daemon: DaemonHandle;
}

/**
 * What holds for the map of any export: it is whole; pages of any size, both encodings and any part of it say the
 * same; and its zeroes are those that nbdinfo sees. The map must have come inline in full.
 *
 * To be asked before the export is read: what QEMU calls zero is in part what the host's file system calls a hole,
 * and ext4 and XFS call what was allocated and not yet written a hole only until it has been read into their cache.
 */
export async function assertConsistent(
  { host, daemon }: Rig,
  { exportId, uri, cbt, drive }: PrepareBackupDiskResult,
  random: SeededRandom,
): Promise<void> {
  const { capacity } = drive;
  const { extents, granularity } = cbt;
  assert.equal(cbt.nextOffset, null, 'the map came in full');
  assertWhole(extents, 0, capacity);
  const dirty = rangesOf(extents, 'dirty');
  assert.equal(
    cbt.changedBytes,
    dirty.reduce((sum, { start, end }) => sum + end - start, 0),
    'changedBytes is the sum of what is dirty',
  );

  assert.deepEqual(await pagedExtents(daemon, { exportId, capacity, maxExtents: 7 }), extents, 'pages of 7');
  const blocks = 1 + 2 * random.below(300);
  assert.deepEqual(
    await pagedBits(daemon, { exportId, capacity, blocks }),
    inBlocks(dirty, granularity, capacity),
    `pages of ${blocks} bits`,
  );
  for (let part = 0; part < 3; part++) {
    const offset = random.below(capacity);
    const length = 1 + random.below(capacity - offset);
    const page: ChangedExtents = await daemon.call('getChangedBlocks', { exportId, offset, length });
    const what = `${length} bytes from ${offset}`;
    assert.deepEqual(page.extents, clip(extents, offset, offset + length), what);
    assert.equal(page.nextOffset, offset + length < capacity ? offset + length : null, what);
  }

  const zeroes = await nbdinfoRanges(host, uri, 'base:allocation', FLAG.zero);
  assert.deepEqual(rangesOf(extents, 'zero'), zeroes, 'zeroes are those that nbdinfo sees');
}

function clip(extents: readonly Extent[], start: number, end: number): Extent[] {
  return extents.flatMap((extent) => {
    const from = Math.max(extent.start, start);
    const until = Math.min(extent.start + extent.length, end);
    return from < until ? [{ ...extent, start: from, length: until - from }] : [];
  });
}
