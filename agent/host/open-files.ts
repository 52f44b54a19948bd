import { readdir, stat } from 'node:fs/promises';

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
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found: number[] = [];
  for (const pid of pids) {
    // A process or a descriptor may go away while we look.
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const opened = await fileAt(`/proc/${pid}/fd/${descriptor}`).catch(() => undefined);
      if (opened !== undefined && isSameFile(opened, file)) {
        found.push(Number(pid));
        break;
      }
    }
  }
  return found;
}
