/** Guests in the booted Debian: the kernel and initramfs of test/host, under the libvirt of that Debian. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { guestImage } from '../host/guest-image.js';
import { GuestShell } from '../host/guest-shell.js';
import { domainXml, type GuestOptions } from '../host/guest-xml.js';
import { poll } from '../host/poll.js';
import type { Machine } from './machine.js';

const BOOT_DEADLINE_MS = 180_000;
const COMMAND_DEADLINE_MS = 120_000;
/** Inside: where kernel and initramfs are. */
const BOOT_DIR = '/srv/guest';
/** Inside: where each guest's shell and console are. QEMU's account makes them, and AppArmor knows no other place. */
const RUN_DIR = '/run/guests';

export async function bringGuestImage(machine: Machine): Promise<void> {
  const { kernel, initramfs } = await guestImage();
  machine.put(kernel, `${BOOT_DIR}/vmlinuz`);
  machine.put(initramfs, `${BOOT_DIR}/initramfs.cpio`);
}

export interface SystemGuest {
  /** Runs a shell command in the guest. @returns its standard output @throws Error on a non-zero exit */
  sh(command: string): Promise<string>;
  sha256(path: string): Promise<string>;
  close(): void;
}

/** Defines and starts it; returns when its shell answers. */
export async function startGuest(machine: Machine, options: GuestOptions): Promise<SystemGuest> {
  const dir = `${RUN_DIR}/${options.name}`;
  mkdirSync(machine.path(dir), { recursive: true });
  await machine.must(['chown', 'libvirt-qemu:', dir]);
  chmodSync(machine.path(dir), 0o755);
  const shellSocket = `${dir}/shell.sock`;
  const xml = domainXml(options, { bootDir: BOOT_DIR, consoleFile: `${dir}/console.log`, shellSocket });
  writeFileSync(machine.path(`${dir}/domain.xml`), xml);
  await machine.must(['virsh', 'define', `${dir}/domain.xml`]);
  await machine.must(['virsh', 'start', options.name]);
  const shell = await GuestShell.connect(machine.path(shellSocket));
  const sh = async (command: string, timeoutMs = COMMAND_DEADLINE_MS): Promise<string> => {
    const { exitCode, stdout, stderr } = await shell.run(command, timeoutMs);
    if (exitCode === 0) return stdout.replace(/\n$/, '');
    throw new Error(`${options.name}: ${command}\nended with ${exitCode}: ${stderr || stdout}`);
  };
  await sh('true', BOOT_DEADLINE_MS);
  return {
    sh,
    sha256: async (path) => (await sh(`sha256sum ${path}`)).slice(0, 64),
    close: () => shell.close(),
  };
}

/** Pulls the plugs of all guests, and has libvirt forget them and their checkpoints. */
export async function forgetGuests(machine: Machine, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await machine.run(['virsh', 'destroy', name]);
    await machine.must(['virsh', 'undefine', '--checkpoints-metadata', '--snapshots-metadata', name]);
  }
  await poll('QEMU to end', 20_000, async () => (await machine.run(['pgrep', 'qemu-system'])).exitCode !== 0);
}
