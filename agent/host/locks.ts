import { AgentError } from '../errors.js';

interface Waiter {
  holder: string;
  grant: () => void;
}

/**
 * One lock a key (a VM, an export id), fair, in memory: the daemon is the only one that changes what it guards.
 * A lock knows who holds it, so that whoever has to wait or give up can be told.
 */
export class KeyedLocks {
  readonly #held = new Map<string, { holder: string; queue: Waiter[] }>();

  /** Who holds the key now, in words for an error message; undefined when it is free. */
  holder(key: string): string | undefined {
    return this.#held.get(key)?.holder;
  }

  /**
   * Runs `work` while holding `key`.
   * @param holder who holds it, for messages: `hotplugDisk into web1`
   * @throws AgentError `Timeout` when `signal` fires first; then `work` was not begun
   */
  async run<T>(key: string, holder: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#acquire(key, holder, signal);
    try {
      return await work();
    } finally {
      this.#release(key);
    }
  }

  async #acquire(key: string, holder: string, signal: AbortSignal): Promise<void> {
    const lock = this.#held.get(key);
    if (lock === undefined) {
      this.#held.set(key, { holder, queue: [] });
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const expire = () => {
        lock.queue = lock.queue.filter((queued) => queued !== waiter);
        reject(
          new AgentError(
            'Timeout',
            `Waited for ${lock.holder} to finish, which it has not; try again later.`,
          ),
        );
      };
      const waiter: Waiter = {
        holder,
        grant: () => {
          signal.removeEventListener('abort', expire);
          resolve();
        },
      };
      if (signal.aborted) return expire();
      signal.addEventListener('abort', expire, { once: true });
      lock.queue.push(waiter);
    });
  }

  #release(key: string): void {
    const lock = this.#held.get(key);
    const next = lock?.queue.shift();
    if (lock === undefined || next === undefined) {
      this.#held.delete(key);
      return;
    }
    lock.holder = next.holder;
    next.grant();
  }
}
