import type { Wait } from '../host/process-wait.js';
import type { NbdClient } from './client.js';
import { NbdError, protocolError } from './error.js';
import type { Extent } from './transmission.js';

/**
 * Bytes of one request with 64-bit headers, where the protocol sets no bound: a server may look through all of it
 * before it answers, within the deadline of one request.
 */
const longestExtendedRequest = 2 ** 36;

export interface BlockStatusOptions extends Wait {
  /** Bytes of the export, need not be aligned; the whole export where absent. */
  readonly offset?: number;
  readonly length?: number;
  /** Some of the client's contexts; all where absent. */
  readonly contexts?: readonly string[];
  /** Bytes; absent: as long as the protocol and the server's block sizes allow. */
  readonly longestRequest?: number;
}

/** A stretch of the export, known in every context. */
export interface BlockStatusPage {
  readonly start: number;
  readonly length: number;
  /**
   * By context: extents in order, from `start` without gap or overlap exactly to the page's end; neighbours of
   * equal flags are joined (not across pages).
   */
  readonly extents: ReadonlyMap<string, readonly Extent[]>;
}

/**
 * The status of a range, as pages that follow one another without gap or overlap from its start exactly to its end.
 * One page is what one request brought for all contexts alike: a server may answer one context further than another,
 * and further or less far than asked. At most 2^20 extents a context are held at a time, however large the disk.
 * `timeoutMs` is for each request.
 */
export async function* blockStatus(
  client: NbdClient,
  options: BlockStatusOptions,
): AsyncGenerator<BlockStatusPage, void, void> {
  const { size, minimumBlock } = client.facts;
  const { offset = 0, length = size - offset, signal, timeoutMs } = options;
  const names = options.contexts ?? client.contexts.map(({ name }) => name);
  checkRange(offset, length, size);
  checkNames(client, names);
  const end = offset + length;
  // "the client MUST ensure that offset and length are integer multiples of any advertised minimum block size"
  const alignedEnd = Math.min(size, roundUp(end, minimumBlock));
  let limit = longestRequest(client, options.longestRequest);
  let at = offset;
  while (at < end) {
    const from = roundDown(at, minimumBlock);
    const asked = Math.min(limit, alignedEnd - from);
    let answers: Map<string, readonly Extent[]>;
    try {
      answers = await client.blockStatus(from, asked, { timeoutMs, signal });
    } catch (error) {
      // The wish for less, "Size constraints": for effect lengths above the maximum payload.
      if (!isTooLong(error) || asked <= Math.max(minimumBlock, client.facts.maximumPayload)) throw error;
      limit = Math.max(minimumBlock, roundDown(asked / 2, minimumBlock));
      continue;
    }
    const until = Math.min(end, commonEnd(answers, names, size, minimumBlock));
    if (until <= at) throw protocolError('NBD_CMD_BLOCK_STATUS', 'an answer shorter than one block');
    const extents = new Map(names.map((name) => [name, clip(answers.get(name) ?? [], at, until)]));
    yield { start: at, length: until - at, extents };
    at = until;
  }
}

/** How far the answers of all these contexts reach, in whole blocks, as the next request begins there. */
function commonEnd(
  answers: ReadonlyMap<string, readonly Extent[]>,
  names: readonly string[],
  size: number,
  block: number,
): number {
  let common = size;
  for (const name of names) {
    const last = answers.get(name)?.at(-1);
    common = Math.min(common, last ? last.start + last.length : 0);
  }
  return common === size ? size : roundDown(common, block);
}

/** The part of ordered extents that lies in [start, end). */
function clip(extents: readonly Extent[], start: number, end: number): Extent[] {
  const inside: Extent[] = [];
  for (const extent of extents) {
    const from = Math.max(extent.start, start);
    const until = Math.min(extent.start + extent.length, end);
    if (from < until) inside.push({ start: from, length: until - from, flags: extent.flags });
  }
  return inside;
}

/**
 * The longest request, in multiples of the preferred block, so that pages break where the server's blocks do. Without
 * extended headers a length has 32 bits.
 */
function longestRequest(client: NbdClient, wanted = Number.POSITIVE_INFINITY): number {
  const { minimumBlock, preferredBlock } = client.facts;
  const most = Math.min(wanted, client.replies === 'extended' ? longestExtendedRequest : 2 ** 32 - 1);
  const block = preferredBlock <= most ? preferredBlock : minimumBlock;
  return Math.max(minimumBlock, roundDown(most, block));
}

function isTooLong(error: unknown): boolean {
  return (
    error instanceof NbdError &&
    error.kind === 'failed' &&
    (error.code === 'NBD_EOVERFLOW' || error.code === 'NBD_EINVAL')
  );
}

function checkRange(offset: number, length: number, size: number): void {
  const sound = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!sound || offset + length > size) {
    throw new RangeError(`${length} bytes from ${offset} do not lie in an export of ${size} bytes.`);
  }
}

function checkNames(client: NbdClient, names: readonly string[]): void {
  const unknown = names.find((name) => !client.contexts.some((context) => context.name === name));
  if (unknown !== undefined) throw new RangeError(`${unknown} is not a context of this client.`);
  if (names.length === 0) throw new RangeError('Block status needs at least one context.');
}

function roundDown(value: number, block: number): number {
  return Math.floor(value / block) * block;
}

function roundUp(value: number, block: number): number {
  return Math.ceil(value / block) * block;
}
