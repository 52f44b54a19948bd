import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

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

/** Ids of libvirt's QEMU account, as Debian's package makes it. */
export function qemuAccount(): { uid: number; gid: number; group: number } {
  const fields = (file: string, name: string): string[] => {
    const line = readFileSync(file, 'utf8')
      .split('\n')
      .find((row) => row.startsWith(`${name}:`));
    if (line === undefined) throw new Error(`${file} has no ${name}: install libvirt-daemon-system`);
    return line.split(':');
  };
  const user = fields('/etc/passwd', 'libvirt-qemu');
  const group = fields('/etc/group', 'libvirt-qemu');
  return { uid: Number(user[2]), gid: Number(user[3]), group: Number(group[2]) };
}

/** Makes the directory of one private host: everything of it that outlives a reboot, and an empty run directory. */
export function makeHostDirectory(): string {
  const dir = mkdtempSync(join(HOSTS_PARENT, PREFIX));
  writeFileSync(join(dir, 'owner'), `${process.pid} ${startTime(process.pid)}\n`);
  chmodSync(dir, 0o755);
  const qemu = qemuAccount();
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
  make('var-lib-libvirt/qemu', 0o751, qemu.uid, qemu.group);
  make('var-lib-vmdiskd', 0o755);
  make('log', 0o755);
  make('log/qemu', 0o755);
  make('cache', 0o711);
  make('cache/qemu', 0o711);
  make('guest', 0o755);
  make('etc', 0o755);
  writeConfiguration(dir);
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

/** The host's own /etc/libvirt (Debian's, with the few settings that a namespace needs), accounts and machine id. */
function writeConfiguration(dir: string): void {
  const etc = join(dir, 'etc');
  cpSync('/etc/libvirt', join(etc, 'libvirt'), { recursive: true, verbatimSymlinks: true });
  rmSync(join(etc, 'libvirt/qemu'), { recursive: true, force: true });
  rmSync(join(etc, 'libvirt/storage'), { recursive: true, force: true });
  mkdirSync(join(etc, 'libvirt/qemu/networks/autostart'), { recursive: true });

  const append = (file: string, lines: readonly string[]): void => {
    const path = join(etc, 'libvirt', file);
    const shipped = existsSync(path) ? readFileSync(path, 'utf8') : '';
    writeFileSync(path, `${shipped}\n# Settings of the private test host.\n${lines.join('\n')}\n`);
  };
  append('qemu.conf', [
    'stdio_handler = "file"', // no virtlogd in here
    'security_driver = "none"', // AppArmor profiles live in the machine's kernel, not in a namespace; DAC stays
    'cgroup_controllers = []', // the cgroup tree is the machine's
  ]);
  const daemon = [
    `host_uuid = "${randomUUID()}"`, // two hosts on one machine are two hosts
    'auth_unix_rw = "none"', // no polkit in here; the socket's mode and group decide
    'unix_sock_group = "libvirt"',
    'unix_sock_rw_perms = "0770"',
    `log_outputs = "3:file:/var/log/libvirt/libvirtd.log"`,
  ];
  append('libvirtd.conf', daemon);
  append('virtqemud.conf', daemon);

  const withAccount = (file: string, row: string): void => {
    const shipped = readFileSync(join('/etc', file), 'utf8').replace(/\n?$/, '\n');
    const known = shipped.split('\n').some((line) => line.startsWith('vmdiskd:'));
    writeFileSync(join(etc, file), known ? shipped : `${shipped}${row}\n`);
  };
  withAccount('passwd', 'vmdiskd:x:64987:64987::/var/lib/vmdiskd:/usr/sbin/nologin');
  withAccount('group', 'vmdiskd:x:64987:');
  writeFileSync(join(etc, 'machine-id'), `${randomUUID().replaceAll('-', '')}\n`);
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
