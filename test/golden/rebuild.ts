import { copyFileSync, readFileSync, truncateSync } from 'node:fs';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { Host } from '../host/host.js';

/** What a backup tool does on its side, with libnbd: reads what holds changed data, and makes the rest zeroes. */
const APPLY = `
import json, os, sys
job = json.load(sys.stdin)
target = os.open(job["target"], os.O_RDWR)
for start, length in job["read"]:
    while length > 0:
        part = min(length, 1 << 20)
        assert os.pwrite(target, h.pread(part, start), start) == part
        start, length = start + part, length - part
for start, length in job["zero"]:
    assert os.pwrite(target, bytes(length), start) == length
os.close(target)
`;

/**
 * Makes `target` from a copy of the disk as it was (null: an empty disk) and the changed blocks of a map, read
 * over NBD. Blocks that the map calls unchanged are not read, so that what it lacks shows.
 */
export async function rebuild(
  host: Host,
  { base, target, capacity, uri, extents }: RebuildRequest,
): Promise<void> {
  copyFileSync(base ?? '/dev/null', target);
  truncateSync(target, capacity);
  const pairs = (zero: boolean): [number, number][] =>
    extents
      .filter((extent) => extent.dirty && extent.zero === zero)
      .map(({ start, length }) => [start, length]);
  const job = { target, read: pairs(false), zero: pairs(true) };
  await host.must('nbdsh', ['-u', uri, '-c', APPLY], { input: JSON.stringify(job) });
}

export interface RebuildRequest {
  base: string | null;
  target: string;
  /** Bytes. */
  capacity: number;
  uri: string;
  extents: readonly Extent[];
}

/** Where two files begin to differ; null when they are the same, byte for byte and in length. */
export function firstDifference(one: string, other: string): number | null {
  const [a, b] = [readFileSync(one), readFileSync(other)];
  if (a.equals(b)) return null;
  const common = Math.min(a.length, b.length);
  for (let at = 0; at < common; at++) if (a[at] !== b[at]) return at;
  return common;
}
