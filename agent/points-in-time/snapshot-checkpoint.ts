import { checkpointXml } from '../domains/backup-job.js';
import { createCheckpoint } from '../domains/checkpoints.js';
import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { dropCheckpoint, planCheckpoint, rememberCheckpoint } from './checkpoint-life.js';
import type { CheckpointDiskRecord } from './checkpoint-record.js';
import type { PointsContext } from './context.js';
import { diskNow, isTrackable } from './disk-now.js';
import type { SnapshotRecord } from './snapshot-record.js';

/**
 * Makes the checkpoint that goes with a snapshot, just before it: what changes from the snapshot on is then among what
 * changes from the checkpoint on, also where the guest writes in between. It covers the disks of the snapshot that can
 * have one, and is pending until `confirmCheckpoint`.
 * @returns its name; null where no disk can have one
 */
export async function checkpointBefore(
  context: PointsContext,
  state: DomainState,
  { snapshotId }: SnapshotRecord,
  disks: readonly DomainDisk[],
  name: string,
  signal: AbortSignal,
): Promise<string | null> {
  const { libvirt, points } = context;
  const { domain, config, running } = state;
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
  const madeBy = { kind: 'snapshot', id: snapshotId } as const;
  const record = await planCheckpoint(context, state, name, madeBy, covered, signal);
  const targets = covered.map(({ target }) => target);
  await createCheckpoint(libvirt, domain, checkpointXml(name, targets, config), signal);
  await rememberCheckpoint(context, state, record, signal);
  return name;
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
    if (state !== 'good') await dropCheckpoint(context, record, signal);
  }
}
