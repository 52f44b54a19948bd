/** A job's record: its end is the last that is written of it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import t from 'tap';
import { jobRegistry } from '../../agent/points-in-time/job-record.js';
import { endJob, newJob, ProgressWriter } from '../../agent/points-in-time/jobs.js';

const state = mkdtempSync('/tmp/vmd-jobs-');
t.teardown(() => rmSync(state, { recursive: true, force: true }));

t.test('once it has been waited for, nothing is reported any more', async (t) => {
  const jobs = jobRegistry(state);
  await jobs.load();
  const context = { jobs, events: { emit() {} }, log: pino({ level: 'silent' }) };
  const job = newJob({ owner: 'unix', work: 'drain', subject: 'host', vm: null });
  await jobs.save(job);
  const progress = new ProgressWriter(context, job.jobId);
  progress.report(1, 3);
  await progress.written();
  t.strictSame(jobs.find(job.jobId)?.progress, { current: 1, total: 3 });
  // So long after the last one that it would be written.
  await sleep(1100);
  // Two writes at once end in whatever order: none of it may be begun any more.
  progress.report(2, 3);
  await sleep(200);
  t.strictSame(jobs.find(job.jobId)?.progress, { current: 1, total: 3 });
  const result = { exports: ['a'], backups: [], left: [] };
  await endJob(context, job.jobId, 'done', null, result);
  const last = jobs.find(job.jobId);
  t.match(last, { state: 'done', result, progress: { current: 3, total: 3 } });
  t.ok(last?.ended);
});
