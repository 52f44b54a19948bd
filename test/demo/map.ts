/** A map of changed blocks for people: a drawing, a table, and what a reader makes of it. */
import type { Extent } from '../../agent/api/generated.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** One character a cell: `#` all of it dirty, `+` some, `.` none; `0` all of it dirty and zero, a discard for instance. */
export function drawing(extents: readonly Extent[], capacity: number, cells = 64): string {
  const cell = Math.ceil(capacity / cells);
  let row = '';
  for (let start = 0; start < capacity; start += cell) {
    const end = Math.min(capacity, start + cell);
    let [dirty, zero] = [0, 0];
    for (const extent of extents) {
      const overlap = Math.min(end, extent.start + extent.length) - Math.max(start, extent.start);
      if (!extent.dirty || overlap <= 0) continue;
      dirty += overlap;
      if (extent.zero) zero += overlap;
    }
    if (dirty === 0) row += '.';
    else if (dirty < end - start) row += '+';
    else row += zero === dirty ? '0' : '#';
  }
  return row;
}

/** Bytes that a reader of a map has to read: what is dirty, and not zeroes. */
export function toRead(extents: readonly Extent[]): number {
  return extents.reduce((sum, { length, dirty, zero }) => sum + (dirty && !zero ? length : 0), 0);
}

/** `64 KiB`, `3 MiB`, `33.125 MiB`, `0`: always exact. */
export function size(bytes: number): string {
  if (bytes === 0) return '0';
  if (bytes >= MIB && (bytes * 1000) % MIB === 0) return `${bytes / MIB} MiB`;
  return bytes % KIB === 0 ? `${bytes / KIB} KiB` : `${bytes} B`;
}

/**
 * A shell command that puts a point in time into a copy of the one before, or into a new, empty one, reading nothing but
 * what the map calls dirty and not zero: what a backup program does.
 */
export function copyByMap(extents: readonly Extent[], device: string, file: string): string {
  const capacity = extents.reduce((sum, { length }) => sum + length, 0);
  const copies = extents
    .filter(({ dirty }) => dirty)
    .map(
      ({ start, length, zero }) =>
        `dd if=${zero ? '/dev/zero' : device} of=${file} bs=1M iflag=skip_bytes,count_bytes oflag=seek_bytes ` +
        `skip=${zero ? 0 : start} seek=${start} count=${length} conv=notrunc status=none`,
    );
  return [`truncate -s ${capacity} ${file}`, ...copies].join(' && ');
}
