import { type FileHandle, open, readlink, realpath } from 'node:fs/promises';
import { isAbsolute, sep } from 'node:path';
import { AgentError } from '../errors.js';

/** Linux, include/uapi/asm-generic/fcntl.h; Node has no name for it. */
const O_PATH = 0o10000000;

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
  const origin = namedBy === undefined ? '' : `, which ${namedBy} names as its backing file,`;
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
    await refuseOutside(real, roots, origin);
    return { path: real, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
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

async function refuseOutside(real: string, roots: readonly string[], origin: string): Promise<void> {
  for (const root of roots) {
    const realRoot = await realpath(root).catch(() => root);
    if (real.startsWith(realRoot.endsWith(sep) ? realRoot : realRoot + sep)) return;
  }
  throw new AgentError(
    'PathNotAllowed',
    `The image ${real}${origin} lies under none of the allowed roots (${roots.join(', ') || 'there are none'}); ` +
      (origin === ''
        ? 'add its directory to [images] allowedRoots.'
        : 'if that name is to be trusted, add its directory to [images] allowedRoots.'),
  );
}
