import { AgentError } from '../errors.js';

interface About {
  exportId?: string;
  vmId?: string;
}

/** Keeps new exports and backups out while the host is drained. */
export class DrainGate {
  #jobId: string | null = null;
  #begun = 0;

  /** The drain that is at work; null without one. */
  get jobId(): string | null {
    return this.#jobId;
  }

  close(jobId: string): void {
    this.#jobId = jobId;
    this.#begun += 1;
  }

  open(): void {
    this.#jobId = null;
  }

  /**
   * To be asked before an export or a backup is begun.
   * @returns the same question, to be asked again when its record stands: a drain that begins after that finds the record,
   * and one that has begun since the first question, even if it has ended, is seen here
   * @throws AgentError `LimitReached`; so does the second
   */
  refuse(about: About = {}): () => void {
    const refuseIf = (is: boolean) => {
      if (!is) return;
      throw new AgentError(
        'LimitReached',
        `A drain is at work${this.#jobId === null ? '' : ` (job ${this.#jobId})`}: this host takes no new exports and backups until it has ended; use another host, or try again then.`,
        about,
      );
    };
    refuseIf(this.#jobId !== null);
    const begun = this.#begun;
    return () => refuseIf(this.#begun !== begun);
  }
}
