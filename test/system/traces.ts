/** All that a package could leave behind in a Debian, as lines that can be compared. */
import type { Machine } from './machine.js';

/** What changes by itself, or is of programs other than the package and its scripts. */
const NOT_OURS = [
  '/proc',
  '/sys',
  '/dev',
  '/tmp',
  '/root',
  '/srv',
  '/var/cache',
  '/var/log',
  '/var/tmp',
  '/var/lib/dpkg',
  '/var/lib/apt',
  // Guests, their images and libvirt's state.
  '/var/lib/libvirt',
  '/etc/libvirt',
  // Clocks of timers and the like.
  '/var/lib/systemd/timers',
  '/var/lib/systemd/random-seed',
  '/var/lib/systemd/timesync',
  '/var/lib/systemd/catalog',
  '/var/lib/logrotate',
  '/var/lib/private',
  '/run/libvirt',
  '/run/virtlogd.pid',
  '/run/guests',
  '/run/log',
  '/run/udev',
  '/run/systemd',
  '/run/user',
  '/run/lock',
];
/** The files of accounts are compared by what is in them; beside them are backups of shadow's tools. */
const ACCOUNTS = ['passwd', 'group', 'shadow', 'gshadow'];

/** Files, accounts, units, processes: a line each. */
export async function tracesOf(machine: Machine): Promise<string[]> {
  const apart = NOT_OURS.flatMap((path) => ['-path', path, '-prune', '-o']);
  const files = await machine.must(['find', '/', ...apart, '-printf', '%y %p\n'], { timeoutMs: 120_000 });
  const accounts = await machine.sh(ACCOUNTS.map((file) => `sed 's#^#${file} #' /etc/${file}`).join('; '));
  // Made of the configuration by the generator, enabled by hand, or transient; active or failed. Of inactive ones without a
  // file systemd keeps the names for a while.
  const units = await machine.sh(
    `find /run/systemd/system /run/systemd/transient /run/systemd/generator* -name '*vmdiskd*' 2>/dev/null || true
     systemctl list-unit-files --no-legend --plain '*vmdiskd*' || true
     systemctl list-units --no-legend --plain '*vmdiskd*'`,
  );
  const processes = await machine.sh(
    `ps -eo user:32,args | grep -E 'vmdiskd|qemu-nbd|qemu-storage|nbdfuse' | grep -v grep || true`,
  );
  const backups = ACCOUNTS.map((file) => `f /etc/${file}-`);
  return [
    ...files.split('\n').filter((line) => !backups.includes(line)),
    ...accounts.split('\n'),
    ...units.split('\n').map((line) => line && `unit ${line}`),
    ...processes.split('\n').map((line) => line && `process ${line}`),
  ].filter((line) => line !== '');
}

/** Lines of `after` that `before` lacks, and the other way round. */
export function changes(before: readonly string[], after: readonly string[]): string[] {
  const [had, has] = [new Set(before), new Set(after)];
  return [
    ...after.filter((line) => !had.has(line)).map((line) => `+ ${line}`),
    ...before.filter((line) => !has.has(line)).map((line) => `- ${line}`),
  ];
}
