/**
 * An NBD server in process that speaks the whole handshake and block status, and hands each message to whoever damages
 * it. It shares no code with our client; numbers are those of doc/proto.md of github.com/NetworkBlockDevice/nbd.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

/** A run of one status, as the server says it; 64 bits each, for what does not fit into less. */
export interface SaidExtent {
  readonly length: bigint;
  readonly flags: bigint;
}

export interface SaidContext {
  readonly name: string;
  readonly id: number;
  /** Covers the export exactly. */
  readonly extents: readonly SaidExtent[];
}

export interface ServedDisk {
  readonly size: bigint;
  readonly contexts: readonly SaidContext[];
  readonly extended: boolean;
  /** Minimum, preferred, maximum payload; null: none are named. */
  readonly blockSizes: readonly [number, number, number] | null;
}

/** What stands in a message, before it is bytes. */
export type ServerMessage =
  | { readonly kind: 'greeting' | 'optionReply'; readonly bytes: Buffer }
  | { readonly kind: 'status'; readonly request: StatusRequest; readonly chunks: StatusChunkFields[] };

export interface StatusRequest {
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: bigint;
}

/** One chunk of a reply, each field to be set at will. */
export interface StatusChunkFields {
  magic: number;
  flags: number;
  type: number;
  cookie: bigint;
  offset: bigint;
  payload: Buffer;
  /** What the head announces of the payload. */
  length: bigint;
}

/** Makes bytes of a message, damaged or not; undefined: nothing more is sent and the connection is ended. */
export type Delivery = (message: ServerMessage, socket: Socket) => void;

const words = (...values: (number | bigint)[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries())
    bytes.writeUInt32BE(Number(BigInt.asUintN(32, BigInt(value))), i * 4);
  return bytes;
};
const long = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
};
const short = (value: number): Buffer => Buffer.from([(value >>> 8) & 0xff, value & 0xff]);

const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), short(3)]);
const optionReply = (option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([long(0x3e889045565a9n), words(option, type, data.length), data]);

export const ACK = 1;
export const UNSUPPORTED = 0x80000001;
const [LIST, GO, STRUCTURED, LIST_META, SET_META, EXTENDED] = [3, 7, 8, 9, 10, 11];

export const STRUCTURED_MAGIC = 0x668e33ef;
export const EXTENDED_MAGIC = 0x6e8a278c;
export const SIMPLE_MAGIC = 0x67446698;
export const STATUS_TYPE = 5;
export const STATUS_TYPE_EXT = 6;

/** The bytes of a chunk's head and payload. */
export function chunkBytes({
  magic,
  flags,
  type,
  cookie,
  offset,
  payload,
  length,
}: StatusChunkFields): Buffer {
  const head = [words(magic), short(flags), short(type), long(cookie)];
  if (magic === EXTENDED_MAGIC) head.push(long(offset), long(length));
  else head.push(words(length));
  return Buffer.concat([...head, payload]);
}

/** The payload of one context's status: in the narrow form 32 bits an extent and field, in the wide one 64. */
export function statusPayload(
  id: number,
  extents: readonly SaidExtent[],
  wide: boolean,
  count = extents.length,
): Buffer {
  const parts = extents.map(({ length, flags }) =>
    wide ? Buffer.concat([long(length), long(flags)]) : words(length, flags),
  );
  return Buffer.concat([wide ? words(id, count) : words(id), ...parts]);
}

/** What a context says from `offset` on, the first extent cut, over at most `length` bytes and so many extents. */
export function statusOf(context: SaidContext, offset: bigint, length: bigint, most: number): SaidExtent[] {
  const found: SaidExtent[] = [];
  let start = 0n;
  for (const extent of context.extents) {
    const end = start + extent.length;
    const from = start > offset ? start : offset;
    const until = end < offset + length ? end : offset + length;
    if (from < until && found.length < most) found.push({ length: until - from, flags: extent.flags });
    start = end;
  }
  return found;
}

export class NbdFake {
  readonly socket: string;
  readonly #dir = mkdtempSync('/tmp/vmd-nbd-');
  readonly #disk: ServedDisk;
  readonly #deliver: Delivery;
  readonly #peers = new Set<Socket>();
  #server: Server | undefined;

  constructor(disk: ServedDisk, deliver: Delivery) {
    this.socket = join(this.#dir, 's');
    this.#disk = disk;
    this.#deliver = deliver;
  }

  async start(): Promise<this> {
    const server = createServer((socket) => {
      this.#peers.add(socket);
      socket.on('error', () => {}).on('close', () => this.#peers.delete(socket));
      new Session(socket, this.#disk, this.#deliver).begin();
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.socket, resolve));
    return this;
  }

  /** Connections that the client has not ended. */
  get connections(): number {
    return this.#peers.size;
  }

  async stop(): Promise<void> {
    for (const peer of this.#peers) peer.destroy();
    await new Promise((resolve) => this.#server?.close(resolve));
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** One client's connection. */
class Session {
  #bytes = Buffer.alloc(0);
  /** What comes next: the client's flags, options, or requests. */
  #phase: 'flags' | 'options' | 'requests' = 'flags';
  #wide = false;
  #selected: readonly SaidContext[] = [];

  constructor(
    private readonly socket: Socket,
    private readonly disk: ServedDisk,
    private readonly deliver: Delivery,
  ) {}

  begin(): void {
    this.deliver({ kind: 'greeting', bytes: GREETING }, this.socket);
    this.socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#step()) {
        // until the rest is no whole message
      }
    });
  }

  #take(length: number): Buffer | undefined {
    if (this.#bytes.length < length) return undefined;
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  #step(): boolean {
    if (this.#phase === 'flags') {
      if (this.#take(4) === undefined) return false;
      this.#phase = 'options';
      return true;
    }
    if (this.#phase === 'options') {
      if (this.#bytes.length < 16) return false;
      const frame = this.#take(16 + this.#bytes.readUInt32BE(12));
      if (frame === undefined) return false;
      this.#option(frame.readUInt32BE(8), frame.subarray(16));
      return true;
    }
    const request = this.#take(this.#wide ? 32 : 28);
    if (request === undefined) return false;
    const length = this.#wide ? request.readBigUInt64BE(24) : BigInt(request.readUInt32BE(24));
    const [cookie, offset] = [request.readBigUInt64BE(8), request.readBigUInt64BE(16)];
    if (request.readUInt16BE(6) === 2) this.socket.end();
    else this.#status({ cookie, offset, length });
    return true;
  }

  #option(option: number, data: Buffer): void {
    const reply = (type: number, bytes?: Buffer): void =>
      this.deliver({ kind: 'optionReply', bytes: optionReply(option, type, bytes) }, this.socket);
    switch (option) {
      case EXTENDED:
        this.#wide = this.disk.extended;
        reply(this.#wide ? ACK : UNSUPPORTED);
        break;
      case STRUCTURED:
        reply(ACK);
        break;
      case LIST:
        for (const name of ['d', 'e'])
          reply(2, Buffer.concat([words(1), Buffer.from(`${name}about ${name}`)]));
        reply(ACK);
        break;
      case LIST_META:
      case SET_META: {
        const queries = data.toString('latin1');
        this.#selected = this.disk.contexts.filter(
          ({ name }) => option === LIST_META || queries.includes(name),
        );
        for (const { id, name } of this.#selected) reply(4, Buffer.concat([words(id), Buffer.from(name)]));
        reply(ACK);
        break;
      }
      case GO:
        reply(3, Buffer.concat([short(0), long(this.disk.size), short(0x103)]));
        if (this.disk.blockSizes !== null)
          reply(3, Buffer.concat([short(3), words(...this.disk.blockSizes)]));
        this.#phase = 'requests';
        reply(ACK);
        break;
      default:
        this.socket.end();
    }
  }

  #status(request: StatusRequest): void {
    const { cookie, offset, length } = request;
    const wide = this.#wide;
    const chunks = this.#selected.map((context, i): StatusChunkFields => {
      const payload = statusPayload(context.id, statusOf(context, offset, length, 64), wide);
      return {
        magic: wide ? EXTENDED_MAGIC : STRUCTURED_MAGIC,
        flags: i === this.#selected.length - 1 ? 1 : 0,
        type: wide ? STATUS_TYPE_EXT : STATUS_TYPE,
        cookie,
        offset,
        payload,
        length: BigInt(payload.length),
      };
    });
    this.deliver({ kind: 'status', request, chunks }, this.socket);
  }
}
