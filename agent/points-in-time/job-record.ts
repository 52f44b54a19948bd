import type { Drained } from '../api/generated.js';
import type { Cause } from '../errors.js';
import {
  cause,
  count,
  exactly,
  listOf,
  nullable,
  object,
  oneOf,
  optional,
  text,
  time,
  uuid,
  vm,
  withRule,
} from '../host/record-shape.js';
import { type LivingRecord, Registry } from '../host/registry.js';

export const JOB_RECORD_VERSION = 1;

/** Long work that a caller asks after by its id. */
export interface JobRecord extends LivingRecord {
  version: typeof JOB_RECORD_VERSION;
  kind: 'job';
  jobId: string;
  owner: string;
  /** What it does: `deleteSnapshot`, `drain`. */
  work: string;
  /** What it does that to: the snapshot's id, the host's. */
  subject: string;
  vm: { uuid: string; name: string } | null;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /** Units mean nothing by themselves; equal is done. */
  progress: { current: number; total: number };
  error: Cause | null;
  /** What an ended drain has done; jobs of other kinds have none. */
  result?: Drained;
}

const drained = exactly<Drained>({
  exports: listOf(text),
  backups: listOf(text),
  left: listOf(exactly<Drained['left'][number]>({ kind: oneOf('export', 'backup'), id: text, error: cause })),
});

const jobShape = withRule(
  object<JobRecord>({
    version: oneOf(JOB_RECORD_VERSION),
    kind: oneOf('job'),
    created: time,
    ended: nullable(time),
    jobId: uuid,
    owner: text,
    work: text,
    subject: text,
    vm: nullable(vm),
    state: oneOf('running', 'done', 'failed', 'cancelled'),
    progress: exactly({ current: count, total: count }),
    error: nullable(cause),
    result: optional(drained),
  }),
  ({ state, ended }) =>
    (state === 'running') === (ended === null) ? undefined : `is ${state}, and ended ${ended ?? 'never'}`,
);

export type JobRegistry = Registry<JobRecord>;

export function jobRegistry(state: string): JobRegistry {
  return new Registry<JobRecord>(state, {
    folder: 'jobs',
    kind: 'job',
    version: JOB_RECORD_VERSION,
    idOf: ({ jobId }) => jobId,
    shape: jobShape,
    remains: (record) => record,
  });
}
