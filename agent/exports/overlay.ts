/** The throw-away layer of an export that may be written to: a qemu-nbd in front of the one that shows the point in time. */
import { lstat, open, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { ScratchUse } from '../api/generated.js';
import { AgentError } from '../errors.js';
import { confinedName } from '../host/confine.js';
import { type FileId, fileAt, filesOf, isSameFile } from '../host/open-files.js';
import { ToolError } from '../host/process-tool.js';
import { setSocketAccess } from '../host/socket-access.js';
import { overlayImage } from '../images/blockdev.js';
import { fillImage } from '../images/new-image.js';
import { type QemuNbdOptions, startQemuNbd } from '../nbd/qemu-nbd.js';
import { freeScratch, makeScratchDirectory } from '../points-in-time/scratch.js';
import { localUser } from './access.js';
import { type ExportsContext, exportFiles, SHARED, STEP_MS } from './context.js';
import type { ExportRecord, ExportServer, OverlayServer } from './record.js';
import { letIn, shutOut, stopServer } from './serve.js';

/** A file smaller than this has no room for the tables of a layer. */
const LEAST = 1024 * 1024;
const SECTOR = 512;

const overlayName = (exportId: string): string => `vmdiskd-overlay-${exportId}`;

/** No id that a caller picks begins with `+`, and so no backup's directory of scratch files is here. */
const overlayPath = (scratch: string, exportId: string): string => join(scratch, `+${exportId}.qcow2`);

type Context = Pick<ExportsContext, 'processes' | 'settings' | 'points'>;

/**
 * Puts a layer in front of a server, and returns once it serves at the export's socket. Its file loses its name as soon as
 * it is open: whatever dies, the space is free again. A limit of the file's size makes a write beyond it fail (EFBIG, which
 * NBD shows as ENOSPC: QEMU, nbd/server.c, system_errno_to_nbd_errno) and leaves everything else as it is.
 * Its name and its file's follow from the export's id, so that `stopOverlay` finds them without a record.
 * @param server what it reads from
 * @param capacity bytes that the disk has there
 * @throws AgentError `ScratchFull`
 */
export async function openOverlay(
  context: ExportsContext,
  { exportId, params }: ExportRecord,
  server: ExportServer,
  capacity: number,
  signal: AbortSignal,
): Promise<OverlayServer> {
  const { processes, settings, points } = context;
  const files = exportFiles(settings.run, exportId);
  const { confinement } = points;
  await makeScratchDirectory(points, points.scratch);
  const limit = await limitOf(context, exportId);
  const path = overlayPath(points.scratch, exportId);
  await makeLayer(path, Math.ceil(capacity / SECTOR) * SECTOR, signal);
  const file = await fileAt(path);
  if (file === undefined) throw new Error(`${path} has gone`);
  const seen = [
    { path, id: await idOf(path), write: true },
    { path: server.socket, id: await idOf(server.socket) },
  ];
  const below = {
    socket: confinement === null ? server.socket : confinedName(1),
    exportName: server.exportName,
  };
  const options: QemuNbdOptions = {
    name: overlayName(exportId),
    image: overlayImage(confinement === null ? path : confinedName(0), below),
    readOnly: false,
    discard: true,
    exportName: exportId,
    socket: files.socket,
    shared: SHARED,
    stderrFile: files.overlayStderr,
    fileSize: limit,
    ...(confinement !== null && { confined: { confinement, files: seen, directory: files.dir } }),
  };
  if (confinement !== null) await letIn(files.dir, confinement);
  const overlay = await startQemuNbd(processes, options, { timeoutMs: STEP_MS, signal });
  await unlink(path);
  if (confinement !== null) await shutOut(files.dir);
  await setSocketAccess(overlay.socket, { user: localUser(params) ?? null, group: null });
  return { ...overlay, file, limit };
}

/** Ours alone from its first moment: whoever opens it once keeps what is written to it later. */
async function makeLayer(path: string, capacity: number, signal: AbortSignal): Promise<void> {
  await unlink(path).catch(ignoreAbsent); // of an earlier try
  const file = await open(path, 'wx+', 0o600);
  try {
    await fillImage(file, 'qcow2', capacity, signal);
  } catch (cause) {
    if (!(cause instanceof ToolError)) throw cause;
    throw new AgentError(
      'ExportFailed',
      `The file for what is written to a scratch export, ${path}, could not be made (${cause.stderr}); see that [paths] scratch can be written to.`,
      { stderr: cause.stderr, cause },
    );
  } finally {
    await file.close();
  }
}

/**
 * Ends the layer and frees its space. Idempotent; to be done before what it reads from is ended.
 * @param known as it is on record; null: by its name
 */
export async function stopOverlay(
  { processes, settings, points }: Context,
  exportId: string,
  known: OverlayServer | null,
): Promise<void> {
  const { socket } = exportFiles(settings.run, exportId);
  const name = overlayName(exportId);
  await stopServer(processes, { exportId, name, known, sockets: [socket] });
  await unlink(overlayPath(points.scratch, exportId)).catch(ignoreAbsent);
}

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
}

/** The space that a layer has taken; null for an export without one, and where its server has gone. */
export async function scratchUseOf({ overlay }: ExportRecord): Promise<ScratchUse | null> {
  if (overlay === null) return null;
  const used = await sizeOf(overlay.process.identity.pid, overlay.file);
  return used === undefined ? null : { used, limit: overlay.limit };
}

/** What it may take: less than is configured where the backups of running VMs would be left without their reserve. */
async function limitOf({ points, settings, registry }: ExportsContext, exportId: string): Promise<number> {
  const configured = settings.scratchPerExport;
  const there = await freeScratch(points);
  // What the other layers may still take is promised to them.
  let promised = 0;
  const { dev } = await lstat(points.scratch);
  const here = registry.allLive().filter(({ overlay }) => overlay?.file.dev === dev);
  for (const use of await Promise.all(here.map(scratchUseOf)))
    if (use !== null) promised += Math.max(0, use.limit - use.used);
  const free = there === null ? null : Math.max(0, there - promised);
  const limit = free === null ? configured : Math.min(configured, free - points.scratchReserve);
  if (limit >= LEAST) return limit;
  throw new AgentError(
    'ScratchFull',
    `Only ${free} bytes are free in ${points.scratch} and promised to no other layer, of which ${points.scratchReserve} are kept for live backups ([limits] ` +
      'scratchReserve), so there is no room for what is written to a scratch export; make room, or set [paths] scratch to a ' +
      'larger file system.',
    { exportId },
  );
}

async function idOf(path: string): Promise<string> {
  const { dev, ino } = await lstat(path, { bigint: true });
  return `${dev}:${ino}`;
}

/** Bytes of a file that a process has open under whatever name; undefined where it has not. */
async function sizeOf(pid: number, file: FileId): Promise<number | undefined> {
  const opened = (await filesOf(pid)).find((one) => isSameFile(one, file));
  if (opened === undefined) return undefined;
  return (await stat(opened.link).catch(() => undefined))?.size;
}
