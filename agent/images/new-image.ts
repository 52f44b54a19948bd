/** A new image at a path that a caller has given. */
import { constants } from 'node:fs';
import { type FileHandle, link, open, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { AgentError } from '../errors.js';
import type { FileId } from '../host/open-files.js';
import { runTool, ToolError } from '../host/process-tool.js';
import { holdAllowedDirectory } from './allowed-path.js';
import type { ImageFormat } from './chain.js';

const CREATE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const limits = { timeoutMs: 30_000, maxOutput: 64 * 1024, memory: 1024 ** 3 };

/**
 * Makes an empty, sparse image, of root with 0600; it gets its name when it is whole, and is at no time another file.
 * @param temporary its first name, in the directory of `path`, which it still bears afterwards: for the caller to remove
 *   when it is on record which file it is. When this throws, nothing is left.
 * @param capacity bytes
 * @throws AgentError `AlreadyExists`, `PathNotAllowed`, `NoSuchImage` for a directory that is not there, `ExportFailed`
 */
export async function makeImage(
  {
    path,
    temporary,
    format,
    capacity,
  }: { path: string; temporary: string; format: ImageFormat; capacity: number },
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<FileId> {
  const directory = await holdAllowedDirectory(dirname(path), allowedRoots);
  const at = (name: string) => `/proc/self/fd/${directory.fd}/${basename(name)}`;
  let image: FileHandle | undefined;
  try {
    image = await open(at(temporary), CREATE, 0o600);
    await fillImage(image, format, capacity, signal);
    await image.sync();
    const { dev, ino } = await image.stat();
    await link(at(temporary), at(path));
    await syncDirectory(directory);
    return { dev, ino };
  } catch (cause) {
    await unlink(at(temporary)).catch(() => {});
    throw refusal(path, cause);
  } finally {
    await image?.close();
    await directory.close();
  }
}

/** The name is to outlive a power cut, as what is written to the image and flushed does. */
async function syncDirectory({ fd }: FileHandle): Promise<void> {
  // It is held without having been opened (O_PATH), and such a handle cannot be synced.
  const opened = await open(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await opened.sync();
  } finally {
    await opened.close();
  }
}

/**
 * Makes an empty image in a file that is open and empty. The program is given the descriptor and no name: should it outlive
 * the daemon, it finds nothing that it could make anew.
 * @param capacity bytes
 * @throws ToolError
 */
export async function fillImage(
  image: FileHandle,
  format: ImageFormat,
  capacity: number,
  signal: AbortSignal,
): Promise<void> {
  if (format === 'raw') return image.truncate(capacity);
  const name = `/proc/${process.pid}/fd/${image.fd}`;
  const options = ['-o', 'compat=1.1'];
  await runTool('qemu-img', ['create', '-q', '-f', format, ...options, name, String(capacity)], {
    ...limits,
    signal,
  });
}

function refusal(path: string, cause: unknown): unknown {
  if (cause instanceof ToolError) {
    return new AgentError(
      'ExportFailed',
      `The image ${path} could not be made (${cause.stderr}); see that there is room.`,
      {
        stderr: cause.stderr,
        cause,
      },
    );
  }
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'EEXIST') {
    return new AgentError(
      'AlreadyExists',
      `There is a file at ${path} already; leave create out to write into it, or give another path.`,
      { cause },
    );
  }
  if (typeof code !== 'string') return cause;
  return new AgentError(
    'ExportFailed',
    `The image ${path} could not be made (${code}); see that its directory can be written to.`,
    {
      cause,
    },
  );
}
