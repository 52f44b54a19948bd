import { constants } from 'node:fs';
import { type FileHandle, open, readlink, realpath } from 'node:fs/promises';
import { isAbsolute, sep } from 'node:path';
import { AgentError } from '../errors.js';
import { O_PATH } from '../host/socket-access.js';

/** Linux, include/uapi/asm-generic/fcntl.h; Node has no name for it. */

/** A file, and the path by which it was reached when it was judged. */
export interface AllowedFile {
  /** The real path: absolute, all links resolved. */
  path: string;
  /** Names the file without having opened it (`O_PATH`): no device notices, no FIFO blocks. For the caller to close. */
  handle: FileHandle;
}

/**
 * Takes hold of an image, which must lie under one of the allowed roots. What is judged is where the file that is held
 * lies, so that no link that changes meanwhile can lead elsewhere.
 * @param namedBy the image whose header names this one as its backing file
 * @throws AgentError `PathNotAllowed`, `NoSuchImage`
 */
export async function holdAllowed(
  path: string,
  roots: readonly string[],
  namedBy?: string,
): Promise<AllowedFile> {
  const origin = originText(namedBy);
  if (!isAbsolute(path) || path.includes('\0')) {
    throw new AgentError('PathNotAllowed', `The image path "${path}" is not absolute; give the whole path.`);
  }
  const absent = (cause?: unknown) =>
    new AgentError(
      'NoSuchImage',
      `The image ${path}${origin} cannot be found; check the path and its mount.`,
      cause === undefined ? {} : { cause },
    );
  let handle: FileHandle;
  try {
    handle = await open(path, O_PATH);
  } catch (cause) {
    throw absent(cause);
  }
  try {
    const real = await readlink(`/proc/self/fd/${handle.fd}`);
    // proc(5): a file that is gone has this at its end. One that bears such a name is found by it.
    if (real.endsWith(' (deleted)') && (await handle.stat()).nlink === 0) throw absent();
    await refuseOutside({ path, real, origin }, roots);
    return { path: real, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Takes hold of a directory in which an image is to be made: an allowed root, or one below.
 * @returns for the caller to close
 * @throws AgentError `PathNotAllowed`, `NoSuchImage`
 */
export async function holdAllowedDirectory(path: string, roots: readonly string[]): Promise<FileHandle> {
  const absent = (cause?: unknown) =>
    new AgentError('NoSuchImage', `The directory ${path} cannot be found; make it, or check its mount.`, {
      cause,
    });
  if (!isAbsolute(path) || path.includes('\0')) {
    throw new AgentError('PathNotAllowed', `The path "${path}" is not absolute; give the whole path.`);
  }
  const handle = await open(path, O_PATH | constants.O_DIRECTORY).catch((cause: unknown) => {
    throw absent(cause);
  });
  try {
    const real = await readlink(`/proc/self/fd/${handle.fd}`);
    if (real.endsWith(' (deleted)')) throw absent();
    const realRoots = await Promise.all(roots.map((root) => realpath(root).catch(() => root)));
    if (!realRoots.includes(real)) await refuseOutside({ path, real, origin: '' }, roots);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Where a path comes from that no caller has given. */
export function originText(namedBy: string | undefined): string {
  return namedBy === undefined ? '' : `, which ${namedBy} names as its backing file,`;
}

/** What is judged: the path that was given, where it leads, and where it comes from, as a part of a sentence. */
interface Judged {
  path: string;
  real: string;
  origin: string;
}

/**
 * The real path (all links resolved) of an image, which must lie under one of the allowed roots.
 * @throws AgentError `PathNotAllowed`, `NoSuchImage`
 */
export async function allowedRealPath(path: string, roots: readonly string[]): Promise<string> {
  const { path: real, handle } = await holdAllowed(path, roots);
  await handle.close();
  return real;
}

async function refuseOutside({ path, real, origin }: Judged, roots: readonly string[]): Promise<void> {
  const realRoots = await Promise.all(roots.map((root) => realpath(root).catch(() => root)));
  if (realRoots.some((root) => real.startsWith(root.endsWith(sep) ? root : root + sep))) return;
  if (realRoots.includes(real)) {
    throw new AgentError(
      'PathNotAllowed',
      `The path ${path}${origin} is an allowed root itself and no image; give the path of an image under it.`,
    );
  }
  // A link, or `..`: who reads the sentence has to find what is judged in what was asked for.
  const asked = real === path ? '' : `is ${real}, which `;
  throw new AgentError(
    'PathNotAllowed',
    `The image ${path}${origin} ${asked}lies under none of the allowed roots (${rootsText(roots)}); ` +
      (origin === ''
        ? 'add its directory to [images] allowedRoots.'
        : 'if that name is to be trusted, add its directory to [images] allowedRoots.'),
  );
}

/** The allowed roots, for a sentence. */
export function rootsText(roots: readonly string[]): string {
  return roots.join(', ') || 'there are none';
}
