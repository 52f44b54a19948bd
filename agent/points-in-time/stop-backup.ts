import { endBackup } from '../domains/backup-job.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import type { BackupRecord } from './backup-record.js';
import { decideCheckpoint, type EndedCheckpoint, type Outcome } from './checkpoint-life.js';
import { exclusively, type PointsContext } from './context.js';
import { removeBackupFiles } from './scratch.js';

/**
 * Ends a backup job of ours, and no other, decides over its checkpoint and removes its files. Repeated, it tells what
 * the first call decided.
 */
export async function endPointInTime(
  context: PointsContext,
  backupId: string,
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  const known = context.backups.find(backupId);
  if (known === undefined) return null;
  return exclusively(context, known.vm, `stopBackup ${backupId}`, async () => {
    const record = context.backups.find(backupId);
    if (record === undefined || record.ended !== null) return record?.outcome ?? null;
    return finishBackup(context, record, outcome, signal);
  });
}

/** To be called under the VM's lock. Also finishes an end that a crash interrupted. */
export async function finishBackup(
  context: PointsContext,
  record: BackupRecord,
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  const { backups, libvirt, points } = context;
  const { vm, checkpoint, backupId, socket } = record;
  // A backup that failed has no good end any more: what a reader got of it may be cut short.
  const decided = record.decided ?? (record.state === 'failed' ? 'failed' : outcome);
  const ending = await backups.save({ ...record, state: 'ending', decided });
  const domain = await findDomain(libvirt, vm.uuid, signal).catch((error: unknown) => {
    if (error instanceof AgentError && error.name === 'NoSuchVM') return null;
    throw error;
  });
  if (domain !== null && domain.id !== -1) await endBackup(libvirt, domain, socket, signal);
  const kept =
    checkpoint === null ? null : await decideCheckpoint(context, vm.uuid, checkpoint, decided, signal);
  await removeBackupFiles(points, backupId);
  await backups.save({ ...ending, state: 'ended', ended: new Date().toISOString(), outcome: kept });
  return kept;
}
