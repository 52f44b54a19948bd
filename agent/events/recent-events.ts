import type { EventLine } from './event.js';

/** How much is kept. */
export interface EventBounds {
  events: number;
  /** Of their texts in UTF-8. */
  bytes: number;
}

/** The newest events within bounds, by ascending number; the oldest make room. */
export class RecentEvents {
  readonly #bounds: EventBounds;
  #lines: EventLine[] = [];
  /** What lies before it is gone. */
  #start = 0;
  #bytes = 0;

  constructor(bounds: EventBounds) {
    this.#bounds = bounds;
  }

  get count(): number {
    return this.#lines.length - this.#start;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @param line with a number above all others. The newest is kept, however long. */
  push(line: EventLine): void {
    this.#lines.push(line);
    this.#bytes += sizeOf(line);
    const { events, bytes } = this.#bounds;
    while (this.count > 1 && (this.count > events || this.#bytes > bytes)) this.#dropOldest();
    if (this.#start > this.#lines.length / 2) {
      this.#lines = this.#lines.slice(this.#start);
      this.#start = 0;
    }
  }

  /** Those with numbers above `seq`, the oldest first; to be read before anything else happens to them. */
  *after(seq: number): Generator<EventLine> {
    let [low, high] = [this.#start, this.#lines.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#lines[middle]?.seq ?? 0) > seq) high = middle;
      else low = middle + 1;
    }
    for (; low < this.#lines.length; low++) yield this.#lines[low] as EventLine;
  }

  /** All of them, which are then gone from here. */
  takeAll(): EventLine[] {
    const all = this.#lines.slice(this.#start);
    this.#lines = [];
    this.#start = 0;
    this.#bytes = 0;
    return all;
  }

  #dropOldest(): void {
    const oldest = this.#lines[this.#start];
    if (oldest === undefined) return;
    this.#bytes -= sizeOf(oldest);
    // Not kept alive until the list is cut.
    this.#lines[this.#start] = { seq: oldest.seq, text: '' };
    this.#start += 1;
  }
}

const sizeOf = ({ text }: EventLine): number => Buffer.byteLength(text);
