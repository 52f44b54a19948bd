import { open } from 'node:fs/promises';
import { type BlockStatusPage, blockStatus } from '../nbd/block-status.js';
import { NbdClient } from '../nbd/client.js';
import { State } from '../nbd/constants.js';
import { BlockBits, bitmapBytes } from './bits.js';
import { coalesce, type Extent, overlay, type Run } from './extents.js';

/** QEMU, docs/interop/nbd.txt, "qemu:dirty-bitmap:NAME": the range is dirty. */
const STATE_DIRTY = 1 << 0;
/** Tells which ranges read as zeroes; every map asks for it. */
export const ALLOCATION_CONTEXT = 'base:allocation';
/**
 * QEMU, docs/interop/nbd.txt, "qemu:allocation-depth": 0 where no layer has the range, 1 where the top one does, and
 * so on down the backing chain.
 */
export const DEPTH_CONTEXT = 'qemu:allocation-depth';

/** Which blocks hold data, read once: bits in a file of ours, set where any byte of the block may not be zero. */
export interface KeptData {
  file: string;
  granularity: number;
}

/** What makes a range dirty. Plain data, as it stands in an export's record. */
export type MapSource =
  /** A full map: what does not read as zeroes holds data. */
  | { kind: 'allocation'; data?: KeptData }
  /** One bitmap of the export, by its NBD meta context. */
  | { kind: 'bitmap'; context: string; data?: KeptData }
  /** Written above a layer: what lies in one of the `layers` topmost ones. A discard lies there too, and reads as zeroes. */
  | { kind: 'depth'; layers: number }
  /** Bits merged from the bitmaps of several layers, in a file of ours that lives as long as the export. */
  | { kind: 'bits'; file: string; granularity: number };

/** Where an export is served, and the deadline of each step. */
export interface ServedExport {
  socket: string;
  exportName: string;
  /** Milliseconds for connecting, and for each request. */
  timeoutMs: number;
  signal: AbortSignal;
}

function contextsOf(source: MapSource): string[] {
  if (source.kind === 'bitmap') return [ALLOCATION_CONTEXT, source.context];
  return source.kind === 'depth' ? [ALLOCATION_CONTEXT, DEPTH_CONTEXT] : [ALLOCATION_CONTEXT];
}

/** A source, and the unit in bytes in which it tells changes. */
export interface MapOrigin {
  source: MapSource;
  granularity: number;
}

/**
 * Blocks of the tracking unit that one request asks for. QEMU puts up to 2^17 extents of each context into an
 * answer; a page needs a fraction of that, and reading it must not take more memory for all that lies behind it.
 */
const BLOCKS_PER_REQUEST = 8192;

/** The longest request for the status of blocks of this size, in bytes. */
export function longestRequest(granularity: number): number {
  return BLOCKS_PER_REQUEST * granularity;
}

/**
 * The map of a range of an export: extents in order, without gap or overlap, neighbours that say the same joined.
 * Memory is bounded whatever the size of the disk; the connection lives as long as the iteration.
 * @param length in bytes; undefined: to the end of the disk
 */
export async function* mapOf(
  served: ServedExport,
  { source, granularity }: MapOrigin,
  offset: number,
  length: number | undefined,
): AsyncGenerator<Extent> {
  const { timeoutMs, signal } = served;
  const client = await NbdClient.connect(
    { transport: 'unix', socket: served.socket },
    { exportName: served.exportName, contexts: contextsOf(source), timeoutMs, signal },
  );
  try {
    const pages = blockStatus(client, {
      offset,
      length: length ?? client.facts.size - offset,
      longestRequest: longestRequest(granularity),
      timeoutMs,
      signal,
    });
    yield* coalesce(withDirtiness(pages, source, client.facts.size));
  } finally {
    await client.close();
  }
}

async function* withDirtiness(
  pages: AsyncIterable<BlockStatusPage>,
  source: MapSource,
  capacity: number,
): AsyncGenerator<Extent> {
  for await (const page of pages) {
    const zeroes = await zeroRuns(page, source, capacity);
    if (source.kind === 'allocation') {
      for (const { start, length, value: zero } of zeroes) yield { start, length, dirty: !zero, zero };
    } else {
      const dirty = await dirtyRuns(page, source, capacity);
      for (const { start, length, value } of overlay(dirty, zeroes)) {
        yield { start, length, dirty: value[0], zero: value[1] };
      }
    }
  }
}

async function zeroRuns(
  page: BlockStatusPage,
  source: MapSource,
  capacity: number,
): Promise<Iterable<Run<boolean>>> {
  const data = 'data' in source ? source.data : undefined;
  if (data === undefined) return runs(page, ALLOCATION_CONTEXT, (flags) => (flags & State.ZERO) !== 0);
  return inverted(await readBitRuns(data.file, data.granularity, capacity, page.start, page.length));
}

function* inverted(given: Iterable<Run<boolean>>): Generator<Run<boolean>> {
  for (const { value, ...range } of given) yield { ...range, value: !value };
}

async function dirtyRuns(
  page: BlockStatusPage,
  source: Exclude<MapSource, { kind: 'allocation' }>,
  capacity: number,
): Promise<Iterable<Run<boolean>>> {
  switch (source.kind) {
    case 'bitmap':
      return runs(page, source.context, (flags) => (flags & STATE_DIRTY) !== 0);
    case 'depth':
      return runs(page, DEPTH_CONTEXT, (depth) => depth >= 1 && depth <= source.layers);
    case 'bits':
      return readBitRuns(source.file, source.granularity, capacity, page.start, page.length);
  }
}

function* runs(
  page: BlockStatusPage,
  context: string,
  holds: (flags: number) => boolean,
): Generator<Run<boolean>> {
  const extents = page.extents.get(context);
  if (extents === undefined) throw new Error(`the server left the context ${context} out`);
  for (const { start, length, flags } of extents) yield { start, length, value: holds(flags) };
}

/** Reads the part of a bits file that covers a range, and its runs. */
async function readBitRuns(
  path: string,
  granularity: number,
  capacity: number,
  start: number,
  length: number,
): Promise<Iterable<Run<boolean>>> {
  const span = granularity * 8;
  const from = Math.floor(start / span) * span;
  const bytes = Buffer.alloc(bitmapBytes(Math.min(capacity, start + length) - from, granularity));
  const file = await open(path, 'r');
  try {
    const { bytesRead } = await file.read(bytes, 0, bytes.length, from / span);
    if (bytesRead !== bytes.length) throw new Error(`${path} is shorter than the map it holds`);
  } finally {
    await file.close();
  }
  return new BlockBits(granularity, from, bytes.length * span, bytes).runs(start, length);
}
