import { randomBytes } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DomainState, readAllDomains } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile, openersOf } from '../host/open-files.js';
import { allowedRealPath } from '../images/allowed-path.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { PointsContext } from './context.js';

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
  { libvirt, log, points }: PointsContext,
  path: string,
  file: FileId | null,
  signal: AbortSignal,
): Promise<void> {
  const now = await fileAt(path);
  if (now === undefined) return;
  if (file === null ? !OURS.test(path) : !isSameFile(now, file)) {
    log.warn({ path }, 'left a merged overlay alone: another file bears its name now');
    return;
  }
  const real = await allowedRealPath(path, points.allowedRoots);
  const user = (
    await Promise.all((await readAllDomains(libvirt, signal)).map((state) => refersTo(state, now)))
  ).find((name) => name !== null);
  if (user !== undefined) {
    log.warn({ path, vm: user }, 'left a merged overlay alone: a VM refers to it');
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

/** The name of a domain that has the file in a chain. Of one that does not run, libvirt knows the top layer only. */
async function refersTo({ domain, running, config }: DomainState, file: FileId): Promise<string | null> {
  for (const { source, backing, mirror } of config.disks) {
    const paths = [source.path, mirror?.path ?? null, ...backing.map((layer) => layer.path)];
    if (!running && source.path !== null) {
      const layers = await chainOf({ path: source.path, format: source.format ?? '' });
      if (layers.some((layer) => isSameFile(layer, file))) return domain.name;
    }
    for (const path of paths) {
      const other = path === null ? undefined : await fileAt(path).catch(() => undefined);
      if (other !== undefined && isSameFile(other, file)) return domain.name;
    }
  }
  return null;
}

/** Wherever it leads: other VMs' images need not lie under our roots. One that cannot be read cannot be started from. */
async function chainOf({ path, format }: { path: string; format: string }): Promise<FileId[]> {
  try {
    return (await readChain({ path, format: knownFormat(format, path) }, ['/'])).map((layer) => layer.file);
  } catch (error) {
    if (error instanceof AgentError) return [];
    throw error;
  }
}
