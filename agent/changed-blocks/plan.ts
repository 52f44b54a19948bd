import type { ImageBitmap } from '../images/qcow2.js';
import { type BitmapLayer, bitmapLayers } from './bitmap-chain.js';

/** The tracking unit of maps that come from allocation: qcow2's usual cluster. */
export const ALLOCATION_GRANULARITY = 65536;
/** The most memory that merging bitmaps may take, and the size of the bits file, in bytes. */
const MAX_BITS = 32 * 1024 * 1024;

/** How the map of an export is to be had, before its server is started. */
export type MapPlan<L extends BitmapLayer> =
  | { mode: 'full'; origin: 'allocation'; granularity: number }
  | {
      mode: 'incremental';
      origin: 'bitmap';
      bitmap: string;
      granularity: number;
      /** The layers whose bitmaps are merged, top first. With one alone the export itself serves the whole map. */
      layers: L[];
    }
  /** What was written above the chain's layer number `layers` (counted from 0 at the top). */
  | { mode: 'incremental'; origin: 'depth'; granularity: number; layers: number };

/** The plan of a full map: what holds data. */
export function fullPlan(): MapPlan<never> {
  return { mode: 'full', origin: 'allocation', granularity: ALLOCATION_GRANULARITY };
}

/**
 * The plan of a map of what was written above a layer of the chain, from allocation depth. Right as long as nothing at
 * or below that layer changes while the export lives.
 * @param layers how many layers lie above it
 */
export function depthPlan(layers: number): MapPlan<never> {
  return { mode: 'incremental', origin: 'depth', granularity: ALLOCATION_GRANULARITY, layers };
}

/**
 * The plan of a map since a named bitmap of the image.
 * @param chain the layers, top first
 * @throws AgentError `BitmapDoesNotExist`, `InvalidBitmapChain`, `InconsistentCheckpoint`
 */
export function bitmapPlan<L extends BitmapLayer>(
  chain: readonly L[],
  bitmap: string,
): Extract<MapPlan<L>, { origin: 'bitmap' }> {
  const layers = bitmapLayers(chain, bitmap);
  const granularities = layers.map((layer) => granularityOf(layer.bitmaps, bitmap));
  const granularity =
    layers.length === 1
      ? Math.max(...granularities)
      : affordable(Math.min(...granularities), chain[0]?.capacity ?? 0);
  return { mode: 'incremental', origin: 'bitmap', bitmap, granularity, layers };
}

function granularityOf(bitmaps: readonly ImageBitmap[], name: string): number {
  return bitmaps.find((bitmap) => bitmap.name === name)?.granularity ?? ALLOCATION_GRANULARITY;
}

/** A unit in which bits of the disk fit into memory. Coarser units call more dirty than is, never less. */
export function affordable(granularity: number, capacity: number): number {
  let coarser = granularity;
  while (capacity / coarser / 8 > MAX_BITS) coarser *= 2;
  return coarser;
}
