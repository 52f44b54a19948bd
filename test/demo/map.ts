/** A map of changed blocks for people: a drawing, a table, and what a reader makes of it. */
import type { Extent } from '../../agent/api/generated.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** One character a cell: `#` all dirty, `+` some of it, `.` none. */
export function drawing(extents: readonly Extent[], capacity: number, cells = 64): string {
  const cell = Math.ceil(capacity / cells);
  let row = '';
  for (let start = 0; start < capacity; start += cell) {
    const end = Math.min(capacity, start + cell);
    let dirty = 0;
    for (const extent of extents) {
      const overlap = Math.min(end, extent.start + extent.length) - Math.max(start, extent.start);
      if (extent.dirty && overlap > 0) dirty += overlap;
    }
    row += dirty === 0 ? '.' : dirty === end - start ? '#' : '+';
  }
  return row;
}

/** `start length what` of each extent. */
export function table(extents: readonly Extent[]): string[] {
  const row = (start: string, length: string, what: string): string =>
    `${start.padStart(10)} ${length.padStart(10)}  ${what}`;
  return [
    row('start', 'length', ''),
    ...extents.map(({ start, length, dirty, zero }) =>
      row(
        size(start),
        size(length),
        dirty ? (zero ? 'dirty, reads as zeroes' : 'data') : zero ? 'zeroes' : 'clean',
      ),
    ),
  ].map((text) => text.trimEnd());
}

/** `64 KiB`, `3 MiB`, `33.125 MiB`, `0`: always exact. */
export function size(bytes: number): string {
  if (bytes === 0) return '0';
  if (bytes >= MIB && (bytes * 1000) % MIB === 0) return `${bytes / MIB} MiB`;
  return bytes % KIB === 0 ? `${bytes / KIB} KiB` : `${bytes} B`;
}

/**
 * A shell command that copies a device into a new, sparse file, reading nothing but what a full map calls data: what
 * a backup program does.
 */
export function copyByMap(extents: readonly Extent[], device: string, file: string): string {
  const capacity = extents.reduce((sum, { length }) => sum + length, 0);
  const copies = extents
    .filter(({ dirty }) => dirty)
    .map(
      ({ start, length }) =>
        `dd if=${device} of=${file} bs=1M iflag=skip_bytes,count_bytes oflag=seek_bytes ` +
        `skip=${start} seek=${start} count=${length} conv=notrunc status=none`,
    );
  return [`truncate -s ${capacity} ${file}`, ...copies].join(' && ');
}
