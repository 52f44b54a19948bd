import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import type { BackedUpDisk } from './backup-disks.js';
import { assertConsistent, type Rig } from './map-checks.js';
import type { SeededRandom } from './random.js';
import { firstDifference, rebuild } from './rebuild.js';

/** States of disks that the client has from an earlier run, at the instant of a checkpoint or a snapshot. */
export interface Held {
  /** The checkpoint's or snapshot's name. */
  name: string;
  /** Raw files by the disks' targets. */
  states: Map<string, string>;
  /** Its place in time: those with lower numbers are older. */
  at: number;
}

/** A snapshot; `pending` is the checkpoint that was made with it, which waits for what becomes of the backup. */
export interface HeldSnapshot extends Held {
  pending: { name: string; disks: readonly BackedUpDisk[] } | null;
}

/** What a map is expected to be. */
export interface ExpectedKind {
  /** What it counts from; undefined: a full run. */
  from: Held | undefined;
  /** `full`: none can be had from there on. */
  mode: 'incremental' | 'full';
  origin: 'bitmap' | 'depth';
}

/** Full where nothing else can be had, and incremental in all other cases. */
export function assertKind(
  { target, format, capacity }: BackedUpDisk,
  { cbt, drive }: PrepareBackupDiskResult,
  { from, mode, origin }: ExpectedKind,
): void {
  assert.equal(drive.capacity, capacity);
  assert.equal(cbt.nextOffset, null, 'the map came in full');
  if (from === undefined || mode === 'full') {
    assert.equal(cbt.mode, 'full', `${target}: nothing to count from`);
    assert.equal(cbt.reason !== undefined, from !== undefined, `${target}: a reason where less was wanted`);
    return;
  }
  if (cbt.mode === 'incremental') {
    assert.equal(cbt.origin, origin);
    assert.deepEqual(cbt.since, origin === 'depth' ? { snapshot: from.name } : { checkpoint: from.name });
    return;
  }
  // A raw image holds no bitmaps: what its overlay had is lost when that is merged.
  const excused = format === 'raw' && origin === 'bitmap' && cbt.reason !== undefined;
  assert.ok(excused, `${target}: the map since ${from.name} is full: ${cbt.reason?.message}`);
}

/**
 * Holds what the map says to read, laid over what the client has, against a copy of the whole export. Returns the file
 * of the copy.
 * @param copy where to put it
 */
export async function assertGivesDisk(
  rig: Rig,
  { target, capacity }: BackedUpDisk,
  result: PrepareBackupDiskResult,
  { from, copy, random }: { from: Held | undefined; copy: string; random: SeededRandom },
): Promise<void> {
  const { uri, cbt } = result;
  const rebuilt = `${copy}.rebuilt`;
  const base = cbt.mode === 'full' ? null : from?.states.get(target);
  if (base === undefined) throw new Error(`${target}: there is nothing from ${from?.name}`);
  // Before data is read: what QEMU calls a hole depends on the host's page cache.
  if (random.chance(0.2)) await assertConsistent(rig, result, random, { live: isLive(result) });
  await Promise.all([
    // Every byte is read, also where the server says that there is none: what it says is what is tested.
    rig.host.must('nbdcopy', ['--no-extents', uri, copy]),
    rebuild(rig.host, { base, target: rebuilt, capacity, uri, extents: cbt.extents }),
  ]);
  assert.equal(
    firstDifference(rebuilt, copy),
    null,
    `${target}: ${from?.name ?? 'nothing'} and the blocks of the ${cbt.mode} map (${cbt.origin}) give the point in time`,
  );
  rmSync(rebuilt);
  assertZeroes(copy, cbt.extents);
}

/** Served by the VM's own QEMU: one socket for all disks of a backup job, which no export's directory has. */
const isLive = ({ uri }: PrepareBackupDiskResult): boolean => uri.includes('/backups/');

function assertZeroes(file: string, extents: readonly Extent[]): void {
  const content = readFileSync(file);
  for (const { start, length, zero } of extents) {
    if (zero) assert.ok(isZero(content.subarray(start, start + length)), `${length} zeroes from ${start}`);
  }
}

const isZero = (bytes: Buffer): boolean => bytes.equals(Buffer.alloc(bytes.length));
