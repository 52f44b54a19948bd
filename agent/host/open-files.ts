import { constants } from 'node:fs';
import { readdir, readFile, readlink, stat } from 'node:fs/promises';

/** Which file it is, whatever its name. */
export interface FileId {
  readonly dev: number;
  readonly ino: number;
}

export function isSameFile(a: FileId, b: FileId): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/** The file that a path leads to, links followed; undefined where there is none. */
export async function fileAt(path: string): Promise<FileId | undefined> {
  try {
    const { dev, ino } = await stat(path);
    return { dev, ino };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * The pids of the processes that have a file open, as proc(5) shows them: also those in other mount namespaces, where
 * QEMU runs, since the links under /proc/PID/fd lead to the file itself.
 */
export async function openersOf(file: FileId): Promise<number[]> {
  return processesWith(file, async () => true);
}

/** Those of them that may write to it. */
export async function writersOf(file: FileId): Promise<number[]> {
  return processesWith(file, async (pid, descriptor) => {
    const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, 'utf8');
    const flags = Number.parseInt(/^flags:\t(\d+)/m.exec(info)?.[1] ?? '0', 8);
    return (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0;
  });
}

/** A file that a process has open, its name for it, and the link under /proc that leads to it whatever its name. */
export type OpenFile = FileId & { path: string; link: string };

/** The files (regular ones and block devices) that a process has open; none of one that is gone. */
export async function filesOf(pid: number): Promise<OpenFile[]> {
  const found: OpenFile[] = [];
  for (const descriptor of await readdir(`/proc/${pid}/fd`).catch(noneIfGone)) {
    const link = `/proc/${pid}/fd/${descriptor}`;
    const stats = await stat(link).catch(() => undefined); // closed meanwhile
    if (stats === undefined || !(stats.isFile() || stats.isBlockDevice())) continue;
    found.push({ dev: stats.dev, ino: stats.ino, path: await readlink(link).catch(() => '?'), link });
  }
  return found;
}

/** Only of a process that is gone: one that may not be looked at has files all the same. */
function noneIfGone(error: NodeJS.ErrnoException): string[] {
  if (error.code === 'ENOENT' || error.code === 'ESRCH') return [];
  throw error;
}

async function processesWith(
  file: FileId,
  counts: (pid: string, descriptor: string) => Promise<boolean>,
): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found: number[] = [];
  for (const pid of pids) {
    // A process or a descriptor may go away while we look.
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const link = `/proc/${pid}/fd/${descriptor}`;
      // A file that an export is shown as: its stat may never come back, and it is no image.
      if (/\/exports\/[^/]+\/disk$/.test(await readlink(link).catch(() => ''))) continue;
      const opened = await fileAt(link).catch(() => undefined);
      if (opened === undefined || !isSameFile(opened, file)) continue;
      if (!(await counts(pid, descriptor).catch(() => false))) continue;
      found.push(Number(pid));
      break;
    }
  }
  return found;
}
