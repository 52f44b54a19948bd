import { endBackup } from '../domains/backup-job.js';
import { libvirtFault } from '../domains/faults.js';
import { findDomainIfAny } from '../domains/lookup.js';
import { type Domain, DomainState, isOperationInvalid, PausedReason } from '../libvirt/index.js';
import type { BackupRecord } from './backup-record.js';
import { decideCheckpoint, type EndedCheckpoint, type Outcome } from './checkpoint-life.js';
import { exclusively, type PointsContext } from './context.js';
import { freeScratch, removeBackupFiles } from './scratch.js';

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
  if (known === undefined || known.ended !== null) return known?.outcome ?? null;
  return exclusively(context, known.vm, `stopBackup ${backupId}`, async () => {
    const record = context.backups.find(backupId);
    if (record === undefined || record.ended !== null) return record?.outcome ?? null;
    return finishBackup(context, record, outcome, signal);
  });
}

/** To be called under the VM's lock. Also finishes an end that a crash or a fault of libvirt interrupted. */
export async function finishBackup(
  context: PointsContext,
  record: BackupRecord,
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  // A backup that failed has no good end any more: what a reader got of it may be cut short.
  const decided = record.decided ?? (record.state === 'failed' ? 'failed' : outcome);
  const ending = await context.backups.save({ ...record, state: 'ending', decided });
  const kept = await releaseBackup(context, ending, decided, signal);
  await context.backups.save({ ...ending, state: 'ended', ended: new Date().toISOString(), outcome: kept });
  return kept;
}

/**
 * Lets go of all that a backup holds: its job, its checkpoint, its files. May be repeated. To be called under the VM's
 * lock.
 */
export async function releaseBackup(
  context: PointsContext,
  record: BackupRecord,
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  const { vm, checkpoint, backupId } = record;
  await endJob(context, record, signal);
  const kept =
    checkpoint === null ? null : await decideCheckpoint(context, vm.uuid, checkpoint, outcome, signal);
  await removeBackupFiles(context.points, backupId);
  return kept;
}

/** Ends the job, and lets a guest go on that QEMU had paused for want of scratch space: libvirt leaves it paused. */
async function endJob(
  { libvirt, points, log }: PointsContext,
  { vm, socket, error }: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  const domain = await findDomainIfAny(libvirt, vm.uuid, signal);
  if (domain === null || domain.id === -1) return;
  const low = error?.name === 'ScratchFull' || (await freeScratch(points)) < points.scratchReserve;
  await endBackup(libvirt, domain, socket, signal);
  if (low) await resumeGuest({ libvirt, log }, domain, signal);
}

/** Resumes a guest that an I/O error has paused; one that another hand has paused stays so. */
async function resumeGuest(
  { libvirt, log }: Pick<PointsContext, 'libvirt' | 'log'>,
  domain: Domain,
  signal: AbortSignal,
): Promise<void> {
  try {
    const { state, reason } = await libvirt.domains.getState(domain, { signal });
    if (state !== DomainState.paused || reason !== PausedReason.ioError) return;
    await libvirt.domains.resume(domain, { signal });
    log.warn({ vmId: domain.uuid }, 'resumed a guest that was paused for want of scratch space');
  } catch (cause) {
    if (isOperationInvalid(cause)) return; // it runs again, or has stopped
    throw libvirtFault(cause, 'BackupError', `resume ${domain.name}`, { vmId: domain.uuid });
  }
}
