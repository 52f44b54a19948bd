/**
 * The gateway's side of the handshake phase. It answers by itself what is the same for all exports, and passes on to the
 * export's own server what is about one: so every metadata context is there that the server has. proto.md "Handshake".
 */
import type { Connection } from '../nbd/connection.js';
import { Info, Option, optionName, Reply } from '../nbd/constants.js';
import { NbdError, protocolError } from '../nbd/error.js';
import { maxNegotiatedOptions, maxOptionReplies } from '../nbd/limits.js';
import {
  decodeOptionReplyHeader,
  encodeOption,
  encodeOptionReply,
  isFinalReply,
  optionReplyHeaderLength,
} from '../nbd/negotiation.js';
import {
  decodeExportInfo,
  decodeExportName,
  decodeInfoRequest,
  decodeMetaContextRequest,
  encodeExportInfo,
  encodeExportName,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeServerEntry,
} from '../nbd/negotiation-data.js';
import { acknowledge, type OptionRequest, readOption, refuse, reply } from '../nbd/server-handshake.js';
import type { GatewayEntry } from './entry.js';
import { type Replies, Upstream } from './upstream.js';

/** What a client may see. */
export interface Visible {
  /** Whether there is TLS already: without, the client is told that it is needed. */
  readonly secure: boolean;
  /** The exports that this client may list. */
  list(): readonly GatewayEntry[];
  /** An export that this client may use; undefined where it may not, or where there is none. */
  find(exportName: string): GatewayEntry | undefined;
  /** Takes a place among the clients of an export. False: all are taken. */
  enter(entry: GatewayEntry): boolean;
  /** Gives the place back. */
  leave(entry: GatewayEntry): void;
  /** What goes into the log, once a client at most. */
  refused(reason: string): void;
}

/** `starttls`: TLS begins with the next byte. `left`: nothing more comes. Else the data of that export does. */
export type Outcome = 'starttls' | 'left' | Upstream;

/** Names that a client may ask for in vain before it is dropped: it is guessing. */
const MAX_REFUSED_NAMES = 32;

/** The exchange of options with one client, up to the transmission phase. `close` afterwards, however it ended. */
export class Negotiation {
  readonly #client: Connection;
  readonly #visible: Visible;
  readonly #noZeroes: boolean;
  readonly #signal: AbortSignal;
  #replies: Replies = 'simple';
  #refusedNames = 0;
  /** The server spoken to last, and the one that has metadata contexts selected: those stay if another is asked about. */
  #current: Upstream | undefined;
  #withContexts: Upstream | undefined;

  constructor(client: Connection, visible: Visible, noZeroes: boolean, signal: AbortSignal) {
    this.#client = client;
    this.#visible = visible;
    this.#noZeroes = noZeroes;
    this.#signal = signal;
  }

  /** @throws NbdError where the client is gone or broke the protocol; the signal's reason */
  async run(): Promise<Outcome> {
    for (let count = 0; count < maxNegotiatedOptions; count++) {
      const outcome = await this.#answer(await readOption(this.#client));
      if (outcome !== undefined) return outcome;
      await this.#client.drained();
    }
    throw protocolError('newstyle negotiation', `more than ${maxNegotiatedOptions} options`);
  }

  /** Leaves the servers that the outcome has no use for. Idempotent. */
  close(outcome?: Outcome): void {
    for (const upstream of new Set([this.#current, this.#withContexts])) {
      if (upstream !== undefined && upstream !== outcome) this.#drop(upstream);
    }
    this.#current = undefined;
    this.#withContexts = undefined;
  }

  async #answer(request: OptionRequest): Promise<Outcome | undefined> {
    const { option, data } = request;
    switch (option) {
      case Option.ABORT:
        acknowledge(this.#client, option);
        return 'left';
      case Option.STARTTLS:
        return this.#startTls(request);
      case Option.STRUCTURED_REPLY:
      case Option.EXTENDED_HEADERS:
        if (data.length > 0) return this.#invalid(option, 'it carries data');
        return this.#answerInChunks(option);
      case Option.LIST:
        if (data.length > 0) return this.#invalid(option, 'it carries data');
        return this.#list();
      case Option.INFO:
      case Option.GO:
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
      case Option.EXPORT_NAME:
        return this.#ofExport(request);
      default:
        refuse(this.#client, option, Reply.ERR_UNSUP, 'this option is not known here');
        return undefined;
    }
  }

  #startTls({ option, data }: OptionRequest): Outcome | undefined {
    if (this.#visible.secure) return this.#invalid(option, 'there is TLS already');
    if (data.length > 0) return this.#invalid(option, 'it carries data');
    // What came in the clear must not count as if it had come after the handshake.
    if (this.#client.socket.readableLength > 0) {
      throw protocolError('NBD_OPT_STARTTLS', 'data before the answer to it');
    }
    acknowledge(this.#client, option);
    return 'starttls';
  }

  /** Structured replies, and the wide headers where every export that the client can come to has them. */
  async #answerInChunks(option: number): Promise<undefined> {
    if (this.#needsTls(option)) return;
    if (option === Option.EXTENDED_HEADERS) {
      const exports = this.#visible.list();
      if (exports.length === 0 || !exports.every(({ extendedHeaders }) => extendedHeaders)) {
        refuse(this.#client, option, Reply.ERR_UNSUP, 'not all exports have them');
        return;
      }
    } else if (this.#replies === 'extended') {
      refuse(this.#client, option, Reply.ERR_EXT_HEADER_REQD, 'extended headers are negotiated already');
      return;
    }
    const replies = option === Option.EXTENDED_HEADERS ? 'extended' : 'structured';
    if (replies !== this.#replies) {
      for (const upstream of new Set([this.#current, this.#withContexts])) await upstream?.negotiate(replies);
    }
    this.#replies = replies;
    acknowledge(this.#client, option);
  }

  async #list(): Promise<undefined> {
    if (this.#needsTls(Option.LIST)) return;
    for (const { exportId } of this.#visible.list()) {
      reply(
        this.#client,
        Option.LIST,
        Reply.SERVER,
        encodeServerEntry({ exportName: exportId, description: '' }),
      );
    }
    acknowledge(this.#client, Option.LIST);
  }

  /** An option that names an export, passed on under the name that the export has at its server. */
  async #ofExport({ option, data }: OptionRequest): Promise<Outcome | undefined> {
    let named: { exportName: string; under(name: string): Buffer };
    try {
      named = namedExport(option, data);
    } catch (error) {
      if (!(error instanceof NbdError) || option === Option.EXPORT_NAME) throw error;
      return this.#invalid(option, error.message);
    }
    const entry = this.#visible.find(named.exportName);
    if (entry === undefined) return this.#unknown(option, named.exportName);
    const upstream = await this.#upstreamOf(entry, option);
    if (upstream === undefined) return undefined;
    upstream.connection.write(encodeOption(option, named.under(entry.server.exportName)));
    // There is no reply to this one: the transmission phase begins, or the server ends the connection.
    if (option === Option.EXPORT_NAME) return upstream;
    const done = await this.#passReplies(upstream, entry.exportId);
    if (option === Option.SET_META_CONTEXT && done) {
      if (this.#withContexts !== upstream && this.#withContexts !== undefined) this.#drop(this.#withContexts);
      this.#withContexts = upstream;
    }
    return option === Option.GO && done ? upstream : undefined;
  }

  /** The server of an export; undefined where the client has been told that it cannot be had. */
  async #upstreamOf(entry: GatewayEntry, option: number): Promise<Upstream | undefined> {
    const known = [this.#current, this.#withContexts].find((one) => one?.entry.exportId === entry.exportId);
    const left = this.#current;
    this.#current = known;
    if (left !== undefined && left !== known && left !== this.#withContexts) this.#drop(left);
    if (known !== undefined) return known;
    if (!this.#visible.enter(entry)) {
      const reason = `${entry.exportId} has ${entry.connections} clients, which is its limit`;
      this.#cannot(option, Reply.ERR_POLICY, reason);
      return undefined;
    }
    try {
      const said = { noZeroes: this.#noZeroes, replies: this.#replies };
      this.#current = await Upstream.dial(entry, said, this.#signal);
      return this.#current;
    } catch (error) {
      this.#visible.leave(entry);
      if (!(error instanceof NbdError)) throw error;
      this.#cannot(option, Reply.ERR_SHUTDOWN, `the server of ${entry.exportId} fails: ${error.message}`);
      return undefined;
    }
  }

  /** Hands on all replies to one option. True: the last was ACK. */
  async #passReplies({ connection }: Upstream, exportId: string): Promise<boolean> {
    for (let count = 0; count < maxOptionReplies; count++) {
      const header = decodeOptionReplyHeader(await connection.read(optionReplyHeaderLength));
      const data = await connection.read(header.length);
      const shown = header.type === Reply.INFO ? withName(data, exportId) : data;
      this.#client.write(encodeOptionReply(header.option, header.type, shown));
      if (isFinalReply(header.type)) return header.type === Reply.ACK;
      await this.#client.drained();
    }
    throw protocolError('option replies', `more than ${maxOptionReplies} replies of the export's server`);
  }

  #needsTls(option: number): boolean {
    if (this.#visible.secure || this.#visible.list().length > 0) return false;
    this.#visible.refused(`it asks for ${optionName(option)} without TLS`);
    refuse(this.#client, option, Reply.ERR_TLS_REQD, 'begin TLS first');
    return true;
  }

  /** One answer for what is not there and for what is not for this client: who guesses names learns nothing. */
  #unknown(option: number, exportName: string): undefined {
    const { secure } = this.#visible;
    const shown = JSON.stringify(exportName.slice(0, 80));
    if (++this.#refusedNames > MAX_REFUSED_NAMES) {
      throw protocolError('option types', `${MAX_REFUSED_NAMES} exports asked for that are not there for it`);
    }
    if (secure) {
      const reason = `it asks for ${shown}, and there is no such export for it`;
      this.#cannot(option, Reply.ERR_UNKNOWN, reason, `There is no export ${shown} for this client.`);
    } else {
      this.#cannot(
        option,
        Reply.ERR_TLS_REQD,
        `it asks for ${shown} by ${optionName(option)} without TLS`,
        'Begin TLS first.',
      );
    }
  }

  #cannot(option: number, type: number, reason: string, told = reason): undefined {
    this.#visible.refused(reason);
    // "the server MUST close the connection": there is no other way to refuse this one.
    if (option === Option.EXPORT_NAME) throw new NbdError('refused', reason);
    refuse(this.#client, option, type, told);
  }

  #invalid(option: number, why: string): undefined {
    refuse(this.#client, option, Reply.ERR_INVALID, why);
  }

  #drop(upstream: Upstream): void {
    upstream.close();
    this.#visible.leave(upstream.entry);
  }
}

/** The export that an option names, and its data with another name in that place. */
function namedExport(option: number, data: Buffer): { exportName: string; under(name: string): Buffer } {
  switch (option) {
    case Option.EXPORT_NAME:
      return { exportName: decodeExportName(data), under: encodeExportName };
    case Option.INFO:
    case Option.GO: {
      const request = decodeInfoRequest(data);
      return {
        exportName: request.exportName,
        under: (exportName) => encodeInfoRequest({ ...request, exportName }),
      };
    }
    default: {
      const request = decodeMetaContextRequest(data);
      return {
        exportName: request.exportName,
        under: (exportName) => encodeMetaContextRequest({ ...request, exportName }),
      };
    }
  }
}

/** NBD_REP_INFO with the name by which the client knows the export, where it is about the name. */
function withName(data: Buffer, exportId: string): Buffer {
  if (data.length < 2 || data.readUInt16BE(0) !== Info.NAME) return data;
  const info = decodeExportInfo(data);
  return info.type === 'name' ? encodeExportInfo({ ...info, name: exportId }) : data;
}
