import { bitmapLayers } from '../changed-blocks/bitmap-chain.js';
import { type CheckpointFacts, whyBroken } from '../domains/checkpoints.js';
import type { DomainDisk } from '../domains/config.js';
import { whyUnsupported } from '../domains/disks.js';
import type { DomainState } from '../domains/lookup.js';
import { hasMovedAway } from '../domains/migration.js';
import { AgentError } from '../errors.js';
import { knownFormat, type Layer, readChain } from '../images/chain.js';
import type { CheckpointRecord } from './checkpoint-record.js';
import { type DiskNow, untrusted, whyUntrusted } from './checkpoint-trust.js';
import type { PointsContext } from './context.js';
import { diskNow, knownFiles } from './disk-now.js';

type Context = Pick<PointsContext, 'libvirt' | 'points'>;

/** A disk that can be exported, as the rules look at it; `layers` only where the VM is off: else QEMU knows its bitmaps. */
interface JudgedDisk {
  disk: DomainDisk;
  now: DiskNow & { format: string | null };
  layers: readonly Layer[] | null;
}

/**
 * Which checkpoints a map from them on would be refused of, by the very rules of that: what the record says of the disk
 * then, the bitmaps in the images of a VM that is off, those in the QEMU of one that runs. Of a disk that cannot be looked
 * at, or that the VM has open on another host, nothing is told.
 * @param recordOf ours; undefined for another product's
 * @returns name to what is wrong, as a sentence
 */
export async function brokenCheckpoints(
  context: Context,
  state: DomainState,
  checkpoints: readonly CheckpointFacts[],
  recordOf: (name: string) => CheckpointRecord | undefined,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const { libvirt, points } = context;
  const { domain, running, config } = state;
  const broken = new Map<string, string>();
  if (!running && (await hasMovedAway(libvirt, domain, signal))) return broken;
  for (const disk of config.disks) {
    const covering = checkpoints.filter(({ disks }) => disks.includes(disk.target));
    const judged = covering.length > 0 ? await lookAt(context, state, disk, signal) : null;
    if (judged === null) continue;
    for (const facts of covering) {
      const why = await whyRefused(judged, facts, recordOf(facts.name), domain.name, points.allowedRoots);
      if (why !== null && !broken.has(facts.name)) broken.set(facts.name, why);
    }
  }
  if (!running) return broken;
  for (const { name } of checkpoints) {
    if (broken.has(name)) continue;
    const why = await whyBroken(libvirt, domain, name, signal);
    if (why !== null) broken.set(name, why);
  }
  return broken;
}

async function lookAt(
  { libvirt, points }: Context,
  state: DomainState,
  disk: DomainDisk,
  signal: AbortSignal,
): Promise<JudgedDisk | null> {
  if (whyUnsupported(disk) !== null) return null;
  const { path, format } = disk.source;
  try {
    if (state.running) {
      const now = await diskNow(libvirt, state, disk, points.allowedRoots, signal);
      return { disk, now: { ...now, format }, layers: null };
    }
    const top = { path: path ?? '', format: knownFormat(format ?? '', path ?? '') };
    const layers = await readChain(top, points.allowedRoots);
    const files = await knownFiles(layers.map((layer) => layer.path));
    return { disk, now: { capacity: layers[0]?.capacity ?? 0, files, format }, layers };
  } catch (error) {
    if (error instanceof AgentError) return null;
    throw error;
  }
}

async function whyRefused(
  { disk, now, layers }: JudgedDisk,
  facts: CheckpointFacts,
  record: CheckpointRecord | undefined,
  vm: string,
  allowedRoots: readonly string[],
): Promise<string | null> {
  try {
    // One that is not confirmed yet is refused for that alone.
    if (record?.state === 'good') {
      const why = await whyUntrusted(record, facts, disk.target, now, allowedRoots);
      if (why !== null) return untrusted(disk.target, vm, facts.name, why);
    }
    if (layers !== null) bitmapLayers(layers, facts.name);
    return null;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    // Of an image that cannot be read nothing is told; the rules of bitmaps have these names.
    const ofBitmaps = ['InconsistentCheckpoint', 'InvalidBitmapChain', 'BitmapDoesNotExist'];
    return ofBitmaps.includes(error.name) ? error.message : null;
  }
}
