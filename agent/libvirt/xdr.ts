/**
 * External Data Representation (RFC 4506), as far as libvirt uses it: big-endian, everything padded to four bytes.
 *
 * The writer refuses what cannot be said on the wire; the reader refuses what a peer may not send. Both name the
 * offset, so that a fault in a captured message can be found.
 */

/** Bytes that are not XDR, or not of the type that was expected there; or a value that does not fit its type. */
export class XdrError extends Error {
  override readonly name = 'XdrError';

  /** @param offset byte offset in the encoded data at which the fault lies. */
  constructor(
    message: string,
    readonly offset: number,
  ) {
    super(`${message} (at byte ${offset})`);
  }
}

const int32 = { min: -0x8000_0000, max: 0x7fff_ffff };
const uint32 = { min: 0, max: 0xffff_ffff };
const int64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n };
const uint64 = { min: 0n, max: 2n ** 64n - 1n };

/** The length of `length` bytes with their padding (RFC 4506, section 3). */
function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}

/** Builds one XDR value after another into a buffer that grows as needed. */
export class XdrWriter {
  #buffer: Buffer;
  #used = 0;

  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#used;
  }

  /** What was written, as a view: valid until the next write. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#used);
  }

  /** A signed 32-bit integer (section 4.1); also XDR's enum (4.3). */
  int(value: number): void {
    this.#checkInteger(value, int32);
    const at = this.#claim(4);
    this.#buffer.writeInt32BE(value, at);
  }

  /** An unsigned 32-bit integer (section 4.2). */
  uint(value: number): void {
    this.#checkInteger(value, uint32);
    const at = this.#claim(4);
    this.#buffer.writeUInt32BE(value, at);
  }

  /** A signed 64-bit integer (section 4.5). */
  hyper(value: bigint | number): void {
    const big = this.#checkBig(value, int64);
    const at = this.#claim(8);
    this.#buffer.writeBigInt64BE(big, at);
  }

  /** An unsigned 64-bit integer (section 4.5). */
  uhyper(value: bigint | number): void {
    const big = this.#checkBig(value, uint64);
    const at = this.#claim(8);
    this.#buffer.writeBigUInt64BE(big, at);
  }

  /** A double-precision float (section 4.7). */
  double(value: number): void {
    const at = this.#claim(8);
    this.#buffer.writeDoubleBE(value, at);
  }

  /** A boolean (section 4.4), which is also how libvirt writes its `int` truth values. */
  bool(value: boolean): void {
    this.uint(value ? 1 : 0);
  }

  /** Bytes of a length that both sides know (section 4.9). */
  opaqueFixed(value: Uint8Array, length: number): void {
    if (value.length !== length) throw this.#error(`${value.length} bytes where ${length} belong`);
    const at = this.#claim(padded(length));
    this.#buffer.set(value, at);
    this.#buffer.fill(0, at + length, this.#used);
  }

  /** Bytes with their length in front (section 4.10). */
  opaque(value: Uint8Array, maxBytes: number): void {
    this.arrayLength(value.length, maxBytes);
    this.opaqueFixed(value, value.length);
  }

  /**
   * A string (section 4.11) as UTF-8, at most `maxBytes` long.
   *
   * NUL is refused: libvirt's C side would end the string there, so that `"vm1\0x"` would name another domain. A lone
   * surrogate is refused as well, since UTF-8 has no form for it and a replacement character would change the name.
   */
  string(value: string, maxBytes: number): void {
    if (value.includes('\0')) throw this.#error('a string with a NUL character');
    if (/\p{Surrogate}/u.test(value)) throw this.#error('a string with a lone surrogate');
    const byteLength = Buffer.byteLength(value, 'utf8');
    this.arrayLength(byteLength, maxBytes);
    const at = this.#claim(padded(byteLength));
    this.#buffer.write(value, at, 'utf8');
    this.#buffer.fill(0, at + byteLength, this.#used);
  }

  /** The count in front of a variable-length array (section 4.13); the elements follow. */
  arrayLength(length: number, max: number): void {
    if (length > max) throw this.#error(`a length of ${length} where at most ${max} is allowed`);
    this.uint(length);
  }

  #claim(bytes: number): number {
    const at = this.#used;
    const needed = at + bytes;
    if (needed > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#used = needed;
    return at;
  }

  #checkInteger(value: number, range: { min: number; max: number }): void {
    if (!Number.isInteger(value) || value < range.min || value > range.max) {
      throw this.#error(`${value} is not an integer from ${range.min} to ${range.max}`);
    }
  }

  #checkBig(value: bigint | number, range: { min: bigint; max: bigint }): bigint {
    // A number beyond 2^53 may already have lost its last bits, so only bigint is believed there.
    if (typeof value === 'number' && !Number.isSafeInteger(value)) {
      throw this.#error(`${value} is not a safe integer; give a bigint`);
    }
    const big = BigInt(value);
    if (big < range.min || big > range.max) {
      throw this.#error(`${big} is not an integer from ${range.min} to ${range.max}`);
    }
    return big;
  }

  #error(message: string): XdrError {
    return new XdrError(message, this.#used);
  }
}

/** Reads one XDR value after another from a buffer, which it never reads past. */
export class XdrReader {
  readonly #buffer: Buffer;
  #offset: number;

  /** @param offset where the first value starts. */
  constructor(buffer: Buffer, offset = 0) {
    this.#buffer = buffer;
    this.#offset = offset;
  }

  /** Where the next value starts. */
  get offset(): number {
    return this.#offset;
  }

  /** Bytes not read yet. */
  get remaining(): number {
    return this.#buffer.length - this.#offset;
  }

  int(): number {
    return this.#buffer.readInt32BE(this.#take(4));
  }

  uint(): number {
    return this.#buffer.readUInt32BE(this.#take(4));
  }

  hyper(): bigint {
    return this.#buffer.readBigInt64BE(this.#take(8));
  }

  uhyper(): bigint {
    return this.#buffer.readBigUInt64BE(this.#take(8));
  }

  double(): number {
    return this.#buffer.readDoubleBE(this.#take(8));
  }

  /** Any non-zero value is true: libvirt writes some truths as a C `int`. */
  bool(): boolean {
    return this.uint() !== 0;
  }

  /** XDR's own boolean, 0 or 1 and nothing else: what stands in front of optional data (section 4.19). */
  present(): boolean {
    const at = this.#offset;
    const value = this.uint();
    if (value > 1) throw new XdrError(`${value} where 0 or 1 belongs`, at);
    return value === 1;
  }

  /** A copy: the message's buffer is used again. */
  opaqueFixed(length: number): Buffer {
    const at = this.#take(padded(length));
    return Buffer.from(this.#buffer.subarray(at, at + length));
  }

  opaque(maxBytes: number): Buffer {
    return this.opaqueFixed(this.arrayLength(maxBytes));
  }

  /**
   * UTF-8; a byte that is not becomes U+FFFD. Names reach libvirt as XML and so are UTF-8, but a message may be in
   * the daemon's locale, and an error must not be lost over its spelling. Padding is not looked at (libtirpc neither).
   */
  string(maxBytes: number): string {
    const length = this.arrayLength(maxBytes);
    const at = this.#take(padded(length));
    return this.#buffer.toString('utf8', at, at + length);
  }

  /** The count in front of a variable-length array. */
  arrayLength(max: number): number {
    const at = this.#offset;
    const length = this.uint();
    if (length > max) throw new XdrError(`a length of ${length} where at most ${max} is allowed`, at);
    return length;
  }

  /** Refuses bytes after the last value: a sign that this was another type than thought. */
  end(): void {
    if (this.remaining > 0) throw new XdrError(`${this.remaining} bytes too many`, this.#offset);
  }

  #take(bytes: number): number {
    const at = this.#offset;
    if (bytes > this.remaining) throw new XdrError(`${bytes} bytes wanted, ${this.remaining} left`, at);
    this.#offset = at + bytes;
    return at;
  }
}
