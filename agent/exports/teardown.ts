import type { TeardownBackupDiskParams, TeardownBackupDiskResult } from '../api/generated.js';
import { AgentError } from '../errors.js';
import { decideCheckpoint, type EndedCheckpoint, requireOutcome } from '../points-in-time/checkpoint-life.js';
import { endPointInTime } from '../points-in-time/stop-backup.js';
import { applySocketAccess } from './access.js';
import { refreshAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { detach } from './detach.js';
import type { ExportRecord } from './record.js';
import { liveExport } from './registry.js';
import { removeExportDirectory, unserve } from './serve.js';

/** Milliseconds that a guest has to let go of a drive when its export is torn down by force. */
const DETACH_MS = 30_000;

/** Ends an export and removes all that was made for it; one that is unknown or has ended is success. */
export async function tearDown(
  context: ExportsContext,
  { exportId, force = false, outcome }: TeardownBackupDiskParams,
  call: ExportCall,
): Promise<TeardownBackupDiskResult> {
  const { registry, locks } = context;
  return locks.run(exportLock(exportId), `teardownBackupDisk ${exportId}`, call.signal, async () => {
    const known = registry.find(exportId);
    if (known === undefined || known.state === 'ended')
      return { exportId, checkpoint: known?.outcome ?? null };
    requireOutcome(known.state === 'failed' ? null : known.checkpoint, outcome);
    const record = known.attachments.length > 0 ? await release(context, known, force, call.signal) : known;
    // A failed export has no good end any more: what was read of it may be cut short.
    const decided = record.state === 'failed' ? 'failed' : (outcome ?? 'failed');
    const closing = await registry.save({ ...record, state: 'closing', decided });
    return { exportId, checkpoint: await finishTeardown(context, closing, call.signal) };
  });
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
  if (point.kind === 'backup') {
    if (point.own) outcome = await endPointInTime(context, point.backupId, decided, signal);
    await removeExportDirectory(context.settings, record.exportId);
  } else {
    await unserve(context, record);
    if (checkpoint !== null && vm !== null) {
      outcome = await decideCheckpoint(context, vm.uuid, checkpoint, decided, signal);
    }
  }
  const ended = { server: null, map: null, attachments: [], ended: new Date().toISOString(), outcome };
  await registry.save({ ...record, ...ended, state: 'ended' });
  if (point.kind === 'backup' && !point.own && record.server !== null) {
    await closeAccess(context, record.server.socket);
  }
  return outcome;
}

/** The others of the same backup keep their access; a backup that has ended has no socket any more. */
async function closeAccess(context: ExportsContext, socket: string): Promise<void> {
  await applySocketAccess(context, context.registry.allLive(), socket).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    },
  );
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
  for (const attachment of record.attachments) {
    await detach(context, exportId, attachment, DETACH_MS, signal);
  }
  return liveExport(context.registry, exportId);
}
