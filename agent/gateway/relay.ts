import type { Socket } from 'node:net';
import type { Upstream } from './upstream.js';

/** Pieces on their way to a client: one that is written while the next is read. */
const IN_FLIGHT = 2;
/** Bytes that may wait for an export's server: a socket's own limit is one record of TLS, after each of which it would rest. */
const WAITING_BYTES = 1024 * 1024;
/** Milliseconds that one side has to take what is left for it, once the other has gone. */
const LINGER_MS = 5000;

/** Where bytes are counted. */
export interface Counter {
  sent(bytes: number): void;
  received(bytes: number): void;
}

/**
 * Bytes both ways between a client and an export's server, not looked at, and no faster than the slower of them takes
 * them.
 */
export class Relay {
  readonly ended: Promise<void>;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #count: Counter;
  #inFlight = 0;
  #movedAt = performance.now();
  #lingering: NodeJS.Timeout | undefined;

  constructor(client: Socket, upstream: Upstream, count: Counter) {
    this.#client = client;
    this.#count = count;
    this.#server = upstream.flowInto((chunk) => this.#toClient(chunk));
    client.on('data', (chunk: Buffer) => this.#toServer(chunk));
    this.ended = Promise.all([this.#follow(client, this.#server), this.#follow(this.#server, client)]).then(
      () => clearTimeout(this.#lingering),
    );
  }

  /** Milliseconds since the client has taken something, where something waits for it; else 0. */
  get stalledMs(): number {
    return this.#inFlight === 0 ? 0 : performance.now() - this.#movedAt;
  }

  /** Ends it at once, whatever is on its way. Idempotent. */
  cut(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  #toClient(chunk: Buffer): boolean {
    if (this.#inFlight === 0) this.#movedAt = performance.now();
    this.#inFlight++;
    this.#client.write(chunk, () => {
      this.#inFlight--;
      this.#movedAt = performance.now();
      this.#server.resume();
    });
    this.#count.sent(chunk.length);
    return this.#inFlight < IN_FLIGHT;
  }

  #toServer(chunk: Buffer): void {
    this.#count.received(chunk.length);
    if (this.#server.write(chunk) || this.#server.writableLength < WAITING_BYTES) return;
    this.#client.pause();
    this.#server.once('drain', () => this.#client.resume());
  }

  /** When one side ends, so does the other, after what is left for it. Returns when `side` is gone. */
  async #follow(side: Socket, other: Socket): Promise<void> {
    side.once('end', () => other.end());
    if (!side.closed) await new Promise((resolve) => side.once('close', resolve));
    other.end();
    this.#lingering ??= setTimeout(() => this.cut(), LINGER_MS);
  }
}
