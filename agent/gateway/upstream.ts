import type { OnReadOpts, Socket } from 'node:net';
import { type Connection, dial, guarded } from '../nbd/connection.js';
import { Option } from '../nbd/constants.js';
import { demand, greet } from '../nbd/handshake.js';
import type { GatewayEntry } from './entry.js';

/** Bytes read at once while options are exchanged, and while data is relayed: a stream of Node's reads 64 KiB. */
const NEGOTIATION_BYTES = 16 * 1024;
const RELAY_BYTES = 1024 * 1024;

/** How the server answers requests: what the client has asked for by options. */
export type Replies = 'simple' | 'structured' | 'extended';

/** Takes a piece of what the server sends; false: no more until it is resumed. */
export type Sink = (chunk: Buffer) => boolean;

/** A connection to the export's own server. */
export class Upstream {
  readonly entry: GatewayEntry;
  readonly connection: Connection;
  readonly #feed: Feed;

  private constructor(entry: GatewayEntry, connection: Connection, feed: Feed) {
    this.entry = entry;
    this.connection = connection;
    this.#feed = feed;
  }

  /**
   * Connects, and says again what the client has said to us so far.
   * @throws NbdError where nobody serves, or the server refuses that; the signal's reason
   */
  static async dial(
    entry: GatewayEntry,
    said: { noZeroes: boolean; replies: Replies },
    signal: AbortSignal,
  ): Promise<Upstream> {
    const feed = new Feed();
    const address = { transport: 'unix', socket: entry.server.socket } as const;
    const connection = await dial(address, signal, (socket) => feed.onread(socket));
    const upstream = new Upstream(entry, connection, feed);
    try {
      await guarded(connection, signal, async () => {
        await greet(connection, said.noZeroes);
        await upstream.negotiate(said.replies);
      });
      return upstream;
    } catch (error) {
      connection.destroy(error as Error);
      throw error;
    }
  }

  /** Has the server answer so. */
  async negotiate(replies: Replies): Promise<void> {
    if (replies === 'extended') await demand(this.connection, Option.EXTENDED_HEADERS);
    else if (replies === 'structured') await demand(this.connection, Option.STRUCTURED_REPLY);
  }

  /** From now on all that comes goes into the sink, from the first byte that nobody has read. */
  flowInto(sink: Sink): Socket {
    const socket = this.connection.release();
    this.#feed.sink = sink;
    const unread: Buffer | null = socket.read();
    if (unread !== null) sink(unread);
    socket.resume();
    return socket;
  }

  /** Idempotent. */
  close(): void {
    this.connection.destroy(new Error('no longer needed'));
  }
}

/**
 * What arrives from a server. At first it is pushed into the socket's own stream, from which options are read piece by
 * piece. Later two large buffers take turns: the sink may hold both, and is given no third.
 */
class Feed {
  sink: Sink | undefined;
  readonly #small = Buffer.allocUnsafe(NEGOTIATION_BYTES);
  #large: readonly [Buffer, Buffer] | undefined;
  #turn = 0;

  onread(socket: () => Socket): OnReadOpts {
    return {
      buffer: () => {
        if (this.sink === undefined) return this.#small;
        this.#large ??= [Buffer.allocUnsafe(RELAY_BYTES), Buffer.allocUnsafe(RELAY_BYTES)];
        this.#turn = 1 - this.#turn;
        return this.#large[this.#turn as 0 | 1];
      },
      callback: (length, bytes) => {
        const chunk = (bytes as Buffer).subarray(0, length);
        if (this.sink !== undefined) return this.sink(chunk);
        socket().push(Buffer.from(chunk));
        return true;
      },
    };
  }
}
