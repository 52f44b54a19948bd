import { randomBytes } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile, openersOf } from '../host/open-files.js';
import { allowedRealPath } from '../images/allowed-path.js';
import type { PointsContext } from './context.js';
import { neededBy } from './file-users.js';

const OURS = /\.vmdiskd-[0-9a-f]{12}\.qcow2$/;
/** A file name has at most 255 bytes; this many characters of the image's own name leave room for ours. */
const MAX_STEM = 70;
/** Milliseconds that QEMU has to close a layer that was merged away. */
const CLOSE_MS = 5000;

/**
 * Where the overlay above an image goes: beside it, under a name that nothing has. Above a block device, in the first
 * allowed root that is a directory of files.
 */
export function overlayPath(
  active: { path: string; block: boolean },
  allowedRoots: readonly string[],
): string {
  const folder = active.block
    ? allowedRoots.find((root) => !/^\/dev(\/|$)/.test(root))
    : dirname(active.path);
  if (folder === undefined) {
    throw new AgentError(
      'UnsupportedDisk',
      `${active.path} is a block device, and no allowed root can take an overlay above it; add a directory to ` +
        '[images] allowedRoots.',
    );
  }
  const stem = [...basename(active.path).replace(OURS, '')].slice(0, MAX_STEM).join('');
  return join(folder, `${stem}.vmdiskd-${randomBytes(6).toString('hex')}.qcow2`);
}

/**
 * Removes a file that has been merged away, or never came into use. It stays, with a word in the log, where it is not
 * that very file any more, or where anything still refers to it: a VM's chain, a process.
 * @param file which file it was; null where nobody has looked: then whatever bears the name, which only we give
 */
export async function removeOverlay(
  context: PointsContext,
  path: string,
  file: FileId | null,
  signal: AbortSignal,
): Promise<void> {
  const { log, points } = context;
  const now = await fileAt(path);
  if (now === undefined) return;
  if (file === null ? !OURS.test(path) : !isSameFile(now, file)) {
    log.warn({ path }, 'left a merged overlay alone: another file bears its name now');
    return;
  }
  const real = await allowedRealPath(path, points.allowedRoots);
  const user = await neededBy(context, now, signal);
  if (user !== undefined) {
    const { vm, target, certain } = user;
    const why = certain ? 'a VM refers to it' : "a VM's chain that cannot be read may lead to it";
    log.warn({ path, vm: vm.name, disk: target }, `left a merged overlay alone: ${why}`);
    return;
  }
  const limit = Date.now() + CLOSE_MS;
  for (let pids = await openersOf(now); pids.length > 0; pids = await openersOf(now)) {
    if (Date.now() > limit) {
      log.warn({ path, pids }, 'left a merged overlay alone: a process has it open');
      return;
    }
    await sleep(200, undefined, { signal });
  }
  await unlink(real);
  log.info({ path }, 'removed a merged overlay');
}
