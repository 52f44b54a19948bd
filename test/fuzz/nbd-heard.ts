/** What a reply of a server says, read from its bytes by nobody's rules but the specification's. */
import {
  EXTENDED_MAGIC,
  STATUS_TYPE,
  STATUS_TYPE_EXT,
  STRUCTURED_MAGIC,
  type StatusRequest,
} from './nbd-server.js';

interface Run {
  readonly start: bigint;
  readonly end: bigint;
  readonly flags: bigint;
}

/** All that was sent in the transmission phase of one connection, and what was asked, in order. */
export class Heard {
  #bytes = Buffer.alloc(0);
  readonly #requests: StatusRequest[] = [];

  sent(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
  }

  asked(request: StatusRequest): void {
    this.#requests.push(request);
  }

  /**
   * What the next reply that is no error says, by context id. @throws Error where the bytes are no such reply: then the
   * client had no right to take anything from them
   */
  next(): Map<number, Run[]> {
    for (;;) {
      const request = this.#requests.shift();
      if (request === undefined) throw new Error('a page although nothing more was asked');
      const said = this.#reply(request);
      if (said !== undefined) return said;
    }
  }

  #take(length: number): Buffer {
    if (length > this.#bytes.length)
      throw new Error(`a page from a reply that was cut off: ${length} bytes wanted`);
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  #reply(request: StatusRequest): Map<number, Run[]> | undefined {
    const { cookie } = request;
    const said = new Map<number, Run[]>();
    for (let done = false, failed = false; ; ) {
      const magic = this.#take(4).readUInt32BE(0);
      const wide = magic === EXTENDED_MAGIC;
      if (!wide && magic !== STRUCTURED_MAGIC)
        throw new Error(`a page from a reply of magic 0x${magic.toString(16)}`);
      const head = this.#take(wide ? 28 : 16);
      done = (head.readUInt16BE(0) & 1) !== 0;
      const type = head.readUInt16BE(2);
      const payload = this.#take(wide ? Number(head.readBigUInt64BE(20)) : head.readUInt32BE(12));
      if (head.readBigUInt64BE(4) !== cookie) throw new Error('a page from a reply to another cookie');
      if (type === (wide ? STATUS_TYPE_EXT : STATUS_TYPE)) {
        const id = payload.readUInt32BE(0);
        if (said.has(id)) throw new Error(`a page from a reply that says context ${id} twice`);
        said.set(id, runsOf(payload, request, wide));
      } else if (type >= 0x8000) failed = true;
      else if (type !== 0) throw new Error(`a page from a reply with a chunk of type ${type}`);
      if (done) return failed ? undefined : said;
    }
  }
}

function runsOf(payload: Buffer, { offset, length: asked }: StatusRequest, wide: boolean): Run[] {
  const runs: Run[] = [];
  let start = offset;
  for (let at = wide ? 8 : 4; at < payload.length; at += wide ? 16 : 8) {
    const length = wide ? payload.readBigUInt64BE(at) : BigInt(payload.readUInt32BE(at));
    const flags = wide ? payload.readBigUInt64BE(at + 8) : BigInt(payload.readUInt32BE(at + 4));
    // "the sum of the length fields of the first N-1 extents MUST be less than the requested length"
    if (length === 0n || start >= offset + asked)
      throw new Error(`a page from an extent of ${length} at ${start}`);
    runs.push({ start, end: start + length, flags });
    start += length;
  }
  return runs;
}

/** @throws Error unless what the client made of a page is what was said of it, byte for byte */
export function checkPage(
  page: { start: number; length: number },
  extents: readonly { start: number; length: number; flags: number }[],
  said: readonly Run[] | undefined,
): void {
  let at = BigInt(page.start);
  for (const { start, length, flags } of extents) {
    if (BigInt(start) !== at || length <= 0) throw new Error(`a gap or an overlap at ${at}`);
    for (const end = at + BigInt(length); at < end; ) {
      const run = said?.find((one) => one.start <= at && at < one.end);
      if (run === undefined)
        throw new Error(`the map says ${flags} at ${at}, of which the server said nothing`);
      if (run.flags !== BigInt(flags))
        throw new Error(`the map says ${flags} at ${at}, the server ${run.flags}`);
      at = run.end < end ? run.end : end;
    }
  }
  if (at !== BigInt(page.start + page.length)) throw new Error(`a page that ends at ${at}`);
}
