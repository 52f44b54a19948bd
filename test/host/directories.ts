import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { account, groupId } from './accounts.js';
import { writeConfiguration } from './configuration.js';

/**
 * Where the directories of private hosts are made: on disk, not in a tmpfs (which /tmp is on Debian 13), because
 * images want a file system as users have it; short, because UNIX socket paths end at 107 bytes.
 */
export const HOSTS_PARENT = '/var/tmp';
const PREFIX = 'vmd-';
/** An owner file is written right after mkdtemp; a directory without one is debris only when it is older than this. */
const OWNERLESS_GRACE_MS = 600_000;

/** Inside path -> directory under the host's own directory. The longest match wins. */
const MOUNTS: ReadonlyArray<readonly [inside: string, under: string]> = [
  ['/run', 'run'],
  ['/var/run', 'run'],
  ['/var/lib/libvirt', 'var-lib-libvirt'],
  ['/var/lib/vmdiskd', 'var-lib-vmdiskd'],
  ['/var/log/libvirt', 'log'],
  ['/var/cache/libvirt', 'cache'],
  ['/etc/libvirt', 'etc/libvirt'],
];

/** The path outside the namespaces of a path inside them; what a host does not own is the same on both sides. */
export function outsidePath(dir: string, inside: string): string {
  for (const [mountPoint, under] of MOUNTS) {
    if (inside === mountPoint || inside.startsWith(`${mountPoint}/`)) {
      return join(dir, under, inside.slice(mountPoint.length));
    }
  }
  return inside;
}

/** Makes the directory of one private host: everything of it that outlives a reboot, and an empty run directory. */
export function makeHostDirectory(): string {
  const dir = mkdtempSync(join(HOSTS_PARENT, PREFIX));
  writeFileSync(join(dir, 'owner'), `${process.pid} ${startTime(process.pid)}\n`);
  chmodSync(dir, 0o755);
  mkdirSync(join(dir, 'etc'));
  writeConfiguration(dir);
  const qemu = { uid: account(dir, 'libvirt-qemu').uid, gid: groupId(dir, 'libvirt-qemu') };
  const make = (path: string, mode: number, uid = 0, gid = 0): void => {
    mkdirSync(join(dir, path));
    chownSync(join(dir, path), uid, gid);
    chmodSync(join(dir, path), mode);
  };
  make('stage', 0o755);
  // As Debian's packages make them.
  make('var-lib-libvirt', 0o755);
  make('var-lib-libvirt/boot', 0o711);
  make('var-lib-libvirt/images', 0o711);
  make('var-lib-libvirt/qemu', 0o751, qemu.uid, qemu.gid);
  make('var-lib-vmdiskd', 0o755);
  make('log', 0o755);
  make('log/qemu', 0o755);
  make('cache', 0o711);
  make('cache/qemu', 0o711);
  make('guest', 0o755);
  emptyRunDirectory(dir);
  return dir;
}

/** What a boot does to /run. */
export function emptyRunDirectory(dir: string): void {
  const run = join(dir, 'run');
  rmSync(run, { recursive: true, force: true });
  mkdirSync(run, { mode: 0o755 });
  mkdirSync(join(run, 'lock'));
  chmodSync(join(run, 'lock'), 0o1777);
}

/** Removes a host's directory; idempotent. */
export function removeHostDirectory(dir: string): void {
  rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}

/**
 * Removes the directories whose test process is gone (killed before it could tidy up). Their processes and mounts
 * went with the namespace, so that plain files are all that is left. Returns what was removed.
 */
export function sweepStaleDirectories(): string[] {
  const swept: string[] = [];
  for (const name of readdirSync(HOSTS_PARENT)) {
    if (!name.startsWith(PREFIX)) continue;
    const dir = join(HOSTS_PARENT, name);
    try {
      if (!isStale(dir)) continue;
      removeHostDirectory(dir);
      swept.push(dir);
    } catch {
      // Another test process sweeps the same directory, or it is nobody's business of ours.
    }
  }
  return swept;
}

function isStale(dir: string): boolean {
  let owner: string;
  try {
    owner = readFileSync(join(dir, 'owner'), 'utf8');
  } catch {
    return Date.now() - statSync(dir).mtimeMs > OWNERLESS_GRACE_MS;
  }
  const [pid, started] = owner.trim().split(' ');
  return startTime(Number(pid)) !== started;
}

/** Start time of a process in clock ticks since boot (proc(5), stat field 22): with the pid, a unique name. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
