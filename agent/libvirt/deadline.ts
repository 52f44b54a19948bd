/** A call's time limit and its caller's AbortSignal, as one thing. */
import { CallTimeoutError } from './errors.js';

/** What every call takes as its last parameter. */
export interface CallOptions {
  /** Milliseconds until the call is given up with `CallTimeoutError`; waiting for its turn counts. */
  readonly timeoutMs?: number;
  /** Gives the call up with the signal's reason. As with a timeout, libvirtd may still carry it out. */
  readonly signal?: AbortSignal;
}

/** setTimeout's longest; beyond it Node fires at once. */
const longestTimerMs = 2 ** 31 - 1;

/**
 * Runs from its construction and ends at most once, unless cleared. Who holds the call at the moment (the queue, then
 * the connection) says through `onEnd` what happens then.
 */
export class Deadline {
  readonly #timer: NodeJS.Timeout;
  readonly #signal: AbortSignal | undefined;
  #holder: ((error: Error) => void) | undefined;
  #sent = false;

  constructor(
    readonly procedure: string,
    readonly timeoutMs: number,
    signal: AbortSignal | undefined,
  ) {
    if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs must be above 0, not ${timeoutMs}`);
    signal?.throwIfAborted();
    this.#signal = signal;
    this.#timer = setTimeout(this.#expire, Math.min(timeoutMs, longestTimerMs));
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Passes the call on to its next holder. @param sent whether libvirtd may already act on the call. */
  onEnd(sent: boolean, holder: (error: Error) => void): void {
    this.#sent = sent;
    this.#holder = holder;
  }

  /** The call is over by itself. Idempotent. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#abort);
    this.#holder = undefined;
  }

  readonly #expire = (): void => this.#end(new CallTimeoutError(this.procedure, this.timeoutMs, this.#sent));

  readonly #abort = (): void => this.#end(this.#signal?.reason);

  #end(error: Error): void {
    const holder = this.#holder;
    this.clear();
    holder?.(error);
  }
}
