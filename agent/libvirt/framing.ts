/** Cuts the byte stream from a socket into messages. Knows the length word and nothing else. */
import { headerBytes, lengthWordBytes } from './message.js';

const smallestFrame = lengthWordBytes + headerBytes;

/** A length word that no libvirt daemon sends: the stream is not, or no longer, libvirt's protocol. */
export class FramingError extends Error {
  override readonly name = 'FramingError';

  constructor(
    readonly length: number,
    largest: number,
  ) {
    super(
      `the peer announced a message of ${length} bytes, where ${smallestFrame} to ${largest} are possible`,
    );
  }
}

/**
 * Collects chunks of any size into whole frames.
 *
 * Each byte is copied a bounded number of times however small the chunks are (the buffer doubles), and memory grows
 * with what has arrived, not with what a length word promises. After a `FramingError` the stream has no more
 * boundaries: the splitter is of no use and the connection has to go.
 */
export class FrameSplitter {
  readonly #largest: number;
  #buffer: Buffer = Buffer.alloc(0);
  #used = 0;

  /** @param maxMessageBytes the most that header and payload may measure together. */
  constructor(maxMessageBytes: number) {
    this.#largest = maxMessageBytes + lengthWordBytes;
  }

  /** Bytes that wait for the rest of their frame. */
  get pending(): number {
    return this.#used;
  }

  /**
   * Takes the next chunk and yields the frames that it completes, each with its length word. A frame is a view, valid
   * until the next one is asked for. The whole iterator has to be drained.
   */
  *push(chunk: Buffer): Generator<Buffer, void, undefined> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#used === 0) {
        // The usual case: the frame lies whole in this chunk and needs no copy.
        const length = this.#frameLength(rest);
        if (length !== undefined && length <= rest.length) {
          yield rest.subarray(0, length);
          rest = rest.subarray(length);
          continue;
        }
      }
      rest = this.#fill(rest);
      const length = this.#frameLength(this.#buffer.subarray(0, this.#used));
      if (length !== undefined && length === this.#used) {
        const frame = this.#buffer.subarray(0, length);
        this.#buffer = Buffer.alloc(0);
        this.#used = 0;
        yield frame;
      }
    }
  }

  /** Copies as much as the present frame still wants; the rest is the next frame's. */
  #fill(chunk: Buffer): Buffer {
    // Without a length word only that word is wanted: what comes behind it may be another frame's already.
    const known = this.#frameLength(this.#buffer.subarray(0, this.#used));
    const wanted = (known ?? lengthWordBytes) - this.#used;
    const taken = Math.min(wanted, chunk.length);
    const needed = this.#used + taken;
    if (needed > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(
        Math.max(needed, Math.min(this.#buffer.length * 2, this.#largest), 64),
      );
      this.#buffer.copy(grown, 0, 0, this.#used);
      this.#buffer = grown;
    }
    chunk.copy(this.#buffer, this.#used, 0, taken);
    this.#used = needed;
    return chunk.subarray(taken);
  }

  #frameLength(bytes: Buffer): number | undefined {
    if (bytes.length < lengthWordBytes) return undefined;
    const length = bytes.readUInt32BE(0);
    if (length < smallestFrame || length > this.#largest) throw new FramingError(length, this.#largest);
    return length;
  }
}
