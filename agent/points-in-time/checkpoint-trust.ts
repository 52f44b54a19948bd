import { type CheckpointFacts, findCheckpoint, noSuchCheckpoint } from '../domains/checkpoints.js';
import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { knownFormat, readChain } from '../images/chain.js';
import {
  type CheckpointDiskRecord,
  type CheckpointRecord,
  type KnownFile,
  withinVm,
} from './checkpoint-record.js';
import type { PointsContext } from './context.js';

/** A disk as it is now, to be compared with what a checkpoint's record says. */
export type DiskNow = Omit<CheckpointDiskRecord, 'target'>;

/**
 * Whether a map from a checkpoint on can be trusted, as far as records and libvirt's knowledge tell; the bitmaps
 * themselves are libvirt's to judge when the job begins, or `bitmapLayers`' when the VM is off. Checkpoints that other
 * products made have no record here: for them the bitmaps alone speak.
 * @throws AgentError `CheckpointPending`, which no `ifUntracked` overrides; `NoSuchCheckpoint`, `NotTracked`,
 *   `InconsistentCheckpoint`
 */
export async function trustCheckpoint(
  { libvirt, checkpoints, points }: PointsContext,
  { domain }: DomainState,
  disk: DomainDisk,
  now: DiskNow & { format: string | null },
  since: string,
  signal: AbortSignal,
): Promise<void> {
  const about = { vmId: domain.uuid, disk: disk.target };
  const record = checkpoints.find(withinVm(domain.uuid, since));
  const ours = record !== undefined && record.ended === null;
  if (ours && record.state !== 'good') {
    throw new AgentError(
      'CheckpointPending',
      `The checkpoint "${since}" of ${domain.name} is not confirmed yet: the backup that it was made with has not been ` +
        'called good. End that with outcome "success", or name an earlier checkpoint.',
      about,
    );
  }
  const facts = await findCheckpoint(libvirt, domain, since, signal);
  if (facts === null) {
    if (!ours) throw noSuchCheckpoint(domain, since);
    throw new AgentError(
      'NoSuchCheckpoint',
      `libvirt has lost the checkpoint "${since}" of ${domain.name}; define it again with redefineCheckpoints, or take a full backup.`,
      about,
    );
  }
  if (!facts.disks.includes(disk.target)) {
    throw new AgentError(
      'NotTracked',
      `The checkpoint "${since}" of ${domain.name} does not cover ${disk.target}; take a full backup of it.`,
      about,
    );
  }
  if (!ours) return;
  const why = await whyUntrusted(record, facts, disk.target, now, points.allowedRoots);
  if (why === null) return;
  throw new AgentError(
    'InconsistentCheckpoint',
    `${untrusted(disk.target, domain.name, since, why)} Take a full backup with a new checkpoint, or set ifUntracked to "full".`,
    about,
  );
}

/** That a map is not to be trusted, as a sentence. @param why as `whyUntrusted` says */
export function untrusted(target: string, vm: string, since: string, why: string): string {
  return `The map of ${target} of ${vm} since "${since}" cannot be trusted: it ${why}.`;
}

/**
 * What a checkpoint's record tells against a map of a disk from it on, as the end of a sentence; null where nothing does.
 * @throws AgentError as `readChain`
 */
export async function whyUntrusted(
  record: CheckpointRecord,
  facts: Pick<CheckpointFacts, 'creationTime'>,
  target: string,
  now: DiskNow & { format: string | null },
  allowedRoots: readonly string[],
): Promise<string | null> {
  const then = record.disks.find((disk) => disk.target === target);
  if (then === undefined) return null;
  if (record.creationTime !== null && facts.creationTime !== record.creationTime) {
    return 'was made again by another tool';
  }
  return whyAnotherDisk(then, now) ?? whyCutShort(then, now, record.checkpoint, allowedRoots);
}

/** What tells that the disk is not the one of the checkpoint any more, as the end of a sentence; null where nothing does. */
function whyAnotherDisk(then: DiskNow, now: DiskNow): string | null {
  if (then.capacity !== now.capacity) return `had ${then.capacity} bytes then and has ${now.capacity} now`;
  const replaced = now.files.find((file) =>
    then.files.some((old) => old.path === file.path && !same(old, file)),
  );
  if (replaced !== undefined) return `lies in another file of the same name now (${replaced.path})`;
  if (!now.files.some((file) => then.files.some((old) => same(old, file)))) {
    return 'lies in none of the files that it lay in then';
  }
  return null;
}

/**
 * What tells that a part of the checkpoint's bitmap is missing at its lower end, where neither libvirt nor `bitmapLayers`
 * would miss it: they take the lowest layer that has the bitmap for the one where tracking began. A merge into an image
 * that can hold no bitmap (raw, qcow2 v2) leaves it in the overlays above alone. So the file that the VM wrote to when
 * the checkpoint was made, or the one that this was merged into, must have the bitmap.
 */
async function whyCutShort(
  then: DiskNow,
  now: DiskNow & { format: string | null },
  bitmap: string,
  allowedRoots: readonly string[],
): Promise<string | null> {
  const [top] = now.files;
  if (top === undefined) return null;
  const layers = await readChain(
    { path: top.path, format: knownFormat(now.format ?? '', top.path) },
    allowedRoots,
  );
  for (const old of then.files) {
    const depth = now.files.findIndex((file) => same(old, file));
    const file = now.files[depth];
    if (file === undefined) continue;
    // Of the top layer QEMU knows better than the file, and a top without the bitmap is refused in any case.
    if (depth === 0) return null;
    const layer = layers.find((one) => one.file.dev === file.dev && one.file.ino === file.ino);
    if (layer?.bitmaps.some(({ name }) => name === bitmap)) return null;
    return `was merged into ${file.path}, which has no bitmap of the checkpoint`;
  }
  return 'lies in none of the files that it lay in then';
}

function same(a: KnownFile, b: KnownFile): boolean {
  return a.ino === b.ino && a.born === b.born && (a.dev === b.dev || a.path === b.path);
}
