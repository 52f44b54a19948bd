import { cancelJob as cancel, findJob, jobRow } from '../points-in-time/jobs.js';
import type { Services } from './services.js';
import type { Verb } from './verb.js';

export const getJob =
  ({ exports: { jobs } }: Services): Verb<'getJob'> =>
  async ({ jobId }) =>
    jobRow(findJob(jobs, jobId));

export const listJobs =
  ({ exports: { jobs }, access }: Services): Verb<'listJobs'> =>
  async ({ vmId }, { identity, signal }) => {
    const sees = await access.sight(identity, signal);
    return {
      jobs: jobs
        .all()
        .filter(({ vm }) => vmId === undefined || vm?.uuid === vmId || vm?.name === vmId)
        .filter(({ owner, vm }) => sees({ owner, vmId: vm?.uuid ?? null }))
        .sort((a, b) => (a.created < b.created ? -1 : 1))
        .map(jobRow),
    };
  };

export const cancelJob =
  ({ exports }: Services): Verb<'cancelJob'> =>
  async ({ jobId }, { signal }) =>
    jobRow(await cancel(exports, jobId, signal));
