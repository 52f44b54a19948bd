import type { Extent, Run } from './extents.js';

/**
 * A map as bits: one a block of `granularity` bytes, least significant bit of a byte first, bit 0 the block at
 * `offset`. The last block may be short.
 */
export class BlockBits {
  readonly bytes: Uint8Array;

  /**
   * @param offset where the range begins, a multiple of `granularity`
   * @param length of the range in bytes
   * @param bytes bits read before; absent: all clear
   */
  constructor(
    readonly granularity: number,
    readonly offset: number,
    readonly length: number,
    bytes?: Uint8Array,
  ) {
    this.bytes = bytes ?? new Uint8Array(bitmapBytes(length, granularity));
  }

  /** Sets the bit of every block that the range touches, however little of it. */
  set(start: number, length: number): void {
    const first = Math.floor((start - this.offset) / this.granularity);
    const last = Math.ceil((start + length - this.offset) / this.granularity) - 1;
    for (let block = first; block <= last; block++) {
      const at = Math.floor(block / 8);
      if (block % 8 === 0 && last - block >= 7) {
        const whole = Math.floor((last - block + 1) / 8);
        this.bytes.fill(0xff, at, at + whole);
        block += whole * 8 - 1;
      } else {
        this.bytes[at] = (this.bytes[at] ?? 0) | (1 << (block % 8));
      }
    }
  }

  /** The runs of set and clear blocks within a range of the disk, cut to the range, in order. */
  *runs(start: number, length: number): Generator<Run<boolean>> {
    const end = start + length;
    let at = start;
    while (at < end) {
      const value = this.#isSet(at);
      let next = this.#blockEnd(at);
      while (next < end && this.#isSet(next) === value) next = this.#blockEnd(next);
      const stop = Math.min(next, end);
      yield { start: at, length: stop - at, value };
      at = stop;
    }
  }

  #isSet(position: number): boolean {
    const block = Math.floor((position - this.offset) / this.granularity);
    return (((this.bytes[Math.floor(block / 8)] ?? 0) >> (block % 8)) & 1) === 1;
  }

  #blockEnd(position: number): number {
    return position - ((position - this.offset) % this.granularity) + this.granularity;
  }
}

/** How many bytes a map of `length` bytes of disk takes. */
export function bitmapBytes(length: number, granularity: number): number {
  return Math.ceil(Math.ceil(length / granularity) / 8);
}

/** The most bytes of a page of a bitmap, before base64. */
export const MAX_BITMAP_PAGE = 1024 * 1024;

/** How much of the disk one page of a bitmap covers, in bytes, at most. */
export function bitmapPageSpan(granularity: number): number {
  return MAX_BITMAP_PAGE * 8 * granularity;
}

/** The dirty blocks of a range as bits. */
export async function toBits(
  extents: AsyncIterable<Extent>,
  granularity: number,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bits = new BlockBits(granularity, offset, length);
  for await (const { start, length: extentLength, dirty } of extents) {
    if (dirty) bits.set(start, extentLength);
  }
  return bits.bytes;
}
