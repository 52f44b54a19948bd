import type { NewEvent } from '../events/event.js';
import { type LeaseRecord, leaseLeft } from '../host/lease.js';
import { stopBackup } from './backups.js';
import { type ExportsContext, exportLock } from './context.js';
import { endExport } from './teardown.js';

type LeaseEnd = Extract<NewEvent, { kind: 'leaseExpired' }>;

/** How often it is looked whether a lease has ended. */
const LOOK_MS = 1000;
/** Until it is tried again where that has failed. */
const AGAIN_MS = 30_000;

/**
 * Ends what nobody has renewed, as a teardown with the outcome `failed` and by force would, until it is closed. What ended
 * while no daemon ran is ended at the first look.
 */
export function watchLeases(context: ExportsContext): { close(): void } {
  const { registry, backups, clock, events, log } = context;
  /** When it is tried again, by what it is; those that have been told stay until they are gone. */
  const due = new Map<string, number>();
  const isOver = (lease: LeaseRecord | null | undefined) => lease != null && leaseLeft(clock, lease) <= 0;

  const keyOf = {
    backup: (id: string) => `backup ${id}`,
    export: (id: string) => `export ${id}`,
  };
  /** Somebody else may have ended what could not be ended here; the same id may come again. */
  const forgetGone = () => {
    const live = new Set([
      ...backups.allLive().map(({ backupId }) => keyOf.backup(backupId)),
      ...registry.allLive().map(({ exportId }) => keyOf.export(exportId)),
    ]);
    for (const key of due.keys()) if (!live.has(key)) due.delete(key);
  };

  const attempt = (key: string, about: Omit<LeaseEnd, 'kind'>, end: () => Promise<void>) => {
    const at = due.get(key);
    if (at !== undefined && at > clock.now()) return;
    if (at === undefined) {
      log.warn(about, 'a lease has ended');
      events.emit({ kind: 'leaseExpired', ...about });
    }
    due.set(key, Number.POSITIVE_INFINITY);
    end().then(
      () => due.delete(key),
      (err: unknown) => {
        log.error({ ...about, err }, 'what its lease has left could not be ended yet');
        due.set(key, clock.now() + AGAIN_MS);
      },
    );
  };
  const look = () => {
    forgetGone();
    for (const { backupId, exportId, lease, owner, vm } of backups.allLive()) {
      if (exportId !== null || !isOver(lease)) continue;
      const about = { exportId: null, backupId, owner, vmId: vm.uuid };
      attempt(keyOf.backup(backupId), about, () => expireBackup(context, backupId, isOver));
    }
    for (const { exportId, lease, owner, vm } of registry.allLive()) {
      if (!isOver(lease)) continue;
      const about = { exportId, backupId: null, owner, vmId: vm?.uuid ?? null };
      attempt(keyOf.export(exportId), about, () => expireExport(context, exportId, isOver));
    }
  };
  const timer = setInterval(look, LOOK_MS);
  look();
  return { close: () => clearInterval(timer) };
}

type IsOver = (lease: LeaseRecord | null | undefined) => boolean;

/** It may have been renewed, or torn down, while its lock was waited for. */
async function expireExport(context: ExportsContext, exportId: string, isOver: IsOver): Promise<void> {
  const { registry, locks, points } = context;
  const signal = AbortSignal.timeout(points.stateMs.leaseEnd);
  await locks.run(
    exportLock(exportId),
    `the end of the lease of the export "${exportId}"`,
    signal,
    async () => {
      const record = registry.find(exportId);
      if (record === undefined || record.ended !== null || !isOver(record.lease)) return;
      await endExport(context, record, 'failed', true, signal);
    },
  );
}

async function expireBackup(context: ExportsContext, backupId: string, isOver: IsOver): Promise<void> {
  const record = context.backups.find(backupId);
  if (record === undefined || record.ended !== null || !isOver(record.lease)) return;
  const call = { owner: record.owner, signal: AbortSignal.timeout(context.points.stateMs.leaseEnd) };
  await stopBackup(context, { backupId, outcome: 'failed', force: true }, call);
}
