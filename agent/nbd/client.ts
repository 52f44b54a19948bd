import { type Wait, within } from '../host/process-wait.js';
import { type Connection, dial, guarded } from './connection.js';
import { Chunk, Command, errorName } from './constants.js';
import { NbdError, protocolError } from './error.js';
import {
  abort,
  type ExportFacts,
  go,
  greet,
  listExports,
  listMetaContexts,
  negotiateReplies,
  setMetaContexts,
} from './handshake.js';
import { maxExtraChunks } from './limits.js';
import type { MetaContext, ServerEntry } from './negotiation-data.js';
import {
  decodeErrorChunk,
  decodeReplyHeader,
  decodeStatusChunk,
  type Extent,
  encodeRequest,
  isErrorChunk,
  type ReplyHeader,
  replyHeaderRest,
  replyMagicLength,
} from './transmission.js';
import type { NbdAddress } from './uri.js';

/** Milliseconds that a server gets to end the connection after a polite goodbye. */
const goodbyeMs = 1000;

export interface ClientOptions extends Wait {
  readonly exportName: string;
  /** Metadata contexts by name, e.g. `base:allocation`; `unsupported` where the export lacks one of them. */
  readonly contexts: readonly string[];
  /** False: never asks for the 64-bit headers. Absent: uses them where the server has them. */
  readonly extendedHeaders?: boolean;
}

/**
 * A connection to one export, for asking which blocks hold what. It reads and writes no data. Requests are made
 * one after another: on a local socket the server's own work is what takes time, not the way.
 */
export class NbdClient {
  /** Size and block sizes of the export, in bytes, and its flags. */
  readonly facts: ExportFacts;
  /** With `extended` a request may be longer than 32 bits. */
  readonly replies: 'extended' | 'structured';
  readonly contexts: readonly MetaContext[];
  readonly #connection: Connection;
  #cookie = 0n;
  #busy = false;
  #left = false;

  private constructor(
    connection: Connection,
    facts: ExportFacts,
    replies: 'extended' | 'structured',
    contexts: readonly MetaContext[],
  ) {
    this.#connection = connection;
    this.facts = facts;
    this.replies = replies;
    this.contexts = contexts;
  }

  /** Connects and opens the export. `NbdError`; `Timeout` at the deadline; nothing stays open when it throws. */
  static async connect(address: NbdAddress, options: ClientOptions): Promise<NbdClient> {
    const { exportName, contexts: names, extendedHeaders = true } = options;
    return withGreeted(address, options, async (connection) => {
      const replies = await negotiateReplies(connection, extendedHeaders);
      const contexts = names.length > 0 ? await setMetaContexts(connection, exportName, names) : [];
      checkContexts(exportName, names, contexts);
      const facts = await go(connection, exportName);
      return new NbdClient(connection, facts, replies, contexts);
    });
  }

  /**
   * One `NBD_CMD_BLOCK_STATUS`: for each context by name its extents from `offset` on, without gaps, never
   * beyond the export's end, but shorter or longer than asked for, each context as it likes. `failed` where the
   * server answers with an error, after which the client can go on; any other error ends it, a deadline too.
   */
  async blockStatus(offset: number, length: number, wait: Wait): Promise<Map<string, readonly Extent[]>> {
    if (this.#busy) throw new Error('One block status request at a time on an NBD client.');
    this.#busy = true;
    try {
      return await within('A block status request', wait, (signal) =>
        guarded(this.#connection, signal, () => this.#request(offset, length)),
      );
    } catch (error) {
      const goesOn = error instanceof NbdError && error.kind === 'failed' && error.code !== 'NBD_ESHUTDOWN';
      if (!goesOn && error instanceof Error) this.#connection.destroy(error);
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  /** Says goodbye (`NBD_CMD_DISC`) and returns when the connection is gone. Idempotent, never throws. */
  async close(): Promise<void> {
    const connection = this.#connection;
    if (this.#busy) connection.destroy(new NbdError('closed', 'The NBD client was closed.'));
    else if (!this.#left) connection.write(this.#encode(Command.DISC, 0, 0));
    this.#left = true;
    await connection.finish(goodbyeMs);
  }

  #encode(command: number, offset: number, length: number): Buffer {
    this.#cookie += 1n;
    const request = { command, cookie: this.#cookie, offset: BigInt(offset), length: BigInt(length) };
    return encodeRequest(request, this.replies === 'extended');
  }

  async #request(offset: number, length: number): Promise<Map<string, readonly Extent[]>> {
    this.#connection.write(this.#encode(Command.BLOCK_STATUS, offset, length));
    const statusType = this.replies === 'extended' ? Chunk.BLOCK_STATUS_EXT : Chunk.BLOCK_STATUS;
    const answers = new Map<string, readonly Extent[]>();
    let failure: NbdError | undefined;
    for (let count = 0; count < this.contexts.length + maxExtraChunks; count += 1) {
      const header = await this.#readHeader(offset);
      const payload = await this.#connection.read(header.length);
      if (isErrorChunk(header.type)) failure ??= failed(header, payload);
      else if (header.type === statusType) {
        const request = { offset, length, size: this.facts.size };
        const { contextId, extents } = decodeStatusChunk(header.type, payload, request);
        const name = this.contexts.find(({ id }) => id === contextId)?.name;
        if (name === undefined || answers.has(name)) {
          throw protocolError('NBD_CMD_BLOCK_STATUS', `an unexpected answer for context ${contextId}`);
        }
        answers.set(name, extents);
      } else if (header.type !== Chunk.NONE || !header.done) {
        throw protocolError('NBD_CMD_BLOCK_STATUS', `a chunk of type ${header.type}`);
      }
      if (!header.done) continue;
      if (failure) throw failure;
      if (answers.size < this.contexts.length) {
        throw protocolError(
          'NBD_CMD_BLOCK_STATUS',
          `answers for ${answers.size} of ${this.contexts.length} contexts`,
        );
      }
      return answers;
    }
    throw protocolError('NBD_CMD_BLOCK_STATUS', 'a reply of too many chunks');
  }

  async #readHeader(offset: number): Promise<ReplyHeader> {
    const magic = await this.#connection.read(replyMagicLength);
    const rest = await this.#connection.read(replyHeaderRest(magic, this.replies === 'extended'));
    const header = decodeReplyHeader(rest);
    if (header.cookie !== this.#cookie) throw protocolError('replies', 'a cookie that was not sent');
    if (header.offset !== undefined && header.offset !== BigInt(offset)) {
      throw protocolError('extended replies', `an offset of ${header.offset}, not ${offset}`);
    }
    return header;
  }
}

/** The exports that a server lists. */
export async function fetchExports(address: NbdAddress, wait: Wait): Promise<ServerEntry[]> {
  return withGreeted(address, wait, async (connection) => {
    const entries = await listExports(connection);
    abort(connection);
    return entries;
  });
}

/** The names of the metadata contexts that an export offers. */
export async function fetchMetaContexts(
  address: NbdAddress,
  exportName: string,
  wait: Wait,
): Promise<string[]> {
  return withGreeted(address, wait, async (connection) => {
    await negotiateReplies(connection, true);
    const names = await listMetaContexts(connection, exportName);
    abort(connection);
    return names;
  });
}

/** Dials, greets, and drops the connection should `work` fail or the deadline pass. */
async function withGreeted<T>(
  address: NbdAddress,
  wait: Wait,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  return within('Talking to an NBD server', wait, async (signal) => {
    const connection = await dial(address, signal);
    try {
      return await guarded(connection, signal, async () => {
        await greet(connection);
        return work(connection);
      });
    } catch (error) {
      connection.destroy(error instanceof Error ? error : new Error('aborted', { cause: error }));
      throw error;
    }
  });
}

function checkContexts(exportName: string, asked: readonly string[], got: readonly MetaContext[]): void {
  const unknown = got.find(({ name }) => !asked.includes(name));
  if (unknown)
    throw protocolError('NBD_OPT_SET_META_CONTEXT', `${unknown.name} selected, which was not asked for`);
  const missing = asked.filter((name) => !got.some((context) => context.name === name));
  if (missing.length > 0) {
    throw new NbdError(
      'unsupported',
      `The export ${exportName} has no metadata context ${missing.join(', ')}.`,
    );
  }
}

function failed(header: ReplyHeader, payload: Buffer): NbdError {
  const { error, message } =
    header.simpleError === 0 ? decodeErrorChunk(payload) : { error: header.simpleError, message: '' };
  const code = errorName(error);
  const text = message ? `: ${message}` : '';
  return new NbdError('failed', `The NBD server answered with ${code} (${error})${text}.`, { code });
}
