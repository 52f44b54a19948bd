import assert from 'node:assert/strict';
import type { ChangedBitmap, ChangedExtents } from '../../agent/api/generated.js';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { RpcConnection } from '../host/daemon.js';
import { type Range, union } from './ranges.js';

type Caller = Pick<RpcConnection, 'call'>;

/** The extents of a map cover the disk in order, without gap or overlap, and neighbours differ. */
export function assertWhole(extents: readonly Extent[], start: number, end: number): void {
  let at = start;
  let last: Extent | undefined;
  for (const extent of extents) {
    assert.equal(extent.start, at, 'an extent begins where the one before it ended');
    assert.ok(extent.length > 0, 'no extent is empty');
    assert.ok(
      last === undefined || last.dirty !== extent.dirty || last.zero !== extent.zero,
      `the neighbours at ${at} differ`,
    );
    at += extent.length;
    last = extent;
  }
  assert.equal(at, end, 'the extents end where the disk, or the page, ends');
}

/** Reads a whole map in pages of extents, from `offset` on; every page must fit to the next. */
export async function pagedExtents(
  daemon: Caller,
  { exportId, capacity, maxExtents, offset = 0 }: PagedExtents,
  onPage: () => void = () => {},
): Promise<Extent[]> {
  const all: Extent[] = [];
  let next: number | null = offset;
  while (next !== null) {
    const from: number = next;
    const page: ChangedExtents = await daemon.call('getChangedBlocks', {
      exportId,
      offset: from,
      maxExtents,
    });
    assert.ok(
      page.extents.length > 0 && page.extents.length <= maxExtents,
      'a page is neither empty nor too long',
    );
    assertWhole(page.extents, from, page.nextOffset ?? capacity);
    all.push(...page.extents);
    next = page.nextOffset;
    onPage();
  }
  return all;
}

export interface PagedExtents {
  exportId: string;
  capacity: number;
  maxExtents: number;
  offset?: number;
}

/**
 * Reads a whole map in pages of bits and returns what is dirty, in whole blocks but for the disk's end.
 * @param blocks blocks a page; absent: as many as the daemon gives
 */
export async function pagedBits(
  daemon: Caller,
  { exportId, capacity, blocks }: { exportId: string; capacity: number; blocks?: number },
  onPage: () => void = () => {},
): Promise<Range[]> {
  const dirty: Range[] = [];
  let next: number | null = 0;
  let granularity = 0;
  while (next !== null) {
    const from: number = next;
    // The first page tells the granularity, of which lengths are multiples.
    const length = blocks === undefined || granularity === 0 ? undefined : blocks * granularity;
    const page: ChangedBitmap = await daemon.call('getChangedBlocks', {
      exportId,
      offset: from,
      encoding: 'bitmap',
      ...(length !== undefined && { length: Math.min(length, capacity - from) }),
    });
    const restarts = blocks !== undefined && granularity === 0;
    granularity = page.granularity;
    if (restarts) continue;
    const end = page.nextOffset ?? capacity;
    const bits = Buffer.from(page.bitmap, 'base64');
    assert.ok(bits.length <= 1024 * 1024, 'a page is at most 1 MiB');
    assert.equal(
      bits.length,
      Math.ceil(Math.ceil((end - from) / granularity) / 8),
      'a page has a bit a block',
    );
    for (const { start, end: stop } of setBits(bits)) {
      dirty.push({ start: from + start * granularity, end: Math.min(from + stop * granularity, capacity) });
    }
    next = page.nextOffset;
    onPage();
  }
  return union(dirty);
}

/** The runs of set bits, by index. */
function* setBits(bits: Buffer): Generator<Range> {
  let start: number | undefined;
  for (let index = 0; index < bits.length * 8; index++) {
    const set = (((bits[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
    if (set && start === undefined) start = index;
    if (!set && start !== undefined) {
      yield { start, end: index };
      start = undefined;
    }
  }
  if (start !== undefined) yield { start, end: bits.length * 8 };
}
