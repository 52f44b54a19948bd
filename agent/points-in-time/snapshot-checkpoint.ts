import { checkpointXml } from '../domains/backup-job.js';
import { createCheckpoint } from '../domains/checkpoints.js';
import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { dropNowOrLater, planCheckpoint } from './checkpoint-life.js';
import type { CheckpointDiskRecord, CheckpointRecord } from './checkpoint-record.js';
import type { PointsContext } from './context.js';
import { diskNow, isTrackable } from './disk-now.js';
import type { SnapshotRecord } from './snapshot-record.js';

/**
 * Plans the checkpoint that goes with a snapshot, and writes it down. It covers the disks of the snapshot that can have
 * one, and is pending until `confirmCheckpoint`.
 * @returns null where no disk can have one
 */
export async function planCheckpointBefore(
  context: PointsContext,
  state: DomainState,
  { snapshotId }: SnapshotRecord,
  disks: readonly DomainDisk[],
  name: string,
  signal: AbortSignal,
): Promise<CheckpointRecord | null> {
  const { libvirt, points } = context;
  const { domain, running } = state;
  if (!running) {
    throw new AgentError(
      'SnapshotFailed',
      `${domain.name} is off, and libvirt makes no snapshot of a VM that is off and has checkpoints; start it first, or leave checkpoint out.`,
      { vmId: domain.uuid },
    );
  }
  const covered: CheckpointDiskRecord[] = [];
  for (const disk of disks) {
    if (!(await isTrackable(disk, points.allowedRoots))) continue;
    covered.push({
      target: disk.target,
      ...(await diskNow(libvirt, state, disk, points.allowedRoots, signal)),
    });
  }
  if (covered.length === 0) return null;
  return planCheckpoint(context, state, name, { kind: 'snapshot', id: snapshotId }, covered, signal);
}

/**
 * Makes it, just before the snapshot: what changes from the snapshot on is then among what changes from the checkpoint
 * on, also where the guest writes in between. To be remembered (`rememberCheckpoint`) once the guest is thawed.
 */
export async function makeCheckpointBefore(
  { libvirt }: PointsContext,
  { domain, config }: DomainState,
  { checkpoint, disks }: CheckpointRecord,
  signal: AbortSignal,
): Promise<void> {
  const targets = disks.map(({ target }) => target);
  await createCheckpoint(libvirt, domain, checkpointXml(checkpoint, targets, config), signal);
}

/** Deletes the checkpoint that was made with a snapshot which is taken back; one that was confirmed stays. */
export async function dropCheckpointOf(
  context: PointsContext,
  { snapshotId, vm }: SnapshotRecord,
  signal: AbortSignal,
): Promise<void> {
  for (const record of context.checkpoints.allLive()) {
    const { madeBy, state } = record;
    if (record.vm.uuid !== vm.uuid || madeBy.kind !== 'snapshot' || madeBy.id !== snapshotId) continue;
    if (state !== 'good') await dropNowOrLater(context, record, signal);
  }
}
