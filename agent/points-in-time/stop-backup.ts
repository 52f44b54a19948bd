import { endBackup } from '../domains/backup-job.js';
import { libvirtFault } from '../domains/faults.js';
import { findDomainIfAny } from '../domains/lookup.js';
import { type Domain, DomainState, isOperationInvalid, PausedReason } from '../libvirt/index.js';
import { type BackupRecord, calledAs, decidedBy, ofBackup } from './backup-record.js';
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
  return exclusively(context, known.vm, calledAs(known, 'stopBackup', 'teardownBackupDisk'), async () => {
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
  // One that never came to run, or that one export alone is made of, is nothing that callers know of.
  if (record.state !== 'starting' && record.exportId === null) {
    context.events.emit({ kind: 'backupEnded', ...ofBackup(record), outcome: decided, checkpoint: kept });
  }
  return kept;
}

/**
 * Takes back a backup that did not come to run, and forgets it: nobody has had an answer, and a retry begins it anew. To be
 * called under the VM's lock. What cannot be taken back now stays on record as `starting`.
 */
export async function takeBackBackup(
  context: PointsContext,
  record: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  await releaseBackup(context, record, 'failed', signal);
  await context.backups.remove(record.backupId);
}

/**
 * Lets go of all that a backup holds: its job, its files, its checkpoint. May be repeated. To be called under the VM's
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
  await removeBackupFiles(context.points, backupId);
  if (checkpoint === null) return null;
  return decideCheckpoint(context, vm.uuid, checkpoint, outcome, decidedBy(record), signal);
}

/** Ends the job, and lets a guest go on that QEMU had paused for want of scratch space: libvirt leaves it paused. */
async function endJob(
  { libvirt, points, log }: PointsContext,
  { vm, socket, error }: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  const domain = await findDomainIfAny(libvirt, vm.uuid, signal);
  if (domain === null || domain.id === -1) return;
  const free = (await freeScratch(points)) ?? 0;
  const low = error?.name === 'ScratchFull' || free < points.scratchReserve;
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
