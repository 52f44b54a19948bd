/** A caller that does not give up: what a scenario plays on. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { PrepareBackupDiskResult, Verbs } from '../../agent/api/generated.js';
import { verbSchemas } from '../../agent/api/schemas.js';
import { type Given, verb } from '../exports/rig.js';
import { RpcFailure } from '../host/daemon.js';
import { poll } from '../host/poll.js';
import { NotSettled } from './check.js';
import { Unreadable, verifyExport } from './disk-content.js';
import type { Rig } from './rig.js';

const RETRY_MS = 90_000;
const PAUSE_MS = 100;
const END_MS = 10_000;
/** May end any verb, by the reference. */
const ALWAYS = ['Timeout', 'LimitReached', 'RecoveryInProgress', 'LibvirtUnavailable'];

/** A named error that the reference allows for that verb: the play is over, and nothing is wrong by itself. */
export class Refused extends Error {
  override readonly name = 'Refused';
  constructor(
    readonly error: string,
    message: string,
  ) {
    super(message);
  }
}

/** How a caller behaves when the daemon goes away under it. */
export interface Manners {
  /** Repeats its call as soon as the daemon listens, and not after the host has settled. */
  prompt: boolean;
  /** After that many points of its new start the daemon is killed again. */
  againAt: number | null;
  /** Whether named errors may come: something besides the daemon is harmed. */
  mayBeRefused: boolean;
}

export class Stage {
  /** How often the daemon was killed. */
  kills = 0;
  readonly #manners: Manners;

  constructor(
    readonly rig: Rig,
    readonly tag: string,
    manners: Manners = { prompt: false, againAt: null, mayBeRefused: false },
  ) {
    this.#manners = manners;
  }

  /** An id that no other run has. */
  id(name: string): string {
    return `${name}${this.tag}`;
  }

  /**
   * Calls a verb, and again as long as it may succeed later; where the daemon was killed it is started again first.
   * @throws Refused; Error for what no caller should see
   */
  async call<N extends keyof Verbs>(name: N, params: Given<Verbs[N]['params']>): Promise<Verbs[N]['result']> {
    const deadline = Date.now() + RETRY_MS;
    for (;;) {
      try {
        return await verb(this.rig.daemon, name, params);
      } catch (error) {
        if (!(error instanceof RpcFailure)) await this.#afterDeath(name, error);
        else if (error.data.retryable !== true) throw this.#judged(name, error);
        else if (Date.now() > deadline) throw new Error(`${name} never succeeds: ${error.message}`);
        else await sleep(PAUSE_MS);
      }
    }
  }

  #judged(name: keyof Verbs, error: RpcFailure): Error {
    const known = String(error.data.name);
    const documented = [...ALWAYS, ...verbSchemas[name].errors].includes(known);
    const words = `${name}: ${error.code} ${known}: ${error.message}`;
    if (documented && this.#manners.mayBeRefused) return new Refused(known, words);
    return new Error(documented ? words : `${words} (not documented)`);
  }

  async #afterDeath(name: string, cause: unknown): Promise<void> {
    const { daemon } = this.rig;
    let ended = false;
    void daemon.process.exited.then(() => {
      ended = true;
    });
    await poll('the daemon to end', END_MS, () => ended).catch(() => {
      throw new Error(`${name} had no answer, and the daemon lives: ${cause}`);
    });
    if (!daemon.passed().some((line) => line.startsWith('KILLED '))) {
      throw new Error(`the daemon has ended by itself at ${name}:\n${daemon.log().slice(-3000)}`);
    }
    this.kills += 1;
    await this.#restart();
    if (!this.#manners.prompt) await this.rig.settle();
  }

  async #restart(): Promise<void> {
    const { againAt } = this.#manners;
    if (againAt === null || this.kills > 1) return this.rig.startDaemon({ at: null, tag: this.tag });
    await this.rig.startDaemon({ at: againAt, kill: true, tag: this.tag }).catch(async (error: Error) => {
      if (!/ended at its start/.test(error.message)) throw error;
      this.kills += 1;
      await this.rig.startDaemon({ at: null, tag: this.tag });
    });
  }

  /** The daemon is there, and the host is what its records say; a VM whose QEMU was killed ends the play. */
  async settled(): Promise<void> {
    await this.call('listExports', {});
    await this.rig.settle().catch((error: unknown) => {
      const excused = error instanceof NotSettled && error.vmEnded && this.#manners.mayBeRefused;
      throw excused ? new Refused('NotSettled', error.message) : error;
    });
  }

  /** The export shows that content, and its map says at least what differs from `since`. */
  async verify(made: PrepareBackupDiskResult, content: Buffer, since: Buffer | null = null): Promise<void> {
    await this.asClient(() => verifyExport(this.rig.host, made, content, since));
  }

  /** Does what a client of an export does, whose server may have been killed. @throws Refused for `Unreadable` */
  async asClient<T>(deed: () => Promise<T>): Promise<T> {
    return deed().catch((error: unknown) => {
      const excused = error instanceof Unreadable && this.#manners.mayBeRefused;
      throw excused ? new Refused('Unreadable', error.message) : error;
    });
  }

  /** Waits for a job to end, in whatever way. */
  async finished(jobId: string): Promise<Verbs['getJob']['result']> {
    const deadline = Date.now() + RETRY_MS;
    for (;;) {
      const job = await this.call('getJob', { jobId });
      if (job.state !== 'running') return job;
      if (Date.now() > deadline) throw new Error(`the job ${jobId} never ends`);
      await sleep(PAUSE_MS);
    }
  }

  /** Deletes a snapshot, and again where the job was cut short: the next one goes on from there. */
  async merged(vmId: string, snapshotId: string): Promise<void> {
    for (;;) {
      const { jobId } = await this.call('deleteSnapshot', { vmId, snapshotId });
      const { state, error } = await this.finished(jobId);
      if (state === 'done') return;
      if (state === 'cancelled') continue;
      const words = `deleteSnapshot ${snapshotId}: ${error?.message}`;
      throw this.#manners.mayBeRefused ? new Refused(error?.name ?? '', words) : new Error(words);
    }
  }
}
