import { bitmapLayers } from '../changed-blocks/bitmap-chain.js';
import type { CheckpointFacts } from '../domains/checkpoints.js';
import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { hasMovedAway } from '../domains/migration.js';
import { AgentError } from '../errors.js';
import { knownFormat, type Layer, readChain } from '../images/chain.js';
import type { PointsContext } from './context.js';

/**
 * Which checkpoints of a VM that is off have no sound bitmaps in its images, by the rules of a map from them. Images that
 * cannot be looked at, or that the VM has open on another host, tell nothing.
 * @returns name to what is wrong, as a sentence
 */
export async function brokenOff(
  { libvirt, points }: Pick<PointsContext, 'libvirt' | 'points'>,
  { domain, config }: DomainState,
  checkpoints: readonly CheckpointFacts[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const broken = new Map<string, string>();
  if (await hasMovedAway(libvirt, domain, signal)) return broken;
  for (const disk of config.disks) {
    const covering = checkpoints.filter(({ disks }) => disks.includes(disk.target));
    const layers = covering.length > 0 ? await layersOf(disk, points.allowedRoots) : null;
    if (layers === null) continue;
    for (const { name } of covering) {
      const why = whyUnsound(layers, name);
      if (why !== null) broken.set(name, why);
    }
  }
  return broken;
}

async function layersOf({ source }: DomainDisk, allowedRoots: readonly string[]): Promise<Layer[] | null> {
  const { path, format } = source;
  if (path === null) return null;
  try {
    return await readChain({ path, format: knownFormat(format ?? '', path) }, allowedRoots);
  } catch (error) {
    if (error instanceof AgentError) return null;
    throw error;
  }
}

function whyUnsound(layers: readonly Layer[], name: string): string | null {
  try {
    bitmapLayers(layers, name);
    return null;
  } catch (error) {
    if (error instanceof AgentError) return error.message;
    throw error;
  }
}
