/** How a call went, as a line of the log; the lines of what changes something are the audit's. */
import { verbSchemas } from '../api/schemas.js';
import { AgentError, InvalidParams } from '../errors.js';
import type { Log } from '../log.js';
import type { VerbName } from '../verbs/verb.js';
import { errorAnswer } from './error-answer.js';

const SUBJECTS = [
  'vmId',
  'disk',
  'exportId',
  'backupId',
  'snapshotId',
  'checkpoint',
  'jobId',
  'path',
  'target',
  'serial',
] as const;

export class OutcomeLog {
  readonly #log: Log;
  readonly #reference: string;
  readonly #started = performance.now();
  #about: object;

  /** @param log whose lines bear the verb, the reference and the caller */
  constructor(log: Log, name: VerbName, reference: string) {
    const { changes } = verbSchemas[name];
    // The audit's lines are written whatever level the log has.
    this.#log = changes ? log.child({}, { level: 'info' }) : log;
    this.#about = changes ? { audit: true } : {};
    this.#reference = reference;
  }

  /** From now on lines say what the call is about. */
  isAbout(params: Record<string, unknown>): void {
    // A drive by its serial: drives of one backup bear the name of a disk there, and not that of their export.
    const { serial } = (params.drive ?? {}) as { serial?: unknown };
    const named: Record<string, unknown> = { ...params, serial };
    const subject = SUBJECTS.flatMap((key) => (typeof named[key] === 'string' ? [[key, named[key]]] : []));
    this.#about = { ...this.#about, ...Object.fromEntries(subject) };
  }

  done(text: string): void {
    this.#log.info({ ...this.#took(), ...this.#about, outcome: 'done' }, text);
  }

  failed(error: unknown, text: string): void {
    const { data, code } = errorAnswer(error, this.#reference);
    const outcome = { ...this.#took(), ...this.#about, outcome: 'failed', error: data?.name, code };
    if (error instanceof AgentError || error instanceof InvalidParams) {
      const cause = error.cause instanceof Error ? error.cause.message : undefined;
      this.#log.info({ ...outcome, reason: error.message, cause }, text);
    } else this.#log.error({ ...outcome, err: error }, text);
  }

  #took(): { ms: number } {
    return { ms: Math.round(performance.now() - this.#started) };
  }
}
