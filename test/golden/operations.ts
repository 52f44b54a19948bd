import type { SeededRandom } from './random.js';
import type { Range } from './ranges.js';

/**
 * What is done to a disk. `write` goes past the guest's page cache, `cached` through it; `blank` writes a buffer of
 * zeroes (which QEMU may turn into a request to write zeroes); `zero` is BLKZEROOUT, `punch` the same with leave to
 * unmap, `discard` BLKDISCARD.
 */
export type OperationKind = 'write' | 'cached' | 'blank' | 'zero' | 'punch' | 'discard';

/** Offsets and lengths are bytes, multiples of a sector. */
export interface Operation {
  kind: OperationKind;
  offset: number;
  length: number;
  /** Where in the pool of random bytes the data of a write begins. */
  source: number;
}

const SECTOR = 512;
/** What the guest's page cache reads and writes at a time. */
const PAGE = 4096;
/** Bytes of random data that the guest keeps to write from. */
export const POOL = 4 * 1024 * 1024;
const LONGEST = 1024 * 1024;

/** Operations of every kind, short and long, aligned and not, some at the disk's ends and some over one another. */
export function planOperations(random: SeededRandom, capacity: number, count: number): Operation[] {
  return Array.from({ length: count }, () => {
    const unit = random.pick([SECTOR, SECTOR, 4096, 65536]);
    const most = random.pick([4096, 65536, 262_144, LONGEST]);
    const length = Math.min(Math.max(unit, random.below(most / unit) * unit), capacity);
    const last = capacity - length;
    const anywhere = Math.floor(random.below(last + 1) / unit) * unit;
    const offset = random.chance(0.05) ? last : random.chance(0.05) ? 0 : anywhere;
    return {
      kind: random.pick([
        'write',
        'write',
        'write',
        'cached',
        'blank',
        'zero',
        'punch',
        'discard',
        'discard',
      ]),
      offset,
      length,
      source: random.below((POOL - LONGEST) / SECTOR) * SECTOR,
    };
  });
}

/** The bytes that an operation reaches: neither less nor more may be recorded, but for the tracking unit. */
export function touched(
  { kind, offset, length }: Operation,
  capacity: number,
): { least: Range; most: Range } {
  const least = { start: offset, end: offset + length };
  if (kind !== 'cached') return { least, most: least };
  const most = {
    start: Math.floor(offset / PAGE) * PAGE,
    end: Math.min(Math.ceil((offset + length) / PAGE) * PAGE, capacity),
  };
  return { least, most };
}

/** Shell commands for the guest that make its pool of random bytes. */
export const makePool = (seed: string): string => `write-random /tmp/pool 0 ${POOL} ${seed}`;

/** A shell script for the guest: the operations on a device one after another, the first failure ends it. */
export function guestScript(operations: readonly Operation[], device: string): string {
  return ['set -e', ...operations.map((operation) => guestCommand(operation, device))].join('\n');
}

function guestCommand({ kind, offset, length, source }: Operation, device: string): string {
  const dd = (from: string, flags: string, conv: string): string =>
    `dd if=${from} of=${device} bs=${length} count=1 iflag=skip_bytes,fullblock ` +
    `seek=${offset} oflag=seek_bytes${flags} conv=notrunc${conv} status=none`;
  switch (kind) {
    case 'write':
      return dd(`/tmp/pool skip=${source}`, ',direct', '');
    case 'cached':
      return dd(`/tmp/pool skip=${source}`, '', ',fsync');
    case 'blank':
      return dd('/dev/zero', ',direct', '');
    case 'zero':
      return `zero-range ${device} ${offset} ${length}`;
    case 'punch':
      return `fallocate --punch-hole --offset ${offset} --length ${length} ${device}`;
    case 'discard':
      return `discard-range ${device} ${offset} ${length}`;
  }
}

/** The same operations as arguments of qemu-io, for a layer that no guest has written to. */
export function qemuIoArguments(operations: readonly Operation[]): string[] {
  return operations.flatMap(({ kind, offset, length, source }) => {
    const pattern = 1 + ((source / SECTOR) % 255);
    const commands = {
      write: `write -P ${pattern} ${offset} ${length}`,
      cached: `write -P ${pattern} ${offset} ${length}`,
      blank: `write -P 0 ${offset} ${length}`,
      zero: `write -z ${offset} ${length}`,
      punch: `write -z -u ${offset} ${length}`,
      discard: `discard ${offset} ${length}`,
    };
    return ['-c', commands[kind]];
  });
}
