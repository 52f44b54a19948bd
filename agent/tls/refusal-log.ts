import type { Logger } from 'pino';

/** Lines about refused clients in so long: of one reason, and of all. What is more is counted and told as one line. */
const PERIOD_MS = 10_000;
const LINES_OF_ONE = 10;
const LINES = 200;

/** A line for each client that is refused, and no more than a log can bear of those who try all day. */
export class RefusalLog {
  readonly #log: Logger;
  readonly #timer: NodeJS.Timeout;
  /** Lines of this period by reason. */
  readonly #lines = new Map<string, number>();
  #written = 0;
  #left = 0;

  constructor(log: Logger) {
    this.#log = log;
    this.#timer = setInterval(() => this.#next(), PERIOD_MS);
  }

  write(reason: string, about: object): void {
    const lines = this.#lines.get(reason) ?? 0;
    if (lines >= LINES_OF_ONE || this.#written >= LINES) {
      this.#left++;
      return;
    }
    this.#lines.set(reason, lines + 1);
    this.#written++;
    this.#log.warn({ ...about, reason }, 'a client was refused');
  }

  close(): void {
    clearInterval(this.#timer);
    this.#next();
  }

  #next(): void {
    if (this.#left > 0) {
      const seconds = PERIOD_MS / 1000;
      this.#log.warn(
        { clients: this.#left, seconds },
        'so many more clients were refused, without a line each',
      );
    }
    this.#lines.clear();
    this.#written = 0;
    this.#left = 0;
  }
}
