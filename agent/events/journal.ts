import type { WaitEventsResult } from '../api/generated.js';
import type { Log } from '../log.js';
import type { EventSink, NewEvent } from './event.js';
import { EventFiles } from './event-files.js';
import { type EventBounds, RecentEvents } from './recent-events.js';

/** Characters of one text in an event. */
const TEXT = 1024;
/** Characters of one answer: an event that goes beyond it is told by the next. */
const PAGE = 256 * 1024;
/** Milliseconds in which what happens together is gathered for one answer. */
const GATHER_MS = 5;

/** What `waitEvents` answers with. */
export type EventPage = WaitEventsResult;

/**
 * What has happened on the host, numbered from 1 on without an end, the newest kept in memory and on disk. A number is
 * given once in a journal, whatever happens to the daemon; a journal that cannot go on has a successor with a new id.
 */
export class EventJournal implements EventSink {
  readonly id: string;
  readonly #files: EventFiles;
  readonly #recent: RecentEvents;
  #newest: number;
  readonly #sleepers = new Set<() => void>();
  #gathering: NodeJS.Timeout | undefined;
  #released = false;

  private constructor(id: string, newest: number, files: EventFiles, recent: RecentEvents) {
    this.id = id;
    this.#newest = newest;
    this.#files = files;
    this.#recent = recent;
  }

  /** Goes on with the journal in a directory, or begins one there. A disk that is at fault is logged, and no reason not to. */
  static async open(dir: string, bounds: EventBounds, log: Log): Promise<EventJournal> {
    const files = new EventFiles(dir, bounds, log);
    const { journal, lines, newest } = await files.start();
    const recent = new RecentEvents(bounds);
    for (const line of lines) recent.push(line);
    return new EventJournal(journal, newest, files, recent);
  }

  /** The highest number that was given or left out. */
  get newest(): number {
    return this.#newest;
  }

  /** Nobody shall wait any more. */
  get released(): boolean {
    return this.#released;
  }

  emit(event: NewEvent): void {
    this.#newest += 1;
    const numbered = { seq: this.#newest, time: new Date().toISOString(), ...event };
    const line = { seq: this.#newest, text: JSON.stringify(numbered, cut) };
    this.#recent.push(line);
    this.#files.append(line);
    if (this.#sleepers.size > 0) this.#gathering ??= setTimeout(() => this.#wake(), GATHER_MS);
  }

  /** The events that follow a number, without one missing among them: what is missing before them is the gap. */
  pageAfter(after: number, max: number): EventPage {
    const journal = this.id;
    const newest = this.#newest;
    if (after > newest) {
      return { journal, events: [], next: newest, gap: { from: newest + 1, to: after } };
    }
    const page: EventPage = { journal, events: [], next: after, gap: null };
    let length = 0;
    for (const { seq, text } of this.#recent.after(after)) {
      length += text.length;
      const first = page.events.length === 0;
      if (!first && (seq !== page.next + 1 || page.events.length === max || length > PAGE)) break;
      if (seq !== page.next + 1) page.gap = { from: page.next + 1, to: seq - 1 };
      page.events.push(JSON.parse(text) as EventPage['events'][number]);
      page.next = seq;
    }
    if (page.events.length > 0 || after === newest) return page;
    return { ...page, next: newest, gap: { from: after + 1, to: newest } };
  }

  /** Resolves soon after something has happened, or when the signal fires or nobody shall wait; perhaps for nothing. */
  async change(signal: AbortSignal): Promise<void> {
    if (this.#released || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        this.#sleepers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#sleepers.add(wake);
      signal.addEventListener('abort', wake);
    });
  }

  /** Wakes all who wait, for good: the daemon is about to end. What happens until `close` is kept. */
  release(): void {
    this.#released = true;
    this.#wake();
  }

  /** Returns when all is on disk. */
  async close(): Promise<void> {
    this.release();
    await this.#files.close();
  }

  #wake(): void {
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    for (const wake of [...this.#sleepers]) wake();
  }
}

/** For JSON: an event is small, whatever a program said on its stderr. */
function cut(_key: string, value: unknown): unknown {
  return typeof value === 'string' && value.length > TEXT ? `${value.slice(0, TEXT - 1)}…` : value;
}
