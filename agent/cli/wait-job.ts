/** `--wait`: stays with a job until it has ended. */
import { setTimeout as sleep } from 'node:timers/promises';
import { membersOf } from '../api/describe.js';
import type { GetJobResult, Verbs } from '../api/generated.js';
import { resolve } from '../api/resolve.js';
import type { VerbSchema } from '../api/schema.js';
import { JobFailed } from './failure.js';

const POLL_MS = 500;

/** Whether the verb's answer names a job, so that there is something to wait for. */
export function answersJob({ result }: VerbSchema): boolean {
  return Object.hasOwn(membersOf(resolve(result)), 'jobId');
}

/**
 * Asks for the job until it has ended. It has its own deadlines, and goes on without us.
 * @param progress is told how far it is, each time
 * @returns its row @throws JobFailed where it has failed or was cancelled
 */
export async function waitForJob(
  jobId: string,
  ask: (verb: 'getJob', params: Verbs['getJob']['params']) => Promise<unknown>,
  progress: (job: GetJobResult) => void,
): Promise<GetJobResult> {
  for (;;) {
    const job = (await ask('getJob', { jobId })) as GetJobResult;
    progress(job);
    if (job.state === 'done') return job;
    if (job.state !== 'running') {
      const why = job.error === undefined ? '' : ` ${job.error.name}: ${job.error.message}`;
      throw new JobFailed(`The job ${jobId} is ${job.state}.${why}`);
    }
    await sleep(POLL_MS);
  }
}
