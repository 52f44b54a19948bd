import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeAccounts } from './accounts.js';

/**
 * Writes a host's own /etc: libvirt's configuration, accounts and machine id. Nothing comes from the machine's
 * /etc/libvirt: a test must not depend on what an administrator has set there. What is not said here is Debian's
 * default, as compiled in.
 */
export function writeConfiguration(dir: string): void {
  const etc = join(dir, 'etc');
  mkdirSync(join(etc, 'libvirt'), { recursive: true });
  const write = (file: string, lines: readonly string[]): void => {
    writeFileSync(join(etc, file), `${lines.join('\n')}\n`);
  };
  write('libvirt/qemu.conf', [
    '# QEMU has an account of its own, as in the package.',
    'user = "libvirt-qemu"',
    'group = "libvirt-qemu"',
    '# No virtlogd in here.',
    'stdio_handler = "file"',
    "# AppArmor's profiles live in the machine's kernel, not in a namespace; ownership (DAC) is still managed.",
    'security_driver = "none"',
    "# The cgroup tree is the machine's.",
    'cgroup_controllers = []',
  ]);
  const daemon = [
    '# Two private hosts on one machine are two hosts.',
    `host_uuid = "${randomUUID()}"`,
    "# No polkit in here: the socket's mode and group decide.",
    'auth_unix_rw = "none"',
    'unix_sock_group = "libvirt"',
    'unix_sock_rw_perms = "0770"',
    'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"',
  ];
  write('libvirt/libvirtd.conf', daemon);
  write('libvirt/virtqemud.conf', daemon);
  write('machine-id', [randomUUID().replaceAll('-', '')]);
  writeAccounts(dir);
}
