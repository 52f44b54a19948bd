/** The client's side of the handshake phase: one function an option, on a connection. proto.md "Handshake". */
import type { Connection } from './connection.js';
import { ClientFlag, HandshakeFlag, Info, Option, optionName, Reply, replyName } from './constants.js';
import { NbdError, protocolError } from './error.js';
import { maxOptionReplies } from './limits.js';
import {
  decodeGreeting,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeOption,
  greetingLength,
  isFinalReply,
  optionReplyHeaderLength,
} from './negotiation.js';
import {
  decodeExportInfo,
  decodeMetaContext,
  decodeServerEntry,
  encodeInfoRequest,
  encodeMetaContextRequest,
  type MetaContext,
  type ServerEntry,
} from './negotiation-data.js';

/** What a server says of an export when the transmission phase begins. Sizes are bytes. */
export interface ExportFacts {
  readonly size: number;
  /** `TransmissionFlag` bits. */
  readonly flags: number;
  /** 1 where the server names none: its default. */
  readonly minimumBlock: number;
  readonly preferredBlock: number;
  readonly maximumPayload: number;
}

/** "If size constraints have not been advertised", proto.md "Size constraints". */
const defaultBlockSizes = { minimumBlock: 1, preferredBlock: 4096, maximumPayload: 2 ** 25 };

/**
 * Reads the greeting and answers it; only fixed newstyle has options that can be refused.
 * @param noZeroes whether to do without the 124 zeroes after NBD_OPT_EXPORT_NAME, where the server can
 */
export async function greet(connection: Connection, noZeroes = true): Promise<void> {
  const flags = decodeGreeting(await connection.read(greetingLength));
  if ((flags & HandshakeFlag.FIXED_NEWSTYLE) === 0) {
    throw new NbdError('unsupported', 'The NBD server does not speak fixed newstyle.');
  }
  const without = noZeroes && (flags & HandshakeFlag.NO_ZEROES) !== 0;
  connection.write(encodeClientFlags(ClientFlag.FIXED_NEWSTYLE | (without ? ClientFlag.NO_ZEROES : 0)));
}

/** Asks for replies in chunks; the wide ones where the server has them, as 32 bits of length are few. */
export async function negotiateReplies(
  connection: Connection,
  extended: boolean,
): Promise<'extended' | 'structured'> {
  if (extended && (await accepts(connection, Option.EXTENDED_HEADERS))) return 'extended';
  if (await accepts(connection, Option.STRUCTURED_REPLY)) return 'structured';
  throw new NbdError('unsupported', 'The NBD server has no structured replies, and so no block status.');
}

/** The exports that a server lists; it may keep some to itself. */
export async function listExports(connection: Connection): Promise<ServerEntry[]> {
  const entries: ServerEntry[] = [];
  await haggle(connection, Option.LIST, undefined, (type, data) => {
    if (type === Reply.SERVER) entries.push(decodeServerEntry(data));
    return type === Reply.SERVER;
  });
  return entries;
}

/** The metadata contexts that an export offers; needs structured replies. No queries: all of them. */
export async function listMetaContexts(
  connection: Connection,
  exportName: string,
  queries: readonly string[] = [],
): Promise<string[]> {
  const contexts = await metaContexts(connection, Option.LIST_META_CONTEXT, exportName, queries);
  return contexts.map(({ name }) => name);
}

/** Selects metadata contexts, all in one request; those that the server does not have are left out. */
export async function setMetaContexts(
  connection: Connection,
  exportName: string,
  queries: readonly string[],
): Promise<MetaContext[]> {
  const contexts = await metaContexts(connection, Option.SET_META_CONTEXT, exportName, queries);
  if (new Set(contexts.map(({ id }) => id)).size < contexts.length) {
    throw protocolError('NBD_OPT_SET_META_CONTEXT', 'one ID for two metadata contexts');
  }
  return contexts;
}

async function metaContexts(
  connection: Connection,
  option: number,
  exportName: string,
  queries: readonly string[],
): Promise<MetaContext[]> {
  const contexts: MetaContext[] = [];
  const data = encodeMetaContextRequest({ exportName, queries });
  await haggle(connection, option, data, (type, reply) => {
    if (type === Reply.META_CONTEXT) contexts.push(decodeMetaContext(reply));
    return type === Reply.META_CONTEXT;
  });
  return contexts;
}

/** Opens the export: the transmission phase begins when this returns. */
export function go(connection: Connection, exportName: string): Promise<ExportFacts> {
  return factsBy(connection, Option.GO, exportName);
}

/** Asks what `go` would be told, and opens nothing. */
export function inform(connection: Connection, exportName: string): Promise<ExportFacts> {
  return factsBy(connection, Option.INFO, exportName);
}

async function factsBy(connection: Connection, option: number, exportName: string): Promise<ExportFacts> {
  let exported: { size: number; flags: number } | undefined;
  let blockSizes = defaultBlockSizes;
  // Asking for block sizes is the promise to keep to them.
  const data = encodeInfoRequest({ exportName, infos: [Info.BLOCK_SIZE] });
  await haggle(connection, option, data, (type, reply) => {
    if (type !== Reply.INFO) return false;
    const info = decodeExportInfo(reply);
    if (info.type === 'export') exported = { size: safeSize(info.size), flags: info.flags };
    if (info.type === 'blockSize') {
      blockSizes = {
        minimumBlock: info.minimum,
        preferredBlock: info.preferred,
        maximumPayload: info.maximumPayload,
      };
    }
    return true;
  });
  if (!exported) throw protocolError(optionName(option), 'no NBD_INFO_EXPORT before the end');
  return { ...exported, ...blockSizes };
}

/** Ends the handshake and the connection politely, without waiting for the answer, as the specification allows. */
export function abort(connection: Connection): void {
  connection.write(encodeOption(Option.ABORT));
  connection.socket.destroySoon();
}

/** Sends an option that carries nothing, for which there is nothing but ACK. NbdError `refused`. */
export async function demand(connection: Connection, option: number): Promise<void> {
  await haggle(connection, option, undefined, () => false);
}

/** Whether a server takes an option that carries nothing; an error of any kind means that it does not. */
async function accepts(connection: Connection, option: number): Promise<boolean> {
  try {
    await demand(connection, option);
    return true;
  } catch (error) {
    if (error instanceof NbdError && error.kind === 'refused' && error.code !== 'NBD_REP_ERR_SHUTDOWN')
      return false;
    throw error;
  }
}

/**
 * Sends one option and reads its replies up to the last. `onReply` gets those before it, and says whether it knows
 * them. NbdError `refused` for an error reply.
 */
async function haggle(
  connection: Connection,
  option: number,
  data: Buffer | undefined,
  onReply: (type: number, data: Buffer) => boolean,
): Promise<void> {
  connection.write(encodeOption(option, data));
  for (let count = 0; count < maxOptionReplies; count += 1) {
    const header = decodeOptionReplyHeader(await connection.read(optionReplyHeaderLength));
    const reply = await connection.read(header.length);
    if (header.option !== option) {
      throw protocolError(
        'option replies',
        `a reply to ${optionName(header.option)}, not ${optionName(option)}`,
      );
    }
    if (header.type === Reply.ACK) return;
    if (isFinalReply(header.type)) throw refused(option, header.type, reply);
    if (!onReply(header.type, reply)) {
      throw protocolError('option replies', `${replyName(header.type)} to ${optionName(option)}`);
    }
  }
  throw protocolError('option replies', `more than ${maxOptionReplies} replies to ${optionName(option)}`);
}

function refused(option: number, type: number, text: Buffer): NbdError {
  const code = replyName(type);
  const message = text.length > 0 ? `: ${text.toString('utf8')}` : '';
  return new NbdError('refused', `The NBD server refused ${optionName(option)} with ${code}${message}`, {
    code,
  });
}

function safeSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new NbdError('unsupported', `The export has ${size} bytes; sizes up to 2^53-1 can be handled.`);
  }
  return Number(size);
}
