/**
 * The messages of the transmission phase, as far as a client for block status needs them: requests out, replies
 * in. proto.md "Transmission" and "Structured reply types"; extended headers: the branch extension-ext-header.
 */
import {
  Chunk,
  EXTENDED_REPLY_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  REPLY_FLAG_DONE,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.js';
import { protocolError } from './error.js';
import { maxExtentsPerChunk, maxOtherChunk } from './limits.js';
import { PayloadReader, u16, u32, u64 } from './payload.js';

export interface Request {
  readonly command: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  /** Bytes of the export that it is about: up to 2^32-1, or 2^64-1 with extended headers. */
  readonly length: bigint;
}

/**
 * 32 bits magic, 16 bits command flags (none are used here), 16 bits type, 64 bits cookie, 64 bits offset, and the
 * length: 32 bits, with extended headers 64.
 */
export function encodeRequest({ command, cookie, offset, length }: Request, extended: boolean): Buffer {
  const magic = extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC;
  const size = extended ? u64(length) : u32(Number(length));
  return Buffer.concat([u32(magic), u16(0, command), u64(cookie, offset), size]);
}

/** One message from the server: a simple reply, or a chunk of a structured or extended one. */
export interface ReplyHeader {
  readonly cookie: bigint;
  /** Whether this is the last message of the reply. */
  readonly done: boolean;
  /** `NBD_REPLY_TYPE_…`; a simple reply counts as NONE, or as ERROR without a message. */
  readonly type: number;
  /** Bytes of payload that follow. */
  readonly length: number;
  /** The error of a simple reply, which carries it in its head; 0 for none. */
  readonly simpleError: number;
  /** With extended headers: the offset of the request to which this is the reply. */
  readonly offset: bigint | undefined;
}

/** Bytes to read first: enough to see how long the head is. */
export const replyMagicLength = 4;

/** Bytes of a reply's head after its magic number. */
export function replyHeaderRest(magic: Buffer, extended: boolean): number {
  const value = magic.readUInt32BE(0);
  if (extended && value === EXTENDED_REPLY_MAGIC) return 28;
  if (!extended && value === STRUCTURED_REPLY_MAGIC) return 16;
  if (!extended && value === SIMPLE_REPLY_MAGIC) return 12;
  throw protocolError('replies', `a reply begins with 0x${value.toString(16)}`);
}

/** Decodes a head, told apart by its length: its bytes after the magic number. */
export function decodeReplyHeader(rest: Buffer): ReplyHeader {
  const reader = new PayloadReader('replies', rest);
  if (rest.length === 12) {
    const simpleError = reader.u32();
    const type = simpleError === 0 ? Chunk.NONE : Chunk.ERROR;
    return { cookie: reader.u64(), done: true, type, length: 0, simpleError, offset: undefined };
  }
  const done = (reader.u16() & REPLY_FLAG_DONE) !== 0;
  const type = reader.u16();
  const cookie = reader.u64();
  const extended = rest.length === 28;
  const offset = extended ? reader.u64() : undefined;
  const length = extended ? reader.u64() : BigInt(reader.u32());
  reader.end();
  const limit = maxChunkLength(type);
  if (length > limit) throw protocolError('replies', `${length} bytes in a chunk of type ${type}`);
  return { cookie, done, type, length: Number(length), simpleError: 0, offset };
}

function maxChunkLength(type: number): number {
  if (type === Chunk.NONE) return 0;
  if (type === Chunk.BLOCK_STATUS) return 4 + 8 * maxExtentsPerChunk;
  if (type === Chunk.BLOCK_STATUS_EXT) return 8 + 16 * maxExtentsPerChunk;
  return maxOtherChunk;
}

/** "All error chunk types have bit 15 set". */
export function isErrorChunk(type: number): boolean {
  return (type & 0x8000) !== 0;
}

/** The data of any error chunk: 32 bits error, 16 bits length of message, message, fields of its own type. */
export function decodeErrorChunk(payload: Buffer): { error: number; message: string } {
  const reader = new PayloadReader('NBD_REPLY_TYPE_ERROR', payload);
  const error = reader.u32();
  if (error === 0) throw protocolError('NBD_REPLY_TYPE_ERROR', 'an error chunk without an error');
  return { error, message: reader.string(reader.u16()) };
}

/** A run of bytes with one status in one metadata context. */
export interface Extent {
  /** From the start of the export. */
  readonly start: number;
  readonly length: number;
  /** What the bits mean is the context's affair; for `qemu:allocation-depth` it is a number. */
  readonly flags: number;
}

/** One context's answer to one request. */
export interface StatusChunk {
  readonly contextId: number;
  /** Without gaps from the request's offset on; neighbours of equal flags are joined. */
  readonly extents: readonly Extent[];
}

/**
 * The data of `NBD_REPLY_TYPE_BLOCK_STATUS` (32 bits context, then 32 + 32 bits an extent) and of
 * `NBD_REPLY_TYPE_BLOCK_STATUS_EXT` (32 bits context, 32 bits count, then 64 + 64 bits an extent). The last extent
 * may reach beyond the request; what reaches beyond `size`, the export's, is cut off.
 */
export function decodeStatusChunk(
  type: number,
  payload: Buffer,
  request: { offset: number; length: number; size: number },
): StatusChunk {
  const wide = type === Chunk.BLOCK_STATUS_EXT;
  const section = wide ? 'NBD_REPLY_TYPE_BLOCK_STATUS_EXT' : 'NBD_REPLY_TYPE_BLOCK_STATUS';
  const head = wide ? 8 : 4;
  const each = wide ? 16 : 8;
  const count = (payload.length - head) / each;
  if (!Number.isInteger(count) || count < 1)
    throw protocolError(section, `a chunk of ${payload.length} bytes`);
  const contextId = payload.readUInt32BE(0);
  if (wide && payload.readUInt32BE(4) !== count) {
    throw protocolError(section, `${payload.readUInt32BE(4)} extents announced, ${count} sent`);
  }
  const extents: Extent[] = [];
  const end = request.offset + request.length;
  let start = request.offset;
  for (let at = head; at < payload.length; at += each) {
    const length = wide ? safe(payload.readBigUInt64BE(at)) : payload.readUInt32BE(at);
    const flags = wide ? payload.readBigUInt64BE(at + 8) : payload.readUInt32BE(at + 4);
    if (length === 0) throw protocolError(section, 'an extent of no length');
    // "the sum of the length fields of the first N-1 extents MUST be less than the requested length"
    if (start >= end) throw protocolError(section, 'an extent that begins beyond the request');
    if (flags > Number.MAX_SAFE_INTEGER) throw protocolError(section, `a status of ${flags}`);
    const stop = Math.min(start + length, request.size);
    append(extents, start, stop - start, Number(flags));
    start = stop;
  }
  return { contextId, extents };
}

function append(extents: Extent[], start: number, length: number, flags: number): void {
  const last = extents.at(-1);
  if (last?.flags === flags) extents[extents.length - 1] = { ...last, length: last.length + length };
  else extents.push({ start, length, flags });
}

/** A length of 2^53 or more can only mean "to the end", and is cut to the export's size anyway. */
function safe(length: bigint): number {
  return length > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(length);
}
