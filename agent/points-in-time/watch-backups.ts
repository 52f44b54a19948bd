import { endBackup, runningBackup } from '../domains/backup-job.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { DomainState, isConnectionFailure, PausedReason } from '../libvirt/index.js';
import type { BackupRecord } from './backup-record.js';
import { decideCheckpoint } from './checkpoint-life.js';
import { exclusively, type PointsContext } from './context.js';
import { freeScratch, removeBackupFiles } from './scratch.js';
import { finishBackup } from './stop-backup.js';

/** How often the scratch space and the jobs are looked at. */
const LOOK_MS = 1000;
/** Milliseconds for what is done about a backup. */
const ACT_MS = 60_000;

/** A watch that runs until it is closed. */
export interface Watch {
  close(): void;
}

/**
 * Notices what happens to backups by itself: a job that ends with its VM, or by another's hand, fails its backup, and
 * one whose scratch space runs out is ended before its guest has to wait.
 */
export function watchBackups(context: PointsContext): Watch {
  const { backups, log } = context;
  let looking = false;
  const low = new Set<string>();
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      for (const record of backups.allLive())
        if (record.state === 'running') await lookAt(context, record, low);
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(
    () => void look().catch((error) => log.error({ err: error }, 'the watch over backups failed')),
    LOOK_MS,
  );
  return { close: () => clearInterval(timer) };
}

/**
 * Makes the host agree with the records, at start: a backup that was half-way when the daemon ended is taken back, an
 * end that was half-way is finished. Running ones go on; the watch looks whether their jobs do.
 */
export async function adoptBackups(context: PointsContext): Promise<void> {
  const { backups, log } = context;
  await backups.forgetEnded(Date.now());
  for (const record of backups.allLive()) {
    if (record.state !== 'starting' && record.state !== 'ending') continue;
    try {
      await finishBackup(context, record, 'failed', AbortSignal.timeout(ACT_MS));
      log.warn({ backupId: record.backupId }, 'ended a backup that was half-way when the daemon ended');
    } catch (error) {
      log.error({ backupId: record.backupId, err: error }, 'a backup could not be brought in order');
    }
  }
}

async function lookAt(context: PointsContext, record: BackupRecord, low: Set<string>): Promise<void> {
  const { libvirt, points, log } = context;
  const { backupId, vm, socket } = record;
  const signal = AbortSignal.timeout(ACT_MS);
  const free = await freeScratch(points);
  if (free < points.scratchReserve && !low.has(backupId)) {
    low.add(backupId);
    log.warn({ backupId, free, path: points.scratch }, 'the scratch space of a backup runs low');
  }
  if (free < points.scratchReserve / 4) {
    return failBackup(
      context,
      record,
      'ScratchFull',
      `the scratch space in ${points.scratch} ran out.`,
      signal,
    );
  }
  try {
    const domain = await findDomain(libvirt, vm.uuid, signal);
    if (domain.id === -1)
      return await failBackup(context, record, 'BackupError', 'its VM has stopped.', signal);
    const running = await runningBackup(libvirt, domain, signal);
    if (running?.socket !== socket) {
      return await failBackup(context, record, 'BackupError', 'its job was ended by another hand.', signal);
    }
    await resumePaused(context, record, signal);
  } catch (error) {
    if (error instanceof AgentError && error.name === 'NoSuchVM') {
      return failBackup(context, record, 'BackupError', 'its VM is gone.', signal);
    }
    if (error instanceof AgentError && (error.name === 'LibvirtUnavailable' || error.name === 'Timeout'))
      return;
    if (isConnectionFailure(error)) return;
    throw error;
  }
}

/** QEMU pauses the guest when a write finds no scratch space: the guest comes first, and the backup ends. */
async function resumePaused(
  context: PointsContext,
  record: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  const { libvirt, points } = context;
  const domain = await findDomain(libvirt, record.vm.uuid, signal);
  const { state, reason } = await libvirt.domains.getState(domain, { signal });
  if (state !== DomainState.paused || reason !== PausedReason.ioError) return;
  if ((await freeScratch(points)) >= points.scratchReserve) return; // another disk's fault: not ours to resume
  await failBackup(context, record, 'ScratchFull', `the scratch space in ${points.scratch} ran out.`, signal);
}

/** Ends the job if it still runs, deletes the checkpoint that waited for it, resumes a guest that it had paused. */
async function failBackup(
  context: PointsContext,
  known: BackupRecord,
  name: 'ScratchFull' | 'BackupError',
  message: string,
  signal: AbortSignal,
): Promise<void> {
  const { backups, libvirt, points, log } = context;
  await exclusively(context, known.vm, `the end of the backup ${known.backupId}`, async () => {
    const record = backups.find(known.backupId);
    if (record?.state !== 'running') return;
    await backups.save({ ...record, state: 'failed', error: { name, message } });
    log.error({ backupId: record.backupId, vmId: record.vm.uuid, reason: message }, 'a backup has failed');
    const domain = await findDomain(libvirt, record.vm.uuid, signal).catch(() => null);
    if (domain !== null && domain.id !== -1) {
      await endBackup(libvirt, domain, record.socket, signal);
      const { state, reason } = await libvirt.domains.getState(domain, { signal });
      if (state === DomainState.paused && reason === PausedReason.ioError)
        await libvirt.domains.resume(domain, { signal });
    }
    if (record.checkpoint !== null) {
      await decideCheckpoint(context, record.vm.uuid, record.checkpoint, 'failed', signal);
    }
    await removeBackupFiles(points, record.backupId);
  });
}
