import { protocolError } from './error.js';
import { maxString } from './limits.js';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads the fields of one message's data in order; whatever would reach beyond its end is a protocol error. All
 * numbers are unsigned and big-endian, proto.md "Conventions".
 */
export class PayloadReader {
  readonly #data: Buffer;
  readonly #section: string;
  #at = 0;

  /** `section`: the part of proto.md that describes this data, for errors. */
  constructor(section: string, data: Buffer) {
    this.#section = section;
    this.#data = data;
  }

  get remaining(): number {
    return this.#data.length - this.#at;
  }

  #take(length: number): number {
    if (length > this.remaining) {
      throw protocolError(this.#section, `${length} bytes wanted, ${this.remaining} left`);
    }
    const at = this.#at;
    this.#at += length;
    return at;
  }

  u16(): number {
    return this.#data.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.#data.readUInt32BE(this.#take(4));
  }

  u64(): bigint {
    return this.#data.readBigUInt64BE(this.#take(8));
  }

  bytes(length: number): Buffer {
    const at = this.#take(length);
    return this.#data.subarray(at, at + length);
  }

  /** A string as "Conventions" has it: UTF-8, without NUL, at most 4096 bytes. */
  string(length: number): string {
    if (length > maxString) throw protocolError(this.#section, `a string of ${length} bytes`);
    const bytes = this.bytes(length);
    let text: string;
    try {
      text = utf8.decode(bytes);
    } catch {
      throw protocolError(this.#section, 'a string is not UTF-8');
    }
    if (text.includes('\0')) throw protocolError(this.#section, 'a string holds NUL');
    return text;
  }

  /** Throws unless everything has been read. */
  end(): void {
    if (this.remaining > 0) throw protocolError(this.#section, `${this.remaining} bytes too many`);
  }
}

/** A string as bytes. TypeError for one that the protocol cannot carry: it came from our own side. */
export function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length > maxString || text.includes('\0') || bytes.toString('utf8') !== text) {
    throw new TypeError(`Not a string that NBD can carry: ${JSON.stringify(text.slice(0, 80))}`);
  }
  return bytes;
}

export function u16(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 2);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, index * 2);
  return bytes;
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

export function u64(...values: bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64BE(value, index * 8);
  return bytes;
}
