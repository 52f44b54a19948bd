import { AgentError, type Cause } from '../errors.js';
import { type PointsContext, pointsLock } from './context.js';
import type { JobRecord } from './job-record.js';
import { endJob, ProgressWriter } from './jobs.js';
import { mergeAway } from './merge.js';
import { MergeStopped } from './merge-live.js';
import type { JobHandle, StopReason } from './running-jobs.js';
import { endedNow, findSnapshot } from './snapshot-record.js';

/** The work of a job that deletes a snapshot. Never rejects: how it ended is in the job's record. */
export async function runMergeJob(
  context: PointsContext,
  uuid: string,
  snapshotId: string,
  jobId: string,
  handle: JobHandle,
): Promise<void> {
  const { snapshots, log } = context;
  const about = { vmId: uuid, snapshotId, jobId };
  const progress = new ProgressWriter(context, jobId);
  try {
    const record = findSnapshot(snapshots, uuid, snapshotId);
    if (record === undefined) throw new Error(`the record of ${snapshotId} is gone`);
    await mergeAway(context, record, {
      signal: handle.signal,
      pin: handle.pin,
      progress: (current, total) => progress.report(current, total),
    });
    await progress.written();
    await snapshots.save(endedNow(findSnapshot(snapshots, uuid, snapshotId) ?? record));
    await endJob(context, jobId, 'done');
    log.info(about, 'deleted a snapshot');
  } catch (error) {
    await progress.written();
    await reportEnd(context, error, about, handle).catch((err: unknown) =>
      log.error({ ...about, err }, 'no end was recorded'),
    );
  }
}

async function reportEnd(
  context: PointsContext,
  error: unknown,
  about: { jobId: string },
  { signal }: JobHandle,
): Promise<void> {
  const { log } = context;
  if (signal.aborted && (signal.reason as StopReason) === 'daemon ends') return;
  if (error instanceof MergeStopped) {
    log.info(about, 'the merge of a snapshot was cancelled');
    return endJob(context, about.jobId, 'cancelled');
  }
  log.error({ ...about, err: error }, 'the merge of a snapshot failed');
  const cause: Cause =
    error instanceof AgentError
      ? { name: error.name, message: error.message }
      : {
          name: 'MergeFailed',
          message: `The merge failed: ${error instanceof Error ? error.message : error}`,
        };
  return endJob(context, about.jobId, 'failed', cause);
}

/** Of a drain that its daemon did not live to end: what was half ended is finished without it. */
export const DRAIN_INTERRUPTED: Cause = {
  name: 'DrainFailed',
  message: 'The daemon ended while it drained the host; drain again.',
};

/** Ends the record of a job that nobody is at work on. */
export function endUnattended(context: PointsContext, job: JobRecord): void {
  const record = job.vm === null ? undefined : findSnapshot(context.snapshots, job.vm.uuid, job.subject);
  const done = record?.state === 'ended';
  endJob(context, job.jobId, done ? 'done' : 'failed', done ? null : lost(job)).catch((err: unknown) =>
    context.log.error({ jobId: job.jobId, err }, 'a job could not be ended'),
  );
}

/**
 * Ends the records of jobs whose end could not be written: nobody is at work on them, who would hold their VM's lock.
 * @param olderThanMs so long ago a job must have begun: there is a moment between its record and its work
 */
export function endForgotten(context: PointsContext, olderThanMs: number): void {
  const { jobs, running, locks } = context;
  for (const job of jobs.allLive()) {
    if (running.has(job.jobId) || Date.now() - Date.parse(job.created) < olderThanMs) continue;
    if (job.vm === null || locks.holder(pointsLock(job.vm.uuid)) === undefined) endUnattended(context, job);
  }
}

function lost({ work, subject, vm }: JobRecord): Cause {
  if (work === 'drain') return DRAIN_INTERRUPTED;
  return {
    name: 'MergeFailed',
    message: `The merge of "${subject}" of ${vm?.name} was interrupted and not taken up again; call deleteSnapshot again.`,
  };
}
