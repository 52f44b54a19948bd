import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../host/guest.js';
import { guestScript, planOperations } from './operations.js';
import type { SeededRandom } from './random.js';

/** Between two batches: on a disk that is written without a break soon everything has changed. */
const PAUSE_MS = 100;
const BATCH_DEADLINE_MS = 120_000;

/** What a writer needs to know of a disk. */
export interface WrittenDisk {
  /** Serial number. */
  target: string;
  /** Bytes. */
  capacity: number;
}

/**
 * Writes to, zeroes and discards all disks of a guest at the same time, on and on, while other things are done to them.
 * The seed decides what is done; when, nothing decides.
 */
export class Writer {
  /** Operations done so far. */
  operations = 0;
  readonly #disks: readonly WrittenDisk[];
  readonly #random: SeededRandom;
  #going: { loop: Promise<void>; stop: () => void } | undefined;
  #batches = 0;
  #waiting: { until: number; resolve: () => void }[] = [];

  constructor(disks: readonly WrittenDisk[], random: SeededRandom) {
    this.#disks = disks;
    this.#random = random;
  }

  /** Begins, or goes on. */
  start(guest: Guest): void {
    if (this.#going !== undefined) return;
    const stop = new AbortController();
    const loop = this.#loop(guest, stop.signal);
    // Whoever waits for it next is told.
    loop.catch(() => undefined);
    this.#going = { loop, stop: () => stop.abort() };
  }

  /** Returns when a batch of writes to every disk has begun and ended. @throws what the writer has failed with */
  async more(): Promise<void> {
    if (this.#going === undefined) throw new Error('the writer is not at work');
    const enough = new Promise<void>((resolve) => this.#waiting.push({ until: this.#batches + 2, resolve }));
    await Promise.race([enough, this.#going.loop]);
  }

  /** Returns when the last write is on its disk. @throws what the writer has failed with */
  async pause(): Promise<void> {
    const going = this.#going;
    this.#going = undefined;
    going?.stop();
    await going?.loop;
  }

  /** As `pause`, for a guest that dies meanwhile. */
  async abandon(): Promise<void> {
    await this.pause().catch(() => undefined);
  }

  async #loop(guest: Guest, stopped: AbortSignal): Promise<void> {
    while (!stopped.aborted) {
      await guest.sh(this.#batch(), { timeoutMs: BATCH_DEADLINE_MS });
      this.#batches += 1;
      const reached = this.#waiting.filter(({ until }) => until <= this.#batches);
      this.#waiting = this.#waiting.filter(({ until }) => until > this.#batches);
      for (const { resolve } of reached) resolve();
      await sleep(PAUSE_MS);
    }
  }

  /** A few operations on each disk; the disks side by side, any failure ends the script with an error. */
  #batch(): string {
    const lines = this.#disks.map(({ target, capacity }) => {
      const operations = planOperations(this.#random, capacity, 1 + this.#random.below(4));
      this.operations += operations.length;
      return `( d=$(disk-by-serial ${target})\n${guestScript(operations, '$d')}\n) & pids="$pids $!"`;
    });
    return `${lines.join('\n')}\nfor pid in $pids; do wait $pid || exit 1; done`;
  }
}
