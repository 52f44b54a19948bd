import { setTimeout as sleep } from 'node:timers/promises';
import { runningBackup } from '../domains/backup-job.js';
import { findDomainIfAny } from '../domains/lookup.js';
import { AgentError, type Cause } from '../errors.js';
import { type Domain, DomainState, isConnectionFailure, PausedReason } from '../libvirt/index.js';
import { takeBackInterrupted } from './adopt-backups.js';
import { type BackupRecord, nameOf, ofBackup } from './backup-record.js';
import { exclusively, type PointsContext, pointsLock } from './context.js';
import { freeScratch } from './scratch.js';
import { setScratchAlarms } from './scratch-alarm.js';
import { finishBackup, releaseBackup } from './stop-backup.js';

/** How often the scratch space and the jobs are looked at, besides when libvirt tells of something. */
const LOOK_MS = 1000;
/** How often ended ids are swept. */
const SWEEP_MS = 60_000;

/** Milliseconds between the end of a job and libvirt's word that its VM is off. */
const STOPPING_MS = 500;

/** What the watch remembers of a backup between two looks. */
interface Seen {
  /** Somebody is looking; `again`: something has happened since. */
  busy: boolean;
  again: boolean;
  /** The scratch space was low, and that has been said. */
  low: boolean;
  /** Where the alarms were set: at that many free bytes. */
  alarmAt: number | null;
  /** It has failed and nothing is left of it. */
  released: boolean;
}

/**
 * Notices what happens to backups by itself: a job that ends with its VM, or by another's hand, fails its backup; one
 * whose scratch space runs out is ended before its guest has to wait, or else the guest is resumed at once. What could
 * not be ended because libvirt was away is ended when it is back.
 */
export function watchBackups(context: PointsContext): { close(): void } {
  const { backups, checkpoints, libvirt, log } = context;
  const seen = new Map<string, Seen>();
  const report = (error: unknown) => log.error({ err: error }, 'the watch over backups failed');
  const look = async (backupId: string) => {
    const eye = seen.get(backupId) ?? newlySeen();
    seen.set(backupId, eye);
    eye.again = true;
    if (eye.busy) return;
    eye.busy = true;
    try {
      while (eye.again) {
        eye.again = false;
        const record = backups.find(backupId);
        if (record !== undefined && record.ended === null) await lookAt(context, record, eye);
      }
    } catch (error) {
      if (!isPassing(error)) log.error({ backupId, err: error }, 'a backup could not be looked after');
    } finally {
      eye.busy = false;
    }
  };
  const lookAtAll = (uuid?: string) => {
    const live = backups.allLive();
    // The same id may come again, and is then another backup.
    for (const [backupId, eye] of seen) {
      if (!eye.busy && !live.some((record) => record.backupId === backupId)) seen.delete(backupId);
    }
    for (const { backupId, vm } of live) {
      if (uuid === undefined || vm.uuid === uuid) void look(backupId);
    }
  };
  const sweep = async () => {
    await backups.forgetEnded(Date.now());
    await checkpoints.forgetEnded(Date.now());
  };
  const timers = [
    setInterval(() => lookAtAll(), LOOK_MS),
    setInterval(() => void sweep().catch(report), SWEEP_MS),
  ];
  const subscriptions = [
    libvirt.subscribe('lifecycle', ({ domain }) => lookAtAll(domain.uuid)),
    libvirt.subscribe('ioError', ({ domain }) => lookAtAll(domain.uuid)),
    libvirt.subscribe('blockThreshold', ({ domain }) => {
      for (const { backupId, vm } of backups.allLive()) {
        const eye = seen.get(backupId);
        if (vm.uuid !== domain.uuid || eye === undefined) continue;
        eye.alarmAt = null; // an alarm rings once
        void look(backupId);
      }
    }),
  ];
  return {
    close() {
      for (const timer of timers) clearInterval(timer);
      for (const subscription of subscriptions) subscription.close();
    },
  };
}

function newlySeen(): Seen {
  return { busy: false, again: false, low: false, alarmAt: null, released: false };
}

/** Whether the next look may succeed where this one did not. */
function isPassing(error: unknown): boolean {
  if (isConnectionFailure(error)) return true;
  return (
    error instanceof AgentError &&
    ['LibvirtUnavailable', 'Timeout', 'BackupBusy', 'MigrationInProgress'].includes(error.name)
  );
}

async function lookAt(context: PointsContext, record: BackupRecord, eye: Seen): Promise<void> {
  switch (record.state) {
    case 'running':
      return lookAtRunning(context, record, eye);
    case 'failed':
      if (eye.released) return;
      await failBackup(context, record, record.error ?? fault('it has failed.'));
      eye.released = true;
      return;
    case 'starting':
    case 'ending':
      return endUnfinished(context, record);
    case 'ended':
      return;
  }
}

/** A start that could not be taken back, or an end that was interrupted. Whoever is still at it holds the lock. */
async function endUnfinished(context: PointsContext, known: BackupRecord): Promise<void> {
  const { backupId, vm } = known;
  const { backups, locks, log } = context;
  if (locks.holder(pointsLock(vm.uuid)) !== undefined) return;
  await exclusively(context, vm, `the end of ${nameOf(known)}`, async () => {
    const record = backups.find(backupId);
    if (record?.state !== 'starting' && record?.state !== 'ending') return;
    const signal = AbortSignal.timeout(context.points.stateMs.halfWay);
    if (record.state === 'starting') await takeBackInterrupted(context, record, signal);
    else await finishBackup(context, record, 'failed', signal);
    log.warn({ backupId, vmId: vm.uuid }, 'ended a backup that was half-way');
  });
}

async function lookAtRunning(context: PointsContext, record: BackupRecord, eye: Seen): Promise<void> {
  const { libvirt, points } = context;
  const signal = AbortSignal.timeout(context.points.stateMs.halfWay);
  const domain = await findDomainIfAny(libvirt, record.vm.uuid, signal);
  if (domain === null || domain.id === -1) return failBackup(context, record, stopped(domain));
  const free = (await freeScratch(points)) ?? Number.POSITIVE_INFINITY; // QEMU has the files open, wherever they are
  sayWhetherLow(context, record, free, eye);
  if (free < points.scratchReserve / 4 || (eye.low && (await isPausedByFault(context, domain, signal)))) {
    const message = `the scratch space in ${points.scratch} ran out (${free} bytes were left).`;
    return failBackup(context, record, { name: 'ScratchFull', message });
  }
  const job = await runningBackup(libvirt, domain, signal);
  if (job?.socket !== record.socket) {
    return failBackup(context, record, await whyEnded(context, record, signal));
  }
  if (free === Number.POSITIVE_INFINITY) return;
  if (eye.alarmAt === null || Math.abs(eye.alarmAt - free) > points.scratchReserve / 4) {
    eye.alarmAt = free;
    await setScratchAlarms(context, domain, record, job, free, signal);
  }
}

function fault(message: string): Cause {
  return { name: 'BackupError', message };
}

function stopped(domain: Domain | null): Cause {
  return fault(domain === null ? 'its VM is gone.' : 'its VM has stopped.');
}

/** A job ends a moment before libvirt says that its VM is off: only what is still so after that is another's deed. */
async function whyEnded(
  { libvirt }: PointsContext,
  { vm }: BackupRecord,
  signal: AbortSignal,
): Promise<Cause> {
  await sleep(STOPPING_MS, undefined, { ref: false });
  const domain = await findDomainIfAny(libvirt, vm.uuid, signal);
  if (domain === null || domain.id === -1) return stopped(domain);
  return fault('its job has ended: another program did that, or the VM was restarted.');
}

function sayWhetherLow(
  { points, events, log }: PointsContext,
  record: BackupRecord,
  free: number,
  eye: Seen,
): void {
  const { backupId, exportId, vm } = record;
  const { scratchReserve: reserve, scratch: path } = points;
  const low = free < reserve;
  if (low && !eye.low) {
    log.warn(
      { event: 'scratchLow', backupId, vmId: vm.uuid, free, path },
      'the scratch space of a backup runs low',
    );
    const whose = { ...ofBackup(record), exportId, ...(exportId !== null && { backupId: null }) };
    events.emit({ kind: 'scratchLow', ...whose, path, free, reserve });
  }
  eye.low = low;
}

/** QEMU pauses a guest when a write finds no scratch space, and the job goes on as if nothing were. */
async function isPausedByFault(
  { libvirt }: PointsContext,
  domain: Domain,
  signal: AbortSignal,
): Promise<boolean> {
  const { state, reason } = await libvirt.domains.getState(domain, { signal });
  return state === DomainState.paused && reason === PausedReason.ioError;
}

/** Says that it has failed, and lets go of all that it holds. The record stays until it is stopped. */
async function failBackup(context: PointsContext, known: BackupRecord, error: Cause): Promise<void> {
  const { backups, events, log } = context;
  const { backupId, vm } = known;
  await exclusively(context, vm, `the end of ${nameOf(known)}`, async () => {
    let record = backups.find(backupId);
    if (record === undefined) return;
    if (record.state === 'running') {
      record = await backups.save({ ...record, state: 'failed', error });
      log.error({ event: 'backupFailed', backupId, vmId: vm.uuid, reason: error }, 'a backup has failed');
      if (record.exportId === null) events.emit({ kind: 'backupFailed', ...ofBackup(record), error });
    }
    if (record.state === 'failed')
      await releaseBackup(context, record, 'failed', AbortSignal.timeout(context.points.stateMs.halfWay));
  });
}
