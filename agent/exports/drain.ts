import type { Drained, DrainParams } from '../api/generated.js';
import type { Cause } from '../errors.js';
import { CallsInFlight } from '../host/once.js';
import { within } from '../host/process-wait.js';
import { endJob, newJob, ProgressWriter } from '../points-in-time/jobs.js';
import { DRAIN_INTERRUPTED, endUnattended } from '../points-in-time/merge-job.js';
import type { JobHandle, StopReason } from '../points-in-time/running-jobs.js';
import type { ExportCall, ExportsContext } from './context.js';
import { endAll } from './end-all.js';

/** Of what is left so many are named in the error; all are in the result. */
const NAMED = 5;

/** Ends all exports and backups of the host, as one job at a time: a call while one runs finds that. */
export class HostDrain {
  readonly #context: ExportsContext;
  readonly #inFlight = new CallsInFlight<{ jobId: string }>();

  constructor(context: ExportsContext) {
    this.#context = context;
  }

  async start({ timeoutSeconds = 600 }: DrainParams, { owner }: ExportCall): Promise<{ jobId: string }> {
    const begin = () => this.#joinOrBegin(timeoutSeconds * 1000, owner);
    return this.#inFlight.run('drain', '', begin, () => new Error('two equal requests differ'));
  }

  /** At the daemon's start: a drain does not outlive its daemon. docs/decisions/drain.md */
  endInterrupted(): void {
    for (const job of this.#context.jobs.allLive()) {
      if (job.work === 'drain') endUnattended(this.#context, job);
    }
  }

  async #joinOrBegin(timeoutMs: number, owner: string): Promise<{ jobId: string }> {
    const { jobs, running, settings, drains } = this.#context;
    if (drains.jobId !== null) return { jobId: drains.jobId };
    const job = newJob({ owner, work: 'drain', subject: settings.hostId, vm: null });
    await jobs.save(job);
    // From here on what begins is refused, before it is looked what there is.
    drains.close(job.jobId);
    void running.run(job.jobId, (handle) => drain(this.#context, job.jobId, timeoutMs, handle));
    return { jobId: job.jobId };
  }
}

/** The work of a job that drains. Never rejects: how it ended is in the job's record. */
async function drain(
  context: ExportsContext,
  jobId: string,
  timeoutMs: number,
  { signal }: JobHandle,
): Promise<void> {
  const { log, drains } = context;
  const progress = new ProgressWriter(context, jobId);
  log.warn({ jobId }, 'draining the host: all exports and backups are ended');
  try {
    const report = (current: number, total: number) => progress.report(current, total);
    // The gate opens before the end is on record: who sees that may begin something at once.
    const result = await within('the drain', { timeoutMs, signal }, (over) =>
      endAll(context, over, report),
    ).finally(() => drains.open());
    await progress.written();
    const [state, error] = endOf(result, timeoutMs, signal);
    await endJob(context, jobId, state, error, result);
    log[state === 'failed' ? 'error' : 'info'](
      { jobId, state, ended: result.exports.length + result.backups.length, left: result.left.length },
      'the drain has ended',
    );
  } catch (err) {
    // The watch ends a job whose end could not be written.
    log.error({ jobId, err }, 'the end of a drain could not be recorded');
  }
}

function endOf(
  { exports, backups, left }: Drained,
  timeoutMs: number,
  signal: AbortSignal,
): ['done' | 'failed' | 'cancelled', Cause | null] {
  if (left.length === 0) return ['done', null];
  if (signal.aborted) {
    return (signal.reason as StopReason) === 'cancelled'
      ? ['cancelled', null]
      : ['failed', DRAIN_INTERRUPTED];
  }
  const all = exports.length + backups.length + left.length;
  const named = left.slice(0, NAMED).map(({ kind, id, error }) => `${kind} "${id}": ${error.message}`);
  const more = left.length > NAMED ? ` And ${left.length - NAMED} more: see the job's result.` : '';
  const message =
    `${left.length} of ${all} exports and backups were not ended within ${timeoutMs / 1000} s; remove what holds them and ` +
    `drain again. ${named.join(' ')}${more}`;
  return ['failed', { name: 'DrainFailed', message }];
}
