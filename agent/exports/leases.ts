import type {
  RenewBackupParams,
  RenewBackupResult,
  RenewExportParams,
  RenewExportResult,
} from '../api/generated.js';
import { AgentError } from '../errors.js';
import { beginLease, shownLease } from '../host/lease.js';
import { pointsLock } from '../points-in-time/context.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { failed } from './failure.js';
import { leaseWanted } from './lease-wanted.js';
import { publishLease } from './network.js';
import { liveExport } from './registry.js';

/**
 * Gives an export a new lease, from now on.
 * @throws AgentError `NoSuchExport`; `ExportFailed` for one that is not ready: nothing is gained by keeping it
 */
export async function renewExport(
  context: ExportsContext,
  { exportId, leaseSeconds }: RenewExportParams,
  { signal }: ExportCall,
): Promise<RenewExportResult> {
  const { registry, locks, clock, points } = context;
  const seconds = leaseWanted(leaseSeconds, points.maxLease) ?? leaseSeconds;
  return locks.run(exportLock(exportId), `renewExport "${exportId}"`, signal, async () => {
    const record = liveExport(registry, exportId);
    if (record.state !== 'ready') throw failed(record);
    const lease = beginLease(clock, seconds);
    await publishLease(context, await registry.save({ ...record, lease }));
    return { exportId, lease: shownLease(clock, lease) };
  });
}

/**
 * Gives a backup of `startBackup` a new lease, from now on. Those of its exports are their own.
 * @throws AgentError `NoSuchBackup`, `BackupError` for one that has failed or is ending
 */
export async function renewBackup(
  context: ExportsContext,
  { backupId, leaseSeconds }: RenewBackupParams,
  { signal }: ExportCall,
): Promise<RenewBackupResult> {
  const { backups, locks, clock, points } = context;
  const seconds = leaseWanted(leaseSeconds, points.maxLease) ?? leaseSeconds;
  const { vm } = liveBackup(context, backupId);
  return locks.run(pointsLock(vm.uuid), `renewBackup "${backupId}"`, signal, async () => {
    const record = liveBackup(context, backupId);
    if (record.state !== 'running') {
      throw new AgentError(
        'BackupError',
        `The backup "${backupId}" ${record.error === null ? `is ${record.state}.` : `has failed: ${record.error.message}`} End it with stopBackup and begin a new one.`,
        { vmId: vm.uuid },
      );
    }
    const lease = beginLease(clock, seconds);
    await backups.save({ ...record, lease });
    return { backupId, lease: shownLease(clock, lease) };
  });
}

function liveBackup({ backups }: ExportsContext, backupId: string) {
  const record = backups.find(backupId);
  if (record !== undefined && record.ended === null && record.exportId === null) return record;
  throw new AgentError(
    'NoSuchBackup',
    `There is no backup "${backupId}"${record?.ended == null ? '' : ' any more: it has ended'}; listBackups shows those there are.`,
  );
}
