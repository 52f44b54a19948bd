/** A Debian that systemd-nspawn has booted, over a tree that stays as it is: commands in it, files into it, its end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { closeNamespace } from '../host/namespace.js';
import { poll } from '../host/poll.js';
import { makeDirectory, removeDirectory } from './directories.js';

const SCRIPT = fileURLToPath(new URL('boot.sh', import.meta.url));
const COMMAND_DEADLINE_MS = 60_000;
const BOOT_DEADLINE_MS = 90_000;

export interface Ran {
  stdout: string;
  stderr: string;
  /** 124: it did not end in time. */
  exitCode: number;
}

export class Machine {
  readonly #child: ChildProcess;
  readonly #dir: string;
  readonly #init: number;
  #ending = false;

  private constructor(child: ChildProcess, dir: string, init: number) {
    this.#child = child;
    this.#dir = dir;
    this.#init = init;
  }

  /** Boots it; returns when systemd has started, or has not started, all that is to be there. */
  static async boot(tree: string, onDirectory: (remove: () => void) => void): Promise<Machine> {
    const dir = makeDirectory();
    onDirectory(() => removeDirectory(dir));
    const namespaces = ['--mount', '--propagation=private', '--pid', '--fork', '--kill-child'];
    const child = spawn('unshare', [...namespaces, 'bash', SCRIPT, tree, dir, `vmd-${process.pid}`], {
      stdio: ['pipe', 'pipe', 'pipe'],
      // Detached: a Ctrl-C is for the test process, whose end is the end of this.
      detached: true,
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.stdin.on('error', () => {}); // EPIPE when it is gone already
    const gone = once(child, 'exit').then(() => {
      throw new Error(`The tree did not boot: ${stderr.trim()}`);
    });
    await Promise.race([once(createInterface({ input: child.stdout }), 'line'), gone]);
    gone.catch(() => {});
    try {
      const machine = new Machine(child, dir, await initOf(child));
      await machine.#started();
      return machine;
    } catch (error) {
      await closeNamespace(child);
      const log = join(dir, 'console.log');
      const said = existsSync(log) ? readFileSync(log, 'utf8').slice(-2000) : '';
      throw new Error(`The tree did not boot: ${stderr}${said}`, { cause: error });
    }
  }

  async #started(): Promise<void> {
    // Before its bus is there the question fails at once.
    await poll('the system to start', BOOT_DEADLINE_MS, async () => {
      const { stdout } = await this.run(['systemctl', 'is-system-running', '--wait']);
      return ['running', 'degraded'].includes(stdout);
    });
  }

  /** A file in there, as a path out here. */
  path(inside: string): string {
    this.#assertAlive();
    return `/proc/${this.#init}/root${inside}`;
  }

  /** Its number may be another process's by then, and a step would work there. */
  #assertAlive(): void {
    if (this.#ending || this.#child.exitCode !== null || this.#child.signalCode !== null) {
      throw new Error('the booted system has ended');
    }
  }

  /** Copies a file of this machine into it. */
  put(file: string, inside: string): void {
    mkdirSync(dirname(this.path(inside)), { recursive: true });
    copyFileSync(file, this.path(inside));
  }

  /** Runs a command as root; what it does is the result. */
  async run(command: readonly string[], { timeoutMs = COMMAND_DEADLINE_MS, input = '' } = {}): Promise<Ran> {
    this.#assertAlive();
    const spaces = ['--mount', '--uts', '--ipc', '--net', '--pid', '--root', '--wdns=/'];
    const environment = [
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'LC_ALL=C.UTF-8',
      'DEBIAN_FRONTEND=noninteractive',
    ];
    // The deadline is kept in there: what nsenter has forked would outlive it.
    const limit = ['timeout', '--kill-after=5', String(Math.ceil(timeoutMs / 1000))];
    const { stdout, stderr, exitCode } = await execa(
      'nsenter',
      [`--target=${this.#init}`, ...spaces, 'env', '-i', 'HOME=/root', ...environment, ...limit, ...command],
      { input, reject: false, timeout: timeoutMs + 10_000, maxBuffer: 1 << 26 },
    );
    return { stdout, stderr, exitCode: exitCode ?? 124 };
  }

  /** As `run`. @returns the standard output @throws Error with the command's words where it fails */
  async must(
    command: readonly string[],
    options: { timeoutMs?: number; input?: string } = {},
  ): Promise<string> {
    const { stdout, stderr, exitCode } = await this.run(command, options);
    if (exitCode === 0) return stdout;
    throw new Error(
      `${command.join(' ')}\nended with ${exitCode}: ${`${stderr}\n${stdout}`.trim().slice(-1500)}`,
    );
  }

  /** A script for bash, which ends at the first command that fails. */
  sh(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    return this.must(['bash', '-c', `set -euo pipefail; ${script}`], options);
  }

  /** Pulls the plug, and removes all that was written. Idempotent. */
  async close(): Promise<void> {
    this.#ending = true;
    await closeNamespace(this.#child);
    removeDirectory(this.#dir);
  }
}

/** Pid of the booted system's own pid 1: unshare, boot.sh, systemd-nspawn (beside cat), systemd. */
async function initOf(child: ChildProcess): Promise<number> {
  let init: number | undefined;
  await poll('systemd-nspawn to begin', BOOT_DEADLINE_MS, () => {
    const [script] = childrenOf(Number(child.pid));
    if (script === undefined) throw new Error('it has ended');
    const nspawn = childrenOf(script).find((pid) => commOf(pid) === 'systemd-nspawn');
    init = nspawn === undefined ? undefined : childrenOf(nspawn).find((pid) => commOf(pid) === 'systemd');
    return init !== undefined;
  });
  return Number(init);
}

function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  return existsSync(file) ? readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number) : [];
}

function commOf(pid: number): string {
  const file = `/proc/${pid}/comm`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
}
