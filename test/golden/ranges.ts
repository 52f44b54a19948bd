/** Bytes from `start` up to, not including, `end`. */
export interface Range {
  start: number;
  end: number;
}

/** The same bytes as ranges in order that neither overlap nor touch. */
export function union(ranges: Iterable<Range>): Range[] {
  const merged: Range[] = [];
  for (const { start, end } of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else if (end > start) merged.push({ start, end });
  }
  return merged;
}

/** The ranges grown to whole blocks; the last block of a disk may be short. */
export function inBlocks(ranges: Iterable<Range>, block: number, capacity: number): Range[] {
  return union(
    [...ranges].map(({ start, end }) => ({
      start: Math.floor(start / block) * block,
      end: Math.min(Math.ceil(end / block) * block, capacity),
    })),
  );
}

/** The part of the first ranges that the second do not cover. Both in order, without overlap (see `union`). */
export function without(first: readonly Range[], second: readonly Range[]): Range[] {
  const left: Range[] = [];
  let index = 0;
  for (const { start, end } of first) {
    let at = start;
    while ((second[index]?.end ?? end) <= start) index += 1;
    for (let next = index; at < end; next += 1) {
      const cover = second[next] ?? { start: end, end };
      if (cover.start > at) left.push({ start: at, end: Math.min(cover.start, end) });
      at = Math.max(at, cover.end);
    }
  }
  return left;
}
