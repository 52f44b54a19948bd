/** Newline framing: bytes in, frames out. Knows nothing of JSON. */

const newline = 0x0a;

/** The peer sent more than `limit` bytes without a newline. */
export class FrameTooLong extends Error {
  override readonly name = 'FrameTooLong';

  constructor(readonly limit: number) {
    super(`A message has at most ${limit} bytes; this one has more.`);
  }
}

/**
 * Cuts a stream of bytes into frames. Each byte is looked at once and copied at most twice, however the stream is
 * chopped up: a search that begins anew with every chunk is quadratic, and a list of one-byte chunks costs a
 * hundred times their size.
 */
export class FrameReader {
  /** The beginning of a frame whose end has not come yet, in the first `#held` bytes. */
  #buffer = Buffer.alloc(0);
  #held = 0;

  /** @param limit the longest frame in bytes, its newline not counted */
  constructor(readonly limit: number) {}

  /**
   * The frames that `chunk` completes, without their newlines. Take them all before the next push; a frame may
   * share memory with the chunk.
   * @throws FrameTooLong after the frames before it; the reader is of no use afterwards
   */
  *push(chunk: Buffer): Generator<Buffer, void, void> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(newline, start);
      if (end === -1) break;
      if (this.#held + end - start > this.limit) throw new FrameTooLong(this.limit);
      yield this.#complete(chunk.subarray(start, end));
      start = end + 1;
    }
    this.#hold(chunk.subarray(start));
  }

  #complete(tail: Buffer): Buffer {
    if (this.#held === 0) return tail;
    const frame = Buffer.concat([this.#buffer.subarray(0, this.#held), tail]);
    this.#buffer = Buffer.alloc(0);
    this.#held = 0;
    return frame;
  }

  #hold(part: Buffer): void {
    const size = this.#held + part.length;
    if (size > this.limit) {
      this.#buffer = Buffer.alloc(0);
      throw new FrameTooLong(this.limit);
    }
    if (size > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.limit, Math.max(size, this.#buffer.length * 2)));
      this.#buffer.copy(grown, 0, 0, this.#held);
      this.#buffer = grown;
    }
    part.copy(this.#buffer, this.#held);
    this.#held = size;
  }
}
