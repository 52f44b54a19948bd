import type { WaitEventsParams } from '../api/generated.js';
import { AgentError } from '../errors.js';
import type { EventJournal, EventPage } from './journal.js';

/**
 * Milliseconds that are still waited for a caller that has closed its side: it may be reading yet, or have left, which
 * would keep its place and its connection until the timeout.
 */
const CALLER_ENDED_MS = 5000;

/** Who waits, and how long at most. */
export interface WaitingCall {
  /** Fires at the verb's deadline. */
  signal: AbortSignal;
  /** See `Call.callerEnded`. */
  callerEnded: AbortSignal;
}

/** Those that wait for events: so many at once. */
export class EventWaits {
  readonly #journal: EventJournal;
  readonly #limit: number;
  #waiting = 0;

  constructor(journal: EventJournal, limit: number) {
    this.#journal = journal;
    this.#limit = limit;
  }

  /**
   * What follows `after`, as soon as there is something; nothing at the timeout.
   * @throws AgentError `LimitReached`
   */
  async wait({ after, timeoutSeconds, max }: WaitEventsParams, call: WaitingCall): Promise<EventPage> {
    const from = after ?? this.#journal.newest;
    const page = this.#journal.pageAfter(from, max);
    if (tells(page) || timeoutSeconds === 0) return page;
    if (this.#waiting >= this.#limit) {
      throw new AgentError(
        'LimitReached',
        `${this.#limit} callers wait for events, which is the limit; wait with fewer, poll with timeoutSeconds 0, or raise [limits] eventWaiters.`,
      );
    }
    this.#waiting += 1;
    try {
      return await this.#until(from, max, timeoutSeconds * 1000, call);
    } finally {
      this.#waiting -= 1;
    }
  }

  async #until(
    from: number,
    max: number,
    timeoutMs: number,
    { signal, callerEnded }: WaitingCall,
  ): Promise<EventPage> {
    const over = new AbortController();
    const end = () => over.abort();
    const timers = [setTimeout(end, timeoutMs)];
    const endSoon = () => void timers.push(setTimeout(end, CALLER_ENDED_MS));
    if (callerEnded.aborted) endSoon();
    callerEnded.addEventListener('abort', endSoon);
    signal.addEventListener('abort', end);
    try {
      for (;;) {
        await this.#journal.change(over.signal);
        const page = this.#journal.pageAfter(from, max);
        if (tells(page) || over.signal.aborted || this.#journal.released) return page;
      }
    } finally {
      for (const timer of timers) clearTimeout(timer);
      callerEnded.removeEventListener('abort', endSoon);
      signal.removeEventListener('abort', end);
    }
  }
}

function tells({ events, gap }: EventPage): boolean {
  return events.length > 0 || gap !== null;
}
