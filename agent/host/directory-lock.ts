import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { currentBootId, identityOf, isAlive, type ProcessIdentity } from './identity.js';

/** Another daemon works with the same records or sockets; each would take back what the other begins. */
export class DirectoryInUseError extends Error {
  constructor(directory: string, pid: number) {
    super(`another vmdiskd (pid ${pid}) works with ${directory}; stop that one first: a host has one.`);
    this.name = 'DirectoryInUseError';
  }
}

/** How often a lock that its holder has left is taken over before it is given up: each time another was faster. */
const ATTEMPTS = 10;

/**
 * Makes this process the only one that works with a directory (of records, of sockets), until the returned function is
 * called or it dies: to be done before a record is read. The lock is a file that names its holder, so that one left by
 * a crash or a reboot is seen to be left (Node has no flock).
 * @throws DirectoryInUseError
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const path = join(directory, 'lock.json');
  const own = await identityOf(process.pid);
  if (own === undefined) throw new Error(`no process ${process.pid} in boot ${await currentBootId()}`);
  // Linked into place whole: nobody ever reads half a lock of one who lives.
  const whole = `${path}.of-${process.pid}`;
  await writeFile(whole, `${JSON.stringify(own)}\n`, { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (await linkedTo(path, whole)) {
        await removeLeft(directory);
        return () => rm(path, { force: true });
      }
      const holder = await readHolder(path);
      if (holder !== undefined && (await isAlive(holder)))
        throw new DirectoryInUseError(directory, holder.pid);
      await takeAway(path, directory);
    }
    throw new Error(`${path} could not be taken over in ${ATTEMPTS} attempts`);
  } finally {
    await rm(whole, { force: true });
  }
}

/** Removes what starts that were killed have left beside the lock. A process that lives sees to its own. */
async function removeLeft(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const pid = /^lock\.json\.(?:of|left)-(\d+)$/.exec(name)?.[1];
    if (pid === undefined) continue;
    // One that is just being written names nobody yet.
    const named = await readHolder(join(directory, name));
    const lives = named === undefined ? (await identityOf(Number(pid))) !== undefined : await isAlive(named);
    if (!lives) await rm(join(directory, name), { force: true });
  }
}

async function linkedTo(path: string, whole: string): Promise<boolean> {
  try {
    await link(whole, path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves a left lock out of the way; one that somebody took over in between is put back. */
async function takeAway(path: string, directory: string): Promise<void> {
  const aside = `${path}.left-${process.pid}`;
  try {
    await rename(path, aside);
  } catch {
    return; // another start was faster; the next attempt meets its lock
  }
  const moved = await readHolder(aside);
  if (moved !== undefined && (await isAlive(moved))) {
    await rename(aside, path);
    throw new DirectoryInUseError(directory, moved.pid);
  }
  await rm(aside, { force: true });
}

/** Who a lock names; undefined where it is gone or was cut short by a power cut. */
async function readHolder(path: string): Promise<ProcessIdentity | undefined> {
  try {
    const { pid, startTime, bootId } = JSON.parse(await readFile(path, 'utf8')) as Partial<ProcessIdentity>;
    if (typeof pid !== 'number' || typeof startTime !== 'number' || typeof bootId !== 'string')
      return undefined;
    return { pid, startTime, bootId };
  } catch {
    return undefined;
  }
}
