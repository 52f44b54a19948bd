import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** An account of a private host. */
export interface Account {
  uid: number;
  /** Primary group. */
  gid: number;
}

/**
 * The accounts that libvirt and our own packages make at their installation. The machine need not have them: set-up
 * leaves libvirt-daemon-system, which makes libvirt's, out. The ids are Debian's where Debian fixes them.
 */
const GROUPS: ReadonlyArray<readonly [name: string, gid: number, members: string]> = [
  ['kvm', 64985, ''],
  ['libvirt', 64986, ''],
  ['libvirt-qemu', 64055, 'libvirt-qemu'],
  ['vmdiskd', 64987, ''],
  ['vmdiskd-nbd', 64988, ''],
];

/** Writes the host's own /etc/passwd and /etc/group: the machine's, and what is missing in them. */
export function writeAccounts(dir: string): void {
  let group = machineFile('group');
  for (const [name, gid, members] of GROUPS) {
    if (row(group, name) === undefined) group += `${name}:x:${gid}:${members}\n`;
  }
  let passwd = machineFile('passwd');
  const kvm = row(group, 'kvm')?.[2];
  if (row(passwd, 'libvirt-qemu') === undefined) {
    passwd += `libvirt-qemu:x:64055:${kvm}::/var/lib/libvirt:/usr/sbin/nologin\n`;
  }
  if (row(passwd, 'vmdiskd') === undefined) {
    passwd += `vmdiskd:x:64987:${row(group, 'vmdiskd')?.[2]}::/var/lib/vmdiskd:/usr/sbin/nologin\n`;
  }
  if (row(passwd, 'vmdiskd-nbd') === undefined) {
    passwd += `vmdiskd-nbd:x:64988:${row(group, 'vmdiskd-nbd')?.[2]}::/nonexistent:/usr/sbin/nologin\n`;
  }
  writeFileSync(join(dir, 'etc/passwd'), passwd);
  writeFileSync(join(dir, 'etc/group'), group);
}

/** An account inside the host over this directory. */
export function account(dir: string, name: string): Account {
  const found = row(readFileSync(join(dir, 'etc/passwd'), 'utf8'), name);
  if (found === undefined) throw new Error(`The private host has no account ${name}`);
  return { uid: Number(found[2]), gid: Number(found[3]) };
}

/** The id of a group inside the host over this directory. */
export function groupId(dir: string, name: string): number {
  const found = row(readFileSync(join(dir, 'etc/group'), 'utf8'), name);
  if (found === undefined) throw new Error(`The private host has no group ${name}`);
  return Number(found[2]);
}

function machineFile(name: string): string {
  return readFileSync(join('/etc', name), 'utf8').replace(/\n*$/, '\n');
}

function row(file: string, name: string): string[] | undefined {
  return file
    .split('\n')
    .find((line) => line.startsWith(`${name}:`))
    ?.split(':');
}
