/** A connection that comes back: opened again, with growing waits, until it is closed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type BackoffOptions, backoffMs } from './backoff.js';
import type { Connection } from './connection.js';

export interface LinkEvents {
  /** A connection is ready for calls. */
  up(connection: Connection): void;
  /** An attempt came to nothing; the next follows in `retryInMs`. */
  failed(error: unknown, retryInMs: number): void;
}

export class Link {
  readonly #open: (signal: AbortSignal) => Promise<Connection>;
  readonly #backoff: BackoffOptions;
  readonly #events: LinkEvents;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  /** @param open one attempt, from socket to ready for calls; has time limits of its own, and ends with the signal. */
  constructor(
    open: (signal: AbortSignal) => Promise<Connection>,
    backoff: BackoffOptions,
    events: LinkEvents,
  ) {
    this.#open = open;
    this.#backoff = backoff;
    this.#events = events;
    this.#running = this.#run();
  }

  /** Closes the connection and opens no other. Idempotent; resolves when nothing is under way any more. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let attempt = 0;
    // Not in the constructor's own turn: who made the link gets to hold it before it reports anything.
    await Promise.resolve();
    while (!signal.aborted) {
      let failure: unknown;
      try {
        const connection = await this.#open(signal);
        const since = performance.now();
        this.#events.up(connection);
        await connection.closed;
        // A daemon that accepts and hangs up again is as good as none: only time shows that it works.
        if (performance.now() - since > this.#backoff.maxMs) attempt = 0;
      } catch (error) {
        failure = error;
      }
      if (signal.aborted) return;
      const waitMs = backoffMs(attempt++, this.#backoff);
      if (failure !== undefined) this.#events.failed(failure, waitMs);
      await sleep(waitMs, undefined, { signal }).catch(() => {});
    }
  }
}
