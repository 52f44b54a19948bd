import { chown, mkdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../errors.js';
import { uidOf } from '../host/accounts.js';
import type { PointsSettings } from './context.js';

/** Where a backup's files lie: the socket's directory, and that of its scratch files. */
export function backupFiles(
  { run, scratch }: PointsSettings,
  backupId: string,
): { dir: string; socket: string; scratch: string } {
  const dir = join(run, 'backups', backupId);
  return { dir, socket: join(dir, 'nbd.sock'), scratch: join(scratch, backupId) };
}

/**
 * Bytes that are free where scratch files lie; null where that cannot be told, since the directory is gone: no end of a
 * backup may fail of that.
 */
export async function freeScratch({ scratch }: Pick<PointsSettings, 'scratch'>): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(scratch);
    return bavail * bsize;
  } catch {
    return null;
  }
}

/**
 * Makes the directories of a backup's files. QEMU makes the socket, so it owns that directory, and nobody else passes
 * through it until the socket has the right owner.
 * @throws AgentError `ScratchFull` where less than the reserve is free, `BackupError` where the scratch directory cannot be used
 */
export async function makeBackupFiles(settings: PointsSettings, backupId: string): Promise<void> {
  const { dir, scratch } = backupFiles(settings, backupId);
  await makeScratchDirectory(settings, settings.scratch);
  const free = await freeScratch(settings);
  if (free !== null && free < settings.scratchReserve) {
    throw new AgentError(
      'ScratchFull',
      `Only ${free} bytes are free in ${settings.scratch}, and a backup wants ${settings.scratchReserve} to begin with; make room, or set [paths] scratch to a larger file system.`,
    );
  }
  await mkdir(settings.run, { recursive: true, mode: 0o755 });
  await mkdir(join(settings.run, 'backups'), { recursive: true, mode: 0o711 });
  await removeBackupFiles(settings, backupId); // nothing of ours: the record would know
  await makeScratchDirectory(settings, scratch);
  await mkdir(dir, { mode: 0o700 });
  await chown(dir, await uidOf(settings.qemuUser), 0);
}

/** @throws AgentError `BackupError` where it cannot be used */
export async function makeScratchDirectory(settings: PointsSettings, dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o711 });
  } catch (cause) {
    throw new AgentError(
      'BackupError',
      `The directory for scratch files, ${settings.scratch}, cannot be used (${cause instanceof Error ? cause.message : cause}); set [paths] scratch to one that vmdiskd can write to.`,
      { cause },
    );
  }
}

/** Removes what is left of a backup's files: QEMU that was killed leaves its socket, libvirt its scratch files. */
export async function removeBackupFiles(settings: PointsSettings, backupId: string): Promise<void> {
  const { dir, scratch } = backupFiles(settings, backupId);
  await rm(dir, { recursive: true, force: true });
  await rm(scratch, { recursive: true, force: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTDIR') throw error; // below what is no directory there is nothing
  });
}
