import { randomUUID } from 'node:crypto';
import type { Drained, JobRow } from '../api/generated.js';
import { AgentError, type Cause } from '../errors.js';
import type { PointsContext } from './context.js';
import { JOB_RECORD_VERSION, type JobRecord, type JobRegistry } from './job-record.js';

/** Milliseconds that a finished job is kept. */
export const KEEP_JOBS_MS = 7 * 24 * 60 * 60 * 1000;

const PROGRESS_MS = 1000;

/** The record of a job that is about to begin. */
export function newJob(of: Pick<JobRecord, 'owner' | 'work' | 'subject' | 'vm'>): JobRecord {
  return {
    version: JOB_RECORD_VERSION,
    kind: 'job',
    jobId: randomUUID(),
    created: new Date().toISOString(),
    ended: null,
    state: 'running',
    progress: { current: 0, total: 1 },
    error: null,
    ...of,
  };
}

/** Writes down how a job ended. */
export async function endJob(
  { jobs, events }: Pick<PointsContext, 'jobs' | 'events'>,
  jobId: string,
  state: 'done' | 'failed' | 'cancelled',
  error: Cause | null = null,
  result?: Drained,
): Promise<void> {
  const job = jobs.find(jobId);
  if (job === undefined || job.ended !== null) return;
  const { total, current } = job.progress;
  await jobs.save({
    ...job,
    state,
    error,
    ...(result !== undefined && { result }),
    progress: { total, current: state === 'done' ? total : current },
    ended: new Date().toISOString(),
  });
  events.emit({ kind: 'jobEnded', ...ofJob(job), state, error });
}

/** What an event tells of the job that it is about. */
function ofJob({ jobId, owner, work, subject, vm }: JobRecord) {
  return { jobId, owner, verb: work, subject, vmId: vm?.uuid ?? null };
}

/** Writes down and tells how far a job is, at most once a second, one write after another. */
export class ProgressWriter {
  readonly #context: Pick<PointsContext, 'jobs' | 'events' | 'log'>;
  readonly #jobId: string;
  #last = 0;
  #over = false;
  #writing: Promise<void> | undefined;

  constructor(context: Pick<PointsContext, 'jobs' | 'events' | 'log'>, jobId: string) {
    this.#context = context;
    this.#jobId = jobId;
  }

  report(current: number, total: number): void {
    const { jobs, events, log } = this.#context;
    const job = jobs.find(this.#jobId);
    if (
      this.#over ||
      job === undefined ||
      this.#writing !== undefined ||
      Date.now() - this.#last < PROGRESS_MS
    )
      return;
    this.#last = Date.now();
    this.#writing = jobs
      .save({ ...job, progress: { current, total } })
      .then(
        () => events.emit({ kind: 'jobProgress', ...ofJob(job), progress: { current, total } }),
        (err: unknown) => log.warn({ jobId: this.#jobId, err }, 'the progress of a job could not be written'),
      )
      .finally(() => {
        this.#writing = undefined;
      });
  }

  /**
   * To be waited for before the job's end is written. Nothing is reported from then on: work that is still on its way would
   * write the job as running over its end.
   */
  async written(): Promise<void> {
    this.#over = true;
    await this.#writing;
  }
}

/** @throws AgentError `NoSuchJob` */
export function findJob(jobs: JobRegistry, jobId: string): JobRecord {
  const job = jobs.find(jobId);
  if (job !== undefined) return job;
  throw new AgentError(
    'NoSuchJob',
    `There is no job "${jobId}"; finished ones are kept for 7 days, listJobs shows those there are.`,
  );
}

/**
 * Ends a job where it is, and returns when it has ended; one that has is success.
 * @throws AgentError `NoSuchJob`, `BackupBusy` where its work cannot be cut short, `Timeout`
 */
export async function cancelJob(
  { jobs, running }: PointsContext,
  jobId: string,
  signal: AbortSignal,
): Promise<JobRecord> {
  findJob(jobs, jobId);
  await running.cancel(jobId, signal);
  return findJob(jobs, jobId);
}

/** What lists show of a job. */
export function jobRow(job: JobRecord): JobRow {
  const { jobId, work, subject, owner, vm, state, progress, result, error, created, ended } = job;
  return {
    jobId,
    kind: work,
    subject,
    owner,
    vmId: vm?.uuid ?? null,
    state,
    progress,
    ...(result !== undefined && { result }),
    ...(error !== null && { error }),
    created,
    ended,
  };
}
