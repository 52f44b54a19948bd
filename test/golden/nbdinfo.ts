import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { Host } from '../host/host.js';
import { type Range, union } from './ranges.js';

/** NBD protocol, "base:allocation": reads as zeroes. QEMU, docs/interop/nbd.txt: the first bit of a bitmap is dirty. */
export const FLAG = { zero: 2, dirty: 1 } as const;

/** The ranges that have a flag in a meta context, as libnbd's nbdinfo reads them. `from`: a URI, or a server to run. */
export async function nbdinfoRanges(
  host: Host,
  from: string | readonly string[],
  context: string,
  flag: number,
): Promise<Range[]> {
  const server = typeof from === 'string' ? [from] : ['--', '[', ...from, ']'];
  const answer = await host.must('nbdinfo', [`--map=${context}`, '--json', ...server]);
  const extents = JSON.parse(answer) as { offset: number; length: number; type: number }[];
  return union(
    extents
      .filter(({ type }) => (type & flag) !== 0)
      .map(({ offset, length }) => ({ start: offset, end: offset + length })),
  );
}

/** The ranges of a map of ours that are dirty, or that read as zeroes. */
export function rangesOf(extents: readonly Extent[], which: 'dirty' | 'zero'): Range[] {
  return union(
    extents.filter((extent) => extent[which]).map(({ start, length }) => ({ start, end: start + length })),
  );
}
