import { endPointInTime } from '../points-in-time/stop-backup.js';
import { closeAccess } from './access.js';
import type { ExportsContext } from './context.js';
import { decideOwn } from './decide-own.js';
import { closeFront } from './front.js';
import { withdraw } from './network.js';
import { removeNewImage } from './new-image.js';
import type { ExportRecord } from './record.js';
import { removeExportDirectory, unserve } from './serve.js';

/**
 * Takes back all that has been made for an export that did not become ready, and forgets it: nobody has had an answer,
 * and a retry makes it anew. Each step may be repeated, so that what cannot be taken back now stays on record and is
 * tried again, by the watch and by the next start. To be called under the export's lock.
 */
export async function takeBack(
  context: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<void> {
  const { registry, backups, settings } = context;
  const { exportId, pointInTime: point, vm, checkpoint } = record;
  await withdraw(context, record);
  await closeFront(context, record);
  if (point.kind === 'backup') {
    if (point.own) {
      await endPointInTime(context, point.backupId, 'failed', signal);
      await backups.remove(point.backupId);
    }
    await removeExportDirectory(settings, exportId);
  } else {
    await unserve(context, record);
    if (checkpoint !== null && vm !== null) {
      await decideOwn(context, { vm, checkpoint, exportId }, 'failed', signal);
    }
  }
  await removeNewImage(context, record);
  await registry.remove(exportId);
  if (point.kind === 'backup' && !point.own) await closeAccess(context, point.backupId);
}
