import type { TeardownBackupDiskParams, TeardownBackupDiskResult } from '../api/generated.js';
import { AgentError } from '../errors.js';
import { type EndedCheckpoint, requireOutcome } from '../points-in-time/checkpoint-life.js';
import { endPointInTime } from '../points-in-time/stop-backup.js';
import { closeAccess } from './access.js';
import { refreshAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { decideOwn } from './decide-own.js';
import { detach } from './detach.js';
import { closeFront } from './front.js';
import { withdraw } from './network.js';
import { exportedDrive } from './pluggable.js';
import type { ExportRecord } from './record.js';
import { liveExport } from './registry.js';
import { removeExportDirectory, unserve } from './serve.js';
import { takeBack } from './take-back.js';
import { ofExport } from './told.js';

/** Ends an export and removes all that was made for it; one that is unknown or has ended is success. */
export async function tearDown(
  context: ExportsContext,
  { exportId, force = false, outcome }: TeardownBackupDiskParams,
  call: ExportCall,
): Promise<TeardownBackupDiskResult> {
  const { registry, locks } = context;
  return locks.run(exportLock(exportId), `teardownBackupDisk "${exportId}"`, call.signal, async () => {
    const known = registry.find(exportId);
    if (known === undefined || known.state === 'ended')
      return { exportId, checkpoint: known?.outcome ?? null };
    requireOutcome(isUndecided(known) ? known.checkpoint : null, outcome);
    return { exportId, checkpoint: await endExport(context, known, outcome ?? 'failed', force, call.signal) };
  });
}

/** Whether the end of it still has to be told what becomes of its checkpoint. */
function isUndecided({ state, decided }: ExportRecord): boolean {
  return decided === null && state === 'ready';
}

/**
 * Ends an export in whatever state it is. To be called under its lock.
 * @param force unplug its drives first
 * @throws AgentError `ExportInUse`
 */
export async function endExport(
  context: ExportsContext,
  known: ExportRecord,
  outcome: 'success' | 'failed',
  force: boolean,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  if (known.state === 'starting') {
    await takeBack(context, known, signal);
    // Remembered: a late retry of its beginning must not bring it back.
    await context.registry.save({ ...known, state: 'ended', ended: new Date().toISOString() });
    return null;
  }
  const record = known.attachments.length > 0 ? await release(context, known, force, signal) : known;
  // A failed export has no good end any more: what was read of it may be cut short.
  const decided = record.decided ?? (record.state === 'failed' ? 'failed' : outcome);
  const closing = await context.registry.save({ ...record, state: 'closing', decided });
  return finishTeardown(context, closing, signal);
}

/** The second half, also of a teardown that a crash interrupted: ends what serves it, decides, removes, says so. */
export async function finishTeardown(
  context: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<EndedCheckpoint | null> {
  const { registry } = context;
  const { pointInTime: point, vm, checkpoint } = record;
  const decided = record.decided ?? 'failed';
  let outcome: EndedCheckpoint | null = null;
  await withdraw(context, record); // its readers see the end of the connection, and not a server that dies
  await closeFront(context, record);
  if (point.kind === 'backup') {
    if (point.own) outcome = await endPointInTime(context, point.backupId, decided, signal);
    await removeExportDirectory(context.settings, record.exportId);
  } else {
    await unserve(context, record);
    if (checkpoint !== null && vm !== null) {
      outcome = await decideOwn(context, { vm, checkpoint, exportId: record.exportId }, decided, signal);
    }
  }
  await registry.save({ ...record, state: 'ended', ended: new Date().toISOString(), outcome });
  context.events.emit({ kind: 'exportClosed', ...ofExport(record), outcome: decided, checkpoint: outcome });
  if (point.kind === 'backup') {
    // What a retry is told stands in the export's own record from here on.
    if (point.own) await context.backups.remove(point.backupId);
    else await closeAccess(context, point.backupId);
  }
  return outcome;
}

/** The NBD server is never stopped under a VM that has the drive. */
async function release(
  context: ExportsContext,
  known: ExportRecord,
  force: boolean,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const { exportId } = known;
  const record = await refreshAttachments(context, known, signal);
  const [first] = record.attachments;
  if (first !== undefined && !force) {
    throw new AgentError(
      'ExportInUse',
      `The drive of "${exportId}" is plugged into ${first.vm.name} as ${first.target}; hotunplugDisk it first, or ` +
        'set force.',
      { exportId, vmId: first.vm.uuid, disk: first.target },
    );
  }
  const what = exportedDrive(context, exportId);
  for (const attachment of record.attachments) {
    // One that is plugged in has a drive.
    if (what !== null) await detach(context, { what, attachment }, context.points.stateMs.detach, signal);
  }
  return liveExport(context.registry, exportId);
}
