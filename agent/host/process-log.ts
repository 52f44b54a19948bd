import { constants } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';

/** Bytes of stderr that are worth showing to a caller. */
const stderrTailBytes = 4096;

/**
 * Opens the file that takes a server's stderr. It is opened for appending, so that it may be cut while the server
 * writes: the next line then lands at the new end and leaves no hole.
 */
export async function openStderr(path: string): Promise<FileHandle> {
  const { O_WRONLY, O_CREAT, O_APPEND } = constants;
  const file = await open(path, O_WRONLY | O_CREAT | O_APPEND | NO_TRAP, 0o600);
  const stats = await file.stat();
  if (stats.isFile() && stats.uid === process.geteuid?.()) return file;
  await file.close();
  throw new Error(`${path} is no file of ours`);
}

/**
 * A server that was taken over may have put a link there, or a pipe that opening would wait at. A file of its own it could replace by
 * a link later, for systemd to follow; one of ours it cannot, in a directory with the sticky bit.
 */
const NO_TRAP = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The last `maxBytes` of a server's stderr, without a torn first line; empty where there is no such file. */
export async function readStderrTail(path: string, maxBytes = stderrTailBytes): Promise<string> {
  const file = await open(path, constants.O_RDONLY | NO_TRAP).catch(ignoreAbsent);
  if (!file) return '';
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - maxBytes);
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(Math.min(size, maxBytes)),
      0,
      undefined,
      start,
    );
    const text = buffer.subarray(0, bytesRead).toString('utf8');
    const firstEnd = text.indexOf('\n');
    const whole = start > 0 && firstEnd !== -1 ? text.slice(firstEnd + 1) : text;
    return whole.trimEnd();
  } finally {
    await file.close();
  }
}

/**
 * What a server's stderr has from a place on, `maxBytes` at most, and how large it is; undefined where there is no such file, or
 * nothing new in it.
 */
export async function readStderrFrom(
  path: string,
  offset: number,
  maxBytes: number,
): Promise<{ text: Buffer; size: number } | undefined> {
  const seen = await lstat(path).catch(ignoreAbsent);
  if (!seen?.isFile() || seen.size === offset) return undefined;
  const file = await open(path, constants.O_RDONLY | NO_TRAP).catch(ignoreAbsent);
  if (!file) return undefined;
  try {
    const { size } = await file.stat();
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(maxBytes),
      0,
      maxBytes,
      Math.min(offset, size),
    );
    return { text: buffer.subarray(0, bytesRead), size };
  } finally {
    await file.close();
  }
}

/**
 * Empties a stderr file that has grown beyond `maxBytes`: a server that lives for weeks logs a line for each client
 * that breaks off, and /run is memory. Returns whether it did.
 */
export async function cutStderr(path: string, maxBytes: number): Promise<boolean> {
  const file = await open(path, constants.O_RDWR | NO_TRAP).catch(ignoreAbsent);
  if (!file) return false;
  try {
    const { size } = await file.stat();
    if (size <= maxBytes) return false;
    await file.truncate(0);
    return true;
  } finally {
    await file.close();
  }
}

function ignoreAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT') return undefined;
  throw error;
}
