import { AgentError } from '../errors.js';

/** Why a job's signal fires: its caller wants it ended, or the daemon ends and the job goes on without it. */
export type StopReason = 'cancelled' | 'daemon ends';

interface Running {
  controller: AbortController;
  /** Why it cannot be cancelled now, as a sentence; null where it can. */
  pinned: string | null;
  ended: Promise<void>;
}

/** What a job's work is given. */
export interface JobHandle {
  /** Its reason is a `StopReason`. */
  readonly signal: AbortSignal;
  /** From now on a cancel is refused with this sentence; null: it is possible again. */
  pin(sentence: string | null): void;
}

/** The jobs that this daemon is at work on, by id: what a record on disk cannot hold. */
export class RunningJobs {
  readonly #running = new Map<string, Running>();

  has(jobId: string): boolean {
    return this.#running.has(jobId);
  }

  /** Does a job's work, which reports its own end and never rejects. */
  async run(jobId: string, work: (handle: JobHandle) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    let over = () => {};
    const ended = new Promise<void>((resolve) => {
      over = resolve;
    });
    const entry: Running = { controller, pinned: null, ended };
    this.#running.set(jobId, entry);
    try {
      await work({
        signal: controller.signal,
        pin(sentence) {
          entry.pinned = sentence;
        },
      });
    } finally {
      this.#running.delete(jobId);
      over();
    }
  }

  /**
   * Asks a job to end, and returns when it has. One that is not at work is no error.
   * @throws AgentError `BackupBusy` where it cannot be cancelled; the signal's reason
   */
  async cancel(jobId: string, signal: AbortSignal): Promise<void> {
    const entry = this.#running.get(jobId);
    if (entry === undefined) return;
    if (entry.pinned !== null) throw new AgentError('BackupBusy', entry.pinned);
    entry.controller.abort('cancelled' satisfies StopReason);
    await new Promise<void>((resolve, reject) => {
      const expire = () => reject(signal.reason);
      signal.addEventListener('abort', expire, { once: true });
      void entry.ended.then(() => {
        signal.removeEventListener('abort', expire);
        resolve();
      });
    });
  }

  /** The daemon ends: what runs in libvirt goes on there, and the next start takes it up. Returns when all let go. */
  async close(): Promise<void> {
    const all = [...this.#running.values()];
    for (const { controller } of all) controller.abort('daemon ends' satisfies StopReason);
    await Promise.all(all.map(({ ended }) => ended));
  }
}
