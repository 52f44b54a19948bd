import type { PointsContext } from './context.js';
import { exclusively } from './context.js';
import type { SnapshotDeletion } from './delete-snapshot.js';
import { KEEP_JOBS_MS } from './jobs.js';
import { rollBackInterrupted } from './roll-back-snapshot.js';

/** Milliseconds for taking one snapshot back, libvirt's own start included. */
const ROLL_BACK_MS = 300_000;
const SWEEP_MS = 60_000;

/**
 * Makes snapshots agree with their records, at start: merges under way are gone on with, snapshots that were half-way
 * are taken back. Returns at once; each VM's lock is held until its own is done, so that a verb that comes too early is
 * told who is at work.
 */
export function adoptSnapshots(context: PointsContext, deletion: SnapshotDeletion): void {
  const { snapshots, libvirt, log } = context;
  deletion.resume();
  for (const record of snapshots.allLive()) {
    if (record.state !== 'making') continue;
    const { snapshotId, vm } = record;
    void exclusively(context, vm, `the recovery of createSnapshot "${snapshotId}"`, async () => {
      const signal = AbortSignal.timeout(ROLL_BACK_MS);
      await libvirt.ready({ timeoutMs: ROLL_BACK_MS });
      await rollBackInterrupted(context, record, signal);
    }).catch((err: unknown) =>
      log.error({ snapshotId, vmId: vm.uuid, err }, 'a snapshot that was half-way could not be taken back'),
    );
  }
}

/** Forgets ended snapshots and jobs in time, until it is closed. */
export function sweepSnapshots({ snapshots, jobs, log }: PointsContext): { close(): void } {
  const sweep = async () => {
    await snapshots.forgetEnded(Date.now());
    await jobs.forgetEnded(Date.now(), KEEP_JOBS_MS);
  };
  const timer = setInterval(
    () => void sweep().catch((err: unknown) => log.error({ err }, 'ended snapshots could not be forgotten')),
    SWEEP_MS,
  );
  return { close: () => clearInterval(timer) };
}
