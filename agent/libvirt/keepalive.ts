/**
 * Notices a peer that is silent without having closed the connection: a stopped daemon, a hung host.
 *
 * As in src/rpc/virkeepalive.c, any message is a sign of life; after an interval of silence a ping is sent, and an
 * interval after `count` pings without a sign the peer is dead: `count + 1` to `count + 2` intervals after its last
 * message, since time is counted in whole intervals here, without a clock read for every message.
 */
export interface KeepAliveOptions {
  /** Silence before a ping, in milliseconds. */
  readonly intervalMs: number;
  /** Pings that may stay unanswered. */
  readonly count: number;
}

/** Runs from its construction until `stop`. */
export class KeepAlive {
  #timer: NodeJS.Timeout | undefined;
  #unanswered = 0;
  #heard = false;

  constructor(
    readonly options: KeepAliveOptions,
    private readonly ping: () => void,
    private readonly dead: () => void,
  ) {
    this.#arm();
  }

  /** The peer sent something. Cheap: called for every message. */
  heard(): void {
    this.#heard = true;
  }

  /** Idempotent. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    this.#timer = setTimeout(() => this.#elapsed(), this.options.intervalMs);
  }

  #elapsed(): void {
    // If this process was held up, answers lie unread in the socket: let one round of reading go first.
    setImmediate(() => {
      if (this.#timer === undefined) return;
      if (this.#heard) {
        this.#heard = false;
        this.#unanswered = 0;
      } else if (this.#unanswered >= this.options.count) {
        this.stop();
        this.dead();
        return;
      } else {
        this.#unanswered++;
        this.ping();
      }
      this.#arm();
    });
  }
}
