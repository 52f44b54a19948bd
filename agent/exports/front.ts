/** What clients of an export meet, in front of the server that shows the point in time: a layer, a file, or nothing more. */
import { uidOf } from '../host/accounts.js';
import { startFuseFile, stopFuseFile } from '../nbd/fuse-file.js';
import { localUser } from './access.js';
import { type ExportsContext, exportFiles, STEP_MS, STOP } from './context.js';
import { unixDrive } from './drive.js';
import { whileServed } from './failure.js';
import { openOverlay, stopOverlay } from './overlay.js';
import { type ExportRecord, type ExportServer, frontOf } from './record.js';
import { capacityOf } from './serve.js';

/** The name follows from the export's id: the file is found by it without a record. */
const fileName = (exportId: string): string => `vmdiskd-file-${exportId}`;

/**
 * Makes what the params ask for in front of a server, which is on record, and the drive that leads there.
 * @param capacity bytes that the disk has at the server
 * @returns the record of a ready export, not yet saved, with everything but its map
 */
export async function openFront(
  context: ExportsContext,
  record: ExportRecord & { server: ExportServer },
  capacity: number,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const { settings, processes } = context;
  const { exportId, params, server } = record;
  const wait = { timeoutMs: STEP_MS, signal };
  let opened: ExportRecord = record;
  let size = capacity;
  if (params.access === 'scratch') {
    const overlay = await openOverlay(context, record, server, capacity, signal);
    opened = { ...opened, overlay };
    size = await whileServed(context, opened, () => capacityOf(overlay, wait));
  }
  const front = frontOf(opened) ?? server;
  const readonly = params.access === undefined || params.access === 'read-only';
  if (params.as === 'file') {
    const files = exportFiles(settings.run, exportId);
    const user = localUser(params);
    const file = await startFuseFile(
      processes,
      {
        name: fileName(exportId),
        ...{ socket: front.socket, exportName: front.exportName },
        file: files.file,
        writable: !readonly,
        stderrFile: files.fileStderr,
        ...(user !== undefined && { owner: { uid: await uidOf(user), gid: 0 } }),
      },
      wait,
    );
    opened = { ...opened, file };
  }
  const drive = unixDrive({
    ...{ hostId: settings.hostId, exportId, exportName: front.exportName, socket: front.socket, readonly },
    capacity: size,
  });
  return { ...opened, state: 'ready', drive };
}

/** Ends what is in front of the server. Idempotent; to be done first. */
export async function closeFront(context: ExportsContext, record: ExportRecord): Promise<void> {
  const { exportId, params, file, overlay } = record;
  if (params.as === 'file') await stopFile(context, exportId, file);
  if (params.access === 'scratch') await stopOverlay(context, exportId, overlay);
}

/** Idempotent. @param known as it is on record; null: by its name */
export async function stopFile(
  { processes, settings }: ExportsContext,
  exportId: string,
  known: ExportRecord['file'],
): Promise<void> {
  const unrecorded = { name: fileName(exportId), file: exportFiles(settings.run, exportId).file };
  await stopFuseFile(processes, known ?? unrecorded, STOP);
}
