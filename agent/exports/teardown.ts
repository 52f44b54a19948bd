import type { TeardownBackupDiskParams, TeardownBackupDiskResult } from '../api/generated.js';
import { AgentError } from '../errors.js';
import { refreshAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { detach } from './detach.js';
import type { ExportRecord } from './record.js';
import { liveExport } from './registry.js';
import { unserve } from './serve.js';

/** Milliseconds that a guest has to let go of a drive when its export is torn down by force. */
const DETACH_MS = 30_000;

/** Ends an export and removes all that was made for it; one that is unknown or has ended is success. */
export async function tearDown(
  context: ExportsContext,
  { exportId, force = false }: TeardownBackupDiskParams,
  call: ExportCall,
): Promise<TeardownBackupDiskResult> {
  const { registry, locks } = context;
  return locks.run(exportLock(exportId), `teardownBackupDisk ${exportId}`, call.signal, async () => {
    const known = registry.find(exportId);
    if (known === undefined || known.state === 'ended') return { exportId, checkpoint: null };
    const record = known.attachments.length > 0 ? await release(context, known, force, call.signal) : known;
    await registry.save({ ...record, state: 'closing' });
    await finishTeardown(context, record);
    return { exportId, checkpoint: null };
  });
}

/** The second half, also of a teardown that a crash interrupted: stops the server, removes its files, says so. */
export async function finishTeardown(context: ExportsContext, record: ExportRecord): Promise<void> {
  await unserve(context, record);
  await context.registry.save({
    ...record,
    state: 'ended',
    server: null,
    map: null,
    attachments: [],
    ended: new Date().toISOString(),
  });
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
