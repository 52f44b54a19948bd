/** From a tree to a .deb: what it needs, its scripts, and dpkg-deb. */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';

/** Node as Debian 13 has it. The tools are those of agent/host/process-tool.ts, beside what every Debian has. */
const DEPENDS = [
  'nodejs (>= 20)',
  'qemu-utils (>= 1:7.2)',
  'libvirt-daemon-system (>= 9.0)',
  'systemd (>= 252)',
  // By which systemd-run(1) waits for what it has started.
  'default-dbus-system-bus | dbus-system-bus',
  'init-system-helpers (>= 1.54)',
  'util-linux',
];
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/** @returns the file @throws Error with dpkg-deb's words */
export async function buildDeb(root: string, tree: string, version: string, out: string): Promise<string> {
  const files = filesOf(tree);
  const control = join(tree, 'DEBIAN');
  mkdirSync(control);
  const size = files.reduce((sum, file) => sum + lstatSync(join(tree, file)).size, 0);
  const fields = {
    Package: 'vmdiskd',
    Version: version,
    Architecture: 'all',
    Maintainer: 'The vmdiskd authors <vmdiskd@localhost>',
    'Installed-Size': String(Math.ceil(size / 1024)),
    Depends: DEPENDS.join(', '),
    Suggests: 'qemu-system-common, libnbd-bin, apparmor',
    Section: 'admin',
    Priority: 'optional',
    Description: [
      "access to VMs' disks at a point in time, over NBD",
      ' vmdiskd is a host agent for backup, scan and restore tools: it exports the disk',
      ' of a VM, running or not, says which blocks have changed, and plugs the drive',
      " into an appliance's VM. This package has the daemon, its TLS gateway, and",
      ' vmdiskctl, the tool of the operator.',
    ].join('\n'),
  };
  const text = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  writeFileSync(join(control, 'control'), text.join(''));
  const conffiles = files.filter((file) => file.startsWith('etc/'));
  writeFileSync(join(control, 'conffiles'), conffiles.map((file) => `/${file}\n`).join(''));
  const sums = files
    .filter((file) => !file.startsWith('etc/') && lstatSync(join(tree, file)).isFile())
    .map(
      (file) =>
        `${createHash('md5')
          .update(readFileSync(join(tree, file)))
          .digest('hex')}  ${file}\n`,
    );
  writeFileSync(join(control, 'md5sums'), sums.join(''));
  for (const script of SCRIPTS) {
    writeFileSync(join(control, script), readFileSync(join(root, 'systemd/debian', script)));
    chmodSync(join(control, script), 0o755);
  }
  await settle(root, tree);
  const file = join(out, `vmdiskd_${version}_all.deb`);
  await execa('dpkg-deb', ['--build', '--root-owner-group', '-Zxz', tree, file], { timeout: 120_000 });
  return file;
}

/** Files and links below a directory, in order; directories are not listed. */
function filesOf(tree: string, below = ''): string[] {
  return readdirSync(join(tree, below), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      return entry.isDirectory() ? filesOf(tree, path) : [path];
    });
}

/** The same sources make the same package: every time is that of the last commit, every directory open to all. */
async function settle(root: string, tree: string): Promise<void> {
  const epoch = process.env.SOURCE_DATE_EPOCH ?? (await commitTime(root));
  const time = Number(epoch);
  process.env.SOURCE_DATE_EPOCH = epoch;
  const walk = (path: string): void => {
    const stat = lstatSync(path);
    if (stat.isSymbolicLink()) return; // dpkg-deb clamps its time
    if (stat.isDirectory()) {
      chmodSync(path, 0o755);
      for (const name of readdirSync(path)) walk(join(path, name));
    }
    utimesSync(path, time, time);
  };
  walk(tree);
}

/** Of sources that are no checkout: the epoch. */
async function commitTime(root: string): Promise<string> {
  const { stdout, exitCode } = await execa('git', ['log', '-1', '--format=%ct'], {
    cwd: root,
    reject: false,
  });
  return exitCode === 0 && /^\d+$/.test(stdout) ? stdout : '0';
}
