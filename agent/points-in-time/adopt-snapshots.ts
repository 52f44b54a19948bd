import { exclusively, type PointsContext, pointsLock } from './context.js';
import type { SnapshotDeletion } from './delete-snapshot.js';
import { finishDeletions } from './finish-deletions.js';
import { KEEP_JOBS_MS } from './jobs.js';
import { endForgotten } from './merge-job.js';
import { rollBackInterrupted } from './roll-back-snapshot.js';
import type { SnapshotRecord } from './snapshot-record.js';

const SWEEP_MS = 60_000;
/** Between two attempts to take back what is half-way. */
const AGAIN_MS = 10_000;

/**
 * Makes snapshots agree with their records, at start: merges under way are gone on with, snapshots that were half-way
 * are taken back, and checkpoints that are half gone deleted. Returns at once; each VM's lock is held until its own is done,
 * so that a verb that comes too early is told who is at work.
 */
export function adoptSnapshots(context: PointsContext, deletion: SnapshotDeletion): void {
  deletion.resume();
  takeBackAbandoned(context);
  finishDeletions(context);
}

/**
 * Goes on taking back snapshots that were half-way and could not be (libvirt was away, QEMU hung), ends jobs whose end could
 * not be written, and forgets ended snapshots and jobs in time; until it is closed.
 */
export function watchSnapshots(context: PointsContext): { close(): void } {
  const { snapshots, jobs, log } = context;
  const sweep = async () => {
    await snapshots.forgetEnded(Date.now());
    await jobs.forgetEnded(Date.now(), KEEP_JOBS_MS);
  };
  const timers = [
    setInterval(() => {
      takeBackAbandoned(context);
      finishDeletions(context);
      endForgotten(context, AGAIN_MS);
    }, AGAIN_MS),
    setInterval(
      () =>
        void sweep().catch((err: unknown) => log.error({ err }, 'ended snapshots could not be forgotten')),
      SWEEP_MS,
    ),
  ];
  return {
    close() {
      for (const timer of timers) clearInterval(timer);
    },
  };
}

/** Those in `making` that nobody is at work on: whoever is holds the VM's lock. */
function takeBackAbandoned(context: PointsContext): void {
  const { snapshots, libvirt, locks, log } = context;
  if (!libvirt.status.connected) return;
  for (const { state, snapshotId, vm } of snapshots.allLive()) {
    if (state !== 'making' || locks.holder(pointsLock(vm.uuid)) !== undefined) continue;
    takeBack(context, vm, snapshotId).catch((err: unknown) =>
      log.error(
        { snapshotId, vmId: vm.uuid, err },
        'a snapshot that is half-way could not be taken back yet',
      ),
    );
  }
}

async function takeBack(context: PointsContext, vm: SnapshotRecord['vm'], snapshotId: string): Promise<void> {
  await exclusively(context, vm, `the recovery of createSnapshot "${snapshotId}"`, async () => {
    const record = context.snapshots
      .allLive()
      .find((one) => one.vm.uuid === vm.uuid && one.snapshotId === snapshotId);
    if (record?.state !== 'making') return;
    await rollBackInterrupted(context, record, AbortSignal.timeout(context.points.stateMs.halfWay));
  });
}
