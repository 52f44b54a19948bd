/**
 * What options and their replies carry, both ways. proto.md "Option types" and "Option reply types"; each function
 * is named after the message whose data it is about.
 */
import { Info } from './constants.js';
import { protocolError } from './error.js';
import { maxMetaQueries } from './limits.js';
import { encodeString, PayloadReader, u16, u32, u64 } from './payload.js';

/** The data of `NBD_OPT_INFO` and `NBD_OPT_GO`: an export, and what the client would like to know of it. */
export interface InfoRequest {
  readonly exportName: string;
  readonly infos: readonly number[];
}

/** 32 bits length of name, name, 16 bits number of requests, 16 bits each. */
export function encodeInfoRequest({ exportName, infos }: InfoRequest): Buffer {
  const name = encodeString(exportName);
  return Buffer.concat([u32(name.length), name, u16(infos.length, ...infos)]);
}

export function decodeInfoRequest(data: Buffer): InfoRequest {
  const reader = new PayloadReader('NBD_OPT_GO', data);
  const exportName = reader.string(reader.u32());
  const infos = Array.from({ length: countOf(reader, reader.u16(), 2) }, () => reader.u16());
  reader.end();
  return { exportName, infos };
}

/** The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`. */
export interface MetaContextRequest {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** 32 bits length of name, name, 32 bits number of queries, each 32 bits length and query. */
export function encodeMetaContextRequest({ exportName, queries }: MetaContextRequest): Buffer {
  const name = encodeString(exportName);
  const parts = queries.map(encodeString).flatMap((query) => [u32(query.length), query]);
  return Buffer.concat([u32(name.length), name, u32(queries.length), ...parts]);
}

export function decodeMetaContextRequest(data: Buffer): MetaContextRequest {
  const reader = new PayloadReader('NBD_OPT_SET_META_CONTEXT', data);
  const exportName = reader.string(reader.u32());
  const count = countOf(reader, reader.u32(), 4);
  if (count > maxMetaQueries) throw protocolError('NBD_OPT_SET_META_CONTEXT', `${count} queries`);
  const queries = Array.from({ length: count }, () => reader.string(reader.u32()));
  reader.end();
  return { exportName, queries };
}

/** The data of `NBD_OPT_EXPORT_NAME`: the name alone. */
export function encodeExportName(exportName: string): Buffer {
  return encodeString(exportName);
}

export function decodeExportName(data: Buffer): string {
  return new PayloadReader('NBD_OPT_EXPORT_NAME', data).string(data.length);
}

/** What the server answers to `NBD_OPT_EXPORT_NAME`, which has no reply frame; 124 zeroes may follow. */
export function encodeExportNameReply(size: bigint, flags: number, noZeroes: boolean): Buffer {
  return Buffer.concat([u64(size), u16(flags), Buffer.alloc(noZeroes ? 0 : 124)]);
}

/** The data of `NBD_REP_SERVER`: one export in the answer to `NBD_OPT_LIST`. */
export interface ServerEntry {
  readonly exportName: string;
  /** "suitable for direct display to a human being"; often empty. */
  readonly description: string;
}

export function encodeServerEntry({ exportName, description }: ServerEntry): Buffer {
  const name = encodeString(exportName);
  return Buffer.concat([u32(name.length), name, encodeString(description)]);
}

export function decodeServerEntry(data: Buffer): ServerEntry {
  const reader = new PayloadReader('NBD_REP_SERVER', data);
  const exportName = reader.string(reader.u32());
  return { exportName, description: reader.string(reader.remaining) };
}

/** The data of `NBD_REP_META_CONTEXT`. */
export interface MetaContext {
  /** Names the context in block status replies of this connection; without meaning in the answer to LIST. */
  readonly id: number;
  readonly name: string;
}

export function encodeMetaContext({ id, name }: MetaContext): Buffer {
  return Buffer.concat([u32(id), encodeString(name)]);
}

export function decodeMetaContext(data: Buffer): MetaContext {
  const reader = new PayloadReader('NBD_REP_META_CONTEXT', data);
  return { id: reader.u32(), name: reader.string(reader.remaining) };
}

/** The data of `NBD_REP_INFO`, by its information type. Sizes are bytes. */
export type ExportInfo =
  | { readonly type: 'export'; readonly size: bigint; readonly flags: number }
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'description'; readonly description: string }
  | {
      readonly type: 'blockSize';
      readonly minimum: number;
      readonly preferred: number;
      readonly maximumPayload: number;
    }
  /** "the client MUST ignore information replies it does not understand" */
  | { readonly type: 'unknown'; readonly infoType: number };

export function encodeExportInfo(info: Exclude<ExportInfo, { type: 'unknown' }>): Buffer {
  switch (info.type) {
    case 'export':
      return Buffer.concat([u16(Info.EXPORT), u64(info.size), u16(info.flags)]);
    case 'name':
      return Buffer.concat([u16(Info.NAME), encodeString(info.name)]);
    case 'description':
      return Buffer.concat([u16(Info.DESCRIPTION), encodeString(info.description)]);
    case 'blockSize':
      return Buffer.concat([u16(Info.BLOCK_SIZE), u32(info.minimum, info.preferred, info.maximumPayload)]);
  }
}

export function decodeExportInfo(data: Buffer): ExportInfo {
  const reader = new PayloadReader('NBD_REP_INFO', data);
  const infoType = reader.u16();
  const info = decodeByType(infoType, reader);
  if (info.type !== 'unknown') reader.end();
  return info;
}

function decodeByType(infoType: number, reader: PayloadReader): ExportInfo {
  switch (infoType) {
    case Info.EXPORT:
      return { type: 'export', size: reader.u64(), flags: reader.u16() };
    case Info.NAME:
      return { type: 'name', name: reader.string(reader.remaining) };
    case Info.DESCRIPTION:
      return { type: 'description', description: reader.string(reader.remaining) };
    case Info.BLOCK_SIZE:
      return checkBlockSize(reader.u32(), reader.u32(), reader.u32());
    default:
      return { type: 'unknown', infoType };
  }
}

/** "Size constraints": powers of two, minimum no larger than 2^16, preferred at least that and 512. */
function checkBlockSize(minimum: number, preferred: number, maximumPayload: number): ExportInfo {
  const sound =
    isPowerOfTwo(minimum) &&
    minimum <= 2 ** 16 &&
    isPowerOfTwo(preferred) &&
    preferred >= Math.max(minimum, 512) &&
    maximumPayload >= preferred;
  if (!sound) {
    throw protocolError('size constraints', `block sizes ${minimum}, ${preferred}, ${maximumPayload}`);
  }
  return { type: 'blockSize', minimum, preferred, maximumPayload };
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

/** Nothing is allocated for a count that the data cannot hold. */
function countOf(reader: PayloadReader, count: number, bytesEach: number): number {
  if (count * bytesEach > reader.remaining) {
    throw protocolError('option data', `${count} items announced in ${reader.remaining} bytes`);
  }
  return count;
}
