import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type RunOptions, type RunResult, type Spawned, startCommand } from './commands.js';
import {
  type DaemonConfig,
  type DaemonHandle,
  type GatewayHandle,
  type LaunchOptions,
  launchDaemon,
  launchGateway,
} from './daemon.js';
import {
  emptyRunDirectory,
  makeHostDirectory,
  outsidePath,
  removeHostDirectory,
  sweepStaleDirectories,
} from './directories.js';
import { bootGuest, type Guest, type GuestOptions } from './guest.js';
import { guestImage } from './guest-image.js';
import { type Namespace, openNamespace } from './namespace.js';
import { poll } from './poll.js';
import { Secrets } from './secrets.js';

const RUN_DEADLINE_MS = 60_000;
const LIBVIRT_DEADLINE_MS = 60_000;

export type { RunOptions, RunResult, Spawned } from './commands.js';

/** The part of a tap test that a host needs. */
export interface Teardown {
  teardown(fn: () => unknown): unknown;
}

export interface HostOptions {
  /** Which daemon serves libvirt's QEMU driver (default `libvirtd`); `none` starts without one. */
  libvirt?: LibvirtDaemon | 'none';
}
/** The monolithic daemon, or the modular one where the distribution has it. */
export type LibvirtDaemon = 'libvirtd' | 'virtqemud';

export interface HostProcess {
  /** Inside the host. */
  pid: number;
  ppid: number;
  /** One letter of proc(5): `Z` is a zombie. */
  state: string;
  uid: number;
  /** At most 15 bytes. */
  comm: string;
  args: string[];
}

export interface ImageOptions {
  /** File name under /var/lib/libvirt/images. */
  name: string;
  format: 'raw' | 'qcow2';
  /** Bytes; may be left out with a backing image. */
  size?: number;
  backing?: { path: string; format: string };
  /** Further `-o` options of qemu-img create. */
  options?: string[];
}

/**
 * Starts a private virtualization host: a libvirtd, its QEMU and our daemon in namespaces of their own, over a
 * directory of their own. Nothing of it touches the machine's libvirt, and nothing of it can outlive this process,
 * not even after kill -9. It is stopped by the test's teardown. Needs root.
 */
export async function startHost(t: Teardown, options: HostOptions = {}): Promise<Host> {
  sweepStaleDirectories();
  const host = new Host(makeHostDirectory(), options.libvirt ?? 'libvirtd');
  t.teardown(() => host.stop());
  await host.boot();
  return host;
}

export class Host {
  /** The host's own directory, outside; the same path leads to it from inside. */
  readonly dir: string;
  readonly #libvirt: LibvirtDaemon | 'none';
  #namespace: Namespace | undefined;
  #stopped = false;
  #daemons = 0;
  /** The keys that its daemons gave out; `stop` looks where else they are. */
  readonly secrets = new Secrets();
  readonly #outputs = new Map<string, () => string>();

  /** Use `startHost`. */
  constructor(dir: string, libvirt: LibvirtDaemon | 'none') {
    this.dir = dir;
    this.#libvirt = libvirt;
  }

  /** Pid 1 of the host, as the outside sees it. */
  get pid(): number {
    if (this.#namespace === undefined) throw new Error('The private host is not running');
    return this.#namespace.pid;
  }

  /** The outside path of an inside path. */
  path(inside: string): string {
    return outsidePath(this.dir, inside);
  }

  /** Outside path of libvirt's read-write socket, short enough for a UNIX address. */
  get libvirtSocket(): string {
    return this.path(`/run/libvirt/${this.#libvirt === 'virtqemud' ? 'virtqemud' : 'libvirt'}-sock`);
  }

  /** Outside path of the socket of the daemon under test. */
  get daemonSocket(): string {
    return this.path('/run/vmdiskd/vmdiskd.sock');
  }

  /** First half of `reboot`: everything inside dies at once, as in a power failure. Files stay. */
  async powerOff(): Promise<void> {
    const namespace = this.#namespace;
    this.#namespace = undefined;
    await namespace?.close();
  }

  /** Second half of `reboot`: an empty /run, new namespaces, libvirt started. */
  async boot(): Promise<void> {
    if (this.#namespace !== undefined) throw new Error('The private host is running');
    emptyRunDirectory(this.dir);
    this.#namespace = await openNamespace(this.dir);
    if (this.#libvirt !== 'none') await this.startLibvirtd();
  }

  /** Power failure and boot: the run directory is empty, the persistent directories are as they were. */
  async reboot(): Promise<void> {
    await this.powerOff();
    await this.boot();
  }

  /**
   * Ends everything and removes the directory. Idempotent; runs by itself at teardown.
   * @throws Error where a key that a daemon gave out is in a log, in another answer or in a file that others can read
   */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.powerOff();
    const outputs = new Map([...this.#outputs].map(([name, output]) => [name, output()]));
    const leaks = this.secrets.leaks(this.dir, outputs);
    if (process.env.VMDISKD_TEST_KEEP === undefined) removeHostDirectory(this.dir);
    if (leaks.length > 0) throw new Error(`A key has got out: ${leaks.join('; ')}`);
  }

  /** A program under test, whose output no key may be in. */
  wrote(name: string, output: () => string): void {
    this.#outputs.set(`${name} ${this.#outputs.size + 1}`, output);
  }

  /** Runs a command inside and waits for its end; by default it gets 60 s. */
  async run(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult> {
    const started = await this.spawn(command, args, { timeoutMs: RUN_DEADLINE_MS, ...options });
    return started.exited;
  }

  /** As `run`, but a failure throws with the command's words; returns its standard output. */
  async must(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<string> {
    const result = await this.run(command, args, options);
    if (result.exitCode !== 0) {
      const how = result.timedOut ? 'timed out' : `ended with ${result.signal ?? result.exitCode}`;
      throw new Error(`${command} ${args.join(' ')} ${how}: ${result.stderr || result.stdout}`);
    }
    return result.stdout;
  }

  /** Starts a process inside, by default without a deadline, and returns when its pid is known. */
  async spawn(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Spawned> {
    if (this.#namespace === undefined) throw new Error('The private host is not running');
    return startCommand({ enter: this.#namespace.enter, dir: this.dir }, command, args, options);
  }

  /** virsh on the host's libvirt; throws with its words when it fails. */
  async virsh(...args: string[]): Promise<string> {
    return this.must('virsh', ['--connect', 'qemu:///system', '--quiet', ...args], { timeoutMs: 120_000 });
  }

  /** Everything that runs inside, pid 1 and the asker left out. */
  async processes(): Promise<HostProcess[]> {
    if (this.#namespace === undefined) return [];
    const proc = `/proc/${this.#namespace.pid}/root/proc`;
    const found: HostProcess[] = [];
    for (const name of readdirSync(proc)) {
      if (!/^\d+$/.test(name) || name === '1') continue;
      try {
        const stat = readFileSync(`${proc}/${name}/stat`, 'utf8');
        const end = stat.lastIndexOf(')');
        const fields = stat.slice(end + 2).split(' ');
        const uid = /^Uid:\t(\d+)/m.exec(readFileSync(`${proc}/${name}/status`, 'utf8'))?.[1];
        found.push({
          pid: Number(name),
          ppid: Number(fields[1]),
          state: fields[0] ?? '?',
          uid: Number(uid),
          comm: stat.slice(stat.indexOf('(') + 1, end),
          args: readFileSync(`${proc}/${name}/cmdline`, 'utf8').split('\0').slice(0, -1),
        });
      } catch {
        // It ended while we looked.
      }
    }
    return found;
  }

  /** Starts libvirt's daemon and returns when it answers. */
  async startLibvirtd(): Promise<void> {
    const name = this.#libvirt === 'none' ? 'libvirtd' : this.#libvirt;
    await this.must(name, ['--daemon', '--pid-file', `/run/${name}.pid`], { timeoutMs: LIBVIRT_DEADLINE_MS });
    await poll(`${name} to answer`, LIBVIRT_DEADLINE_MS, async () => {
      const { exitCode } = await this.run('virsh', ['--connect', 'qemu:///system', 'uri']);
      return exitCode === 0;
    });
  }

  /** Signals libvirt's daemon (QEMU processes stay) and returns when it is gone. */
  async killLibvirtd(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const name = this.#libvirt === 'none' ? 'libvirtd' : this.#libvirt;
    const pid = readFileSync(this.path(`/run/${name}.pid`), 'utf8').trim();
    await this.must('sh', ['-c', 'kill -s "$0" "$1"', signal.replace('SIG', ''), pid]);
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') return;
    await poll(`${name} to end`, LIBVIRT_DEADLINE_MS, async () =>
      (await this.processes()).every((process) => process.pid !== Number(pid)),
    );
  }

  /** Starts libvirt's daemon if it is gone, as systemd does with one that has crashed. */
  async reviveLibvirtd(): Promise<void> {
    const name = this.#libvirt === 'none' ? 'libvirtd' : this.#libvirt;
    const pid = Number(readFileSync(this.path(`/run/${name}.pid`), 'utf8'));
    if ((await this.processes()).some((process) => process.pid === pid)) return;
    await this.startLibvirtd();
  }

  /** Makes an image under /var/lib/libvirt/images; returns its inside path. */
  async createImage(options: ImageOptions): Promise<string> {
    const path = `/var/lib/libvirt/images/${options.name}`;
    const args = ['create', '-q', '-f', options.format];
    if (options.backing !== undefined) args.push('-b', options.backing.path, '-F', options.backing.format);
    if (options.options?.length) args.push('-o', options.options.join(','));
    args.push(path);
    if (options.size !== undefined) args.push(String(options.size));
    await this.must('qemu-img', args);
    return path;
  }

  /** Boots a small Linux guest and returns when its shell answers. See `GuestOptions`. */
  async startGuest(options: GuestOptions): Promise<Guest> {
    const image = await guestImage();
    // Copied, because libvirt changes the owner of a kernel that it boots, and QEMU must be able to reach it.
    for (const file of [image.kernel, image.initramfs]) {
      const copy = `${this.dir}/guest/${basename(file)}`;
      if (!existsSync(copy)) copyFileSync(file, copy);
    }
    return bootGuest(this, `${this.dir}/guest`, options);
  }

  /** Runs the built daemon inside with these settings over the defaults; returns when its socket answers. */
  async startDaemon(config: DaemonConfig = {}, options: LaunchOptions = {}): Promise<DaemonHandle> {
    this.#daemons += 1;
    return launchDaemon(this, `${this.dir}/vmdiskd-${this.#daemons}.toml`, config, options);
  }

  /** Runs the built gateway inside with these settings over the defaults; returns when it listens. */
  async startGateway(config: DaemonConfig): Promise<GatewayHandle> {
    this.#daemons += 1;
    return launchGateway(this, `${this.dir}/gateway-${this.#daemons}.toml`, config);
  }

  /** What should not be there once every export is torn down, in plain words. Empty is clean. */
  async leftovers(): Promise<string[]> {
    const found: string[] = [];
    for (const process of await this.processes()) {
      if (process.args.some((arg) => arg === '--help' || arg === '--version')) continue; // the daemon asks what it can do
      if (/^(qemu-nbd|qemu-storage-da|nbdkit|nbdfuse)/.test(process.comm)) {
        found.push(`process ${process.pid} ${process.args.join(' ')}`);
      }
    }
    for (const directory of ['/run/vmdiskd/exports', '/run/vmdiskd/gateway/exports']) {
      if (!existsSync(this.path(directory))) continue;
      for (const name of readdirSync(this.path(directory), { recursive: true }))
        found.push(`${directory}/${name}`);
    }
    if (this.#namespace !== undefined) {
      const mounts = readFileSync(`/proc/${this.#namespace.pid}/mounts`, 'utf8');
      for (const line of mounts.split('\n')) {
        const at = line.split(' ')[1];
        if (at !== undefined && /^(\/run\/|\/var\/lib\/vmdiskd\/)/.test(at)) found.push(`mount ${at}`);
      }
    }
    return found;
  }

  /** Names of the domains that libvirt knows, running or not. */
  async domains(): Promise<string[]> {
    return (await this.virsh('list', '--all', '--name')).split('\n').filter((name) => name !== '');
  }
}
