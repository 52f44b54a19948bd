/** A run of bytes of a disk, and what a map says of it. `start` and `length` are bytes. */
export interface Extent {
  start: number;
  length: number;
  /** Changed since the reference point; in a full map: holds data. */
  dirty: boolean;
  /** Reads as zeroes. A range discarded since the reference point is dirty and zero. */
  zero: boolean;
}

/** A run with one value; lists of runs are in order and leave nothing out. */
export interface Run<T> {
  start: number;
  length: number;
  value: T;
}

/**
 * Lays two lists of runs over each other: the result has a border wherever one of them has.
 * Both must cover the same range; it ends where the shorter one ends.
 */
export function* overlay<A, B>(first: Iterable<Run<A>>, second: Iterable<Run<B>>): Generator<Run<[A, B]>> {
  const firsts = first[Symbol.iterator]();
  const seconds = second[Symbol.iterator]();
  let a = firsts.next();
  let b = seconds.next();
  while (!a.done && !b.done) {
    const start = Math.max(a.value.start, b.value.start);
    const endA = a.value.start + a.value.length;
    const endB = b.value.start + b.value.length;
    const end = Math.min(endA, endB);
    if (end > start) yield { start, length: end - start, value: [a.value.value, b.value.value] };
    if (endA === end) a = firsts.next();
    if (endB === end) b = seconds.next();
  }
}

/** Joins neighbours that say the same, over the whole stream. */
export async function* coalesce(extents: AsyncIterable<Extent>): AsyncGenerator<Extent> {
  let open: Extent | undefined;
  for await (const extent of extents) {
    if (open !== undefined && open.dirty === extent.dirty && open.zero === extent.zero) {
      open = { ...open, length: open.length + extent.length };
    } else {
      if (open !== undefined) yield open;
      open = extent;
    }
  }
  if (open !== undefined) yield open;
}

/** A part of a map. `nextOffset` is where the next page begins; null when this one reaches the end of the disk. */
export interface ExtentPage {
  extents: Extent[];
  nextOffset: number | null;
}

/**
 * The first `maxExtents` extents of a stream.
 * @param end where the range that was asked for ends, in bytes
 * @param capacity the disk's size: only a page that reaches it has no next one
 */
export async function pageOf(
  extents: AsyncIterable<Extent>,
  maxExtents: number,
  end: number,
  capacity: number,
): Promise<ExtentPage> {
  const page: Extent[] = [];
  for await (const extent of extents) {
    if (page.length === maxExtents) return { extents: page, nextOffset: extent.start };
    page.push(extent);
  }
  return { extents: page, nextOffset: end < capacity ? end : null };
}
