import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { Readable } from 'node:stream';
import { execa } from 'execa';
import { account } from './accounts.js';
import { type DaemonConfig, type DaemonHandle, launchDaemon } from './daemon.js';
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

const RUN_DEADLINE_MS = 60_000;
const LIBVIRT_DEADLINE_MS = 60_000;
/** The same for every command inside, whatever runner or shell the tests were started from. */
const ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
};

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

export interface RunOptions {
  /** Written to the command's standard input, which is otherwise empty. */
  input?: string | Buffer;
  /** After this the command is killed, inside too, and the result has `timedOut` (default 60 s). */
  timeoutMs?: number;
  /** Local account to run as (default root), with its groups. */
  user?: string;
  env?: Record<string, string>;
}

/** What a command did. A failure is a result, not an exception: tests look at both. */
export interface RunResult {
  stdout: string;
  stderr: string;
  /** Undefined when it was killed. */
  exitCode: number | undefined;
  signal: string | undefined;
  timedOut: boolean;
}

/** A long-lived process inside. */
export interface Spawned {
  /** Its pid inside the host. */
  readonly pid: number;
  /** Everything that it has written so far, both streams in order of arrival. */
  output(): string;
  /** Settles when it has ended; never rejects. */
  readonly exited: Promise<RunResult>;
  /** Sends a signal to the process itself. False when it is gone. */
  kill(signal?: NodeJS.Signals): Promise<boolean>;
}

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

  /** Ends everything and removes the directory. Idempotent; runs by itself at teardown. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.powerOff();
    if (process.env.VMDISKD_TEST_KEEP === undefined) removeHostDirectory(this.dir);
  }

  /** The command line that runs a command inside, in this process's working directory. */
  #inside(command: string, args: readonly string[], user?: string): [string, string[]] {
    if (this.#namespace === undefined) throw new Error('The private host is not running');
    const [nsenter = 'nsenter', ...enter] = this.#namespace.enter;
    // nsenter waits for its child but passes no signal on: with --pdeathsig, killing nsenter kills the child.
    // It comes last because a change of user clears it.
    const as =
      user === undefined
        ? []
        : ['setpriv', `--reuid=${user}`, `--regid=${account(this.dir, user).gid}`, '--init-groups', '--'];
    const die = [
      'setpriv',
      '--pdeathsig=KILL',
      '--',
      'sh',
      '-c',
      'cd "$0" 2>/dev/null || cd /; exec "$@"',
      process.cwd(),
    ];
    return [nsenter, [...enter, ...as, ...die, command, ...args]];
  }

  /** Runs a command inside and waits for its end. */
  async run(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult> {
    const [file, full] = this.#inside(command, args, options.user);
    return toResult(
      await execa(file, full, {
        reject: false,
        input: options.input ?? '',
        timeout: options.timeoutMs ?? RUN_DEADLINE_MS,
        killSignal: 'SIGKILL',
        maxBuffer: 256 * 1024 * 1024,
        extendEnv: false,
        env: { ...ENVIRONMENT, ...options.env },
      }),
    );
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

  /** Starts a long-lived process inside and returns when its pid is known. */
  async spawn(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Spawned> {
    // The shell tells its pid on descriptor 3 and then becomes the command.
    const [file, full] = this.#inside(
      'sh',
      ['-c', 'echo $$ >&3; exec 3>&-; exec "$@"', 'sh', command, ...args],
      options.user,
    );
    let output = '';
    const child = execa(file, full, {
      reject: false,
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe'],
      ...(options.input === undefined ? {} : { input: options.input }),
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs }),
      killSignal: 'SIGKILL',
      extendEnv: false,
      env: { ...ENVIRONMENT, ...options.env },
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const exited = child.then(toResult);
    const pid = await firstLine(child.stdio[3], exited);
    return {
      pid,
      output: () => output,
      exited,
      kill: async (signal = 'SIGTERM') =>
        (await this.run('kill', [`-${signal.replace('SIG', '')}`, String(pid)])).exitCode === 0,
    };
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
    await this.must('kill', [`-${signal.replace('SIG', '')}`, pid]);
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') return;
    await poll(`${name} to end`, LIBVIRT_DEADLINE_MS, async () =>
      (await this.processes()).every((process) => process.pid !== Number(pid) || process.state === 'Z'),
    );
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
  async startDaemon(config: DaemonConfig = {}): Promise<DaemonHandle> {
    this.#daemons += 1;
    return launchDaemon(this, `${this.dir}/vmdiskd-${this.#daemons}.toml`, config);
  }

  /** What should not be there once every export is torn down, in plain words. Empty is clean. */
  async leftovers(): Promise<string[]> {
    const found: string[] = [];
    for (const process of await this.processes()) {
      if (/^(qemu-nbd|qemu-storage-da|nbdkit|nbdfuse)/.test(process.comm)) {
        found.push(`process ${process.pid} ${process.args.join(' ')}`);
      }
    }
    const exports = this.path('/run/vmdiskd/exports');
    if (existsSync(exports)) {
      for (const name of readdirSync(exports, { recursive: true }))
        found.push(`/run/vmdiskd/exports/${name}`);
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

function toResult(result: {
  stdout?: unknown;
  stderr?: unknown;
  exitCode?: number | undefined;
  signal?: string | undefined;
  timedOut: boolean;
}): RunResult {
  return {
    stdout: String(result.stdout ?? ''),
    stderr: String(result.stderr ?? ''),
    exitCode: result.exitCode,
    signal: result.signal,
    timedOut: result.timedOut,
  };
}

/** The pid that a started process tells on descriptor 3; its words when it could not be started. */
async function firstLine(pipe: unknown, exited: Promise<RunResult>): Promise<number> {
  if (!(pipe instanceof Readable)) throw new Error('No descriptor 3');
  const line = new Promise<string>((resolve) => {
    pipe.once('data', (data: Buffer) => resolve(data.toString()));
  });
  const first = await Promise.race([line, exited]);
  if (typeof first !== 'string') throw new Error(`Could not be started: ${first.stderr}`);
  return Number(first);
}
