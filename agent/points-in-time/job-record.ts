import type { Cause } from '../errors.js';
import { type LivingRecord, Registry } from '../host/registry.js';

export const JOB_RECORD_VERSION = 1;

/** Long work that a caller asks after by its id. */
export interface JobRecord extends LivingRecord {
  version: typeof JOB_RECORD_VERSION;
  kind: 'job';
  jobId: string;
  owner: string;
  /** What it does: `deleteSnapshot`. */
  work: string;
  /** What it does that to: the snapshot's id. */
  subject: string;
  vm: { uuid: string; name: string } | null;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /** Units mean nothing by themselves; equal is done. */
  progress: { current: number; total: number };
  error: Cause | null;
}

export type JobRegistry = Registry<JobRecord>;

export function jobRegistry(state: string): JobRegistry {
  return new Registry<JobRecord>(
    state,
    { folder: 'jobs', kind: 'job', version: JOB_RECORD_VERSION },
    ({ jobId }) => jobId,
  );
}
