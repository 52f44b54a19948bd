import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { account, groupId } from './accounts.js';
import { type GuestResult, GuestShell } from './guest-shell.js';
import { domainXml, type GuestOptions } from './guest-xml.js';
import type { Host } from './host.js';
import { poll } from './poll.js';

export type { GuestDisk, GuestOptions } from './guest-xml.js';

const BOOT_DEADLINE_MS = 120_000;
const COMMAND_DEADLINE_MS = 60_000;
const SHUTDOWN_DEADLINE_MS = 60_000;

/** Boots a guest and returns when its shell answers. Call through `Host.startGuest`. */
export async function bootGuest(host: Host, bootDir: string, options: GuestOptions): Promise<Guest> {
  const guest = new Guest(host, options.name, `/run/guests/${options.name}`);
  const inside = guest.directory;
  mkdirSync(host.path(inside), { recursive: true });
  // QEMU makes the shell's socket in it, as its own user.
  chownSync(host.path(inside), account(host.dir, 'libvirt-qemu').uid, groupId(host.dir, 'libvirt-qemu'));
  chmodSync(host.path(inside), 0o755);
  const xml = domainXml(options, {
    bootDir,
    consoleFile: `${inside}/console.log`,
    shellSocket: `${inside}/shell.sock`,
  });
  const file = `${inside}/domain.xml`;
  writeFileSync(host.path(file), xml);
  if (options.define === false) await host.virsh('create', file);
  else {
    await host.virsh('define', file);
    await host.virsh('start', options.name);
  }
  await guest.attach(options.bootMs ?? BOOT_DEADLINE_MS);
  return guest;
}

/** A guest and the commands in it. */
export class Guest {
  readonly name: string;
  /** Inside directory of its console log and shell socket. */
  readonly directory: string;
  readonly #host: Host;
  #shell: GuestShell | undefined;

  /** Use `Host.startGuest`. */
  constructor(host: Host, name: string, directory: string) {
    this.#host = host;
    this.name = name;
    this.directory = directory;
  }

  /** Connects to the shell of a guest that was just started and waits until it answers. */
  async attach(timeoutMs = BOOT_DEADLINE_MS): Promise<void> {
    this.#shell?.close();
    this.#shell = await GuestShell.connect(this.#host.path(`${this.directory}/shell.sock`));
    await this.try('true', { timeoutMs }).catch((error: Error) => {
      throw new Error(`${this.name} did not boot: ${error.message}\n${this.consoleLog()}`);
    });
  }

  /** Starts the defined guest again after it was shut down. */
  async start(): Promise<void> {
    await this.#host.virsh('start', this.name);
    await this.attach();
  }

  /** Runs a shell command in the guest; its standard output without the last newline. Throws on a non-zero exit. */
  async sh(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const result = await this.try(command, options);
    if (result.exitCode !== 0) {
      throw new Error(
        `${this.name}: ${command}\nended with ${result.exitCode}: ${result.stderr || result.stdout}`,
      );
    }
    return result.stdout.replace(/\n$/, '');
  }

  /** As `sh`, but a failure is a result. */
  async try(command: string, options: { timeoutMs?: number } = {}): Promise<GuestResult> {
    if (this.#shell === undefined) throw new Error(`${this.name} is not running`);
    return this.#shell.run(command, options.timeoutMs ?? COMMAND_DEADLINE_MS);
  }

  /** SHA-256 of a device or file in the guest, in hex. */
  async sha256(path: string, options: { timeoutMs?: number } = {}): Promise<string> {
    return (await this.sh(`sha256sum ${path}`, options)).slice(0, 64);
  }

  /** What the kernel and init have said. */
  consoleLog(): string {
    const file = this.#host.path(`${this.directory}/console.log`);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** The live domain XML. */
  async xml(): Promise<string> {
    return this.#host.virsh('dumpxml', this.name);
  }

  /** The guest powers itself off with its disks written; returns when libvirt says that it is off. */
  async shutdown(): Promise<void> {
    await this.sh('sync');
    // On a busy machine the guest may be gone before its answer is through; what counts is asked of libvirt.
    await this.try('(sleep 0.2; poweroff -f) >/dev/null 2>&1 &').catch(() => undefined);
    await poll(`${this.name} to power off`, SHUTDOWN_DEADLINE_MS, async () => !(await this.running()));
    this.#shell?.close();
  }

  /** Pulls the plug. */
  async destroy(): Promise<void> {
    await this.#host.virsh('destroy', this.name);
    this.#shell?.close();
  }

  async running(): Promise<boolean> {
    return (await this.#host.virsh('list', '--name')).split('\n').includes(this.name);
  }
}
