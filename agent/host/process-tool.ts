import { access, constants } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { ExecaError, execa } from 'execa';

import { AgentError } from '../errors.js';
import type { Wait } from './process-wait.js';

/** Where programs are looked for; the daemon's own PATH is not trusted to be complete, nor to be safe. */
const searchPath = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** The environment of every program that we run: the C locale, so that messages read the same everywhere. */
export const minimalEnvironment: Readonly<Record<string, string>> = {
  PATH: searchPath.join(':'),
  LC_ALL: 'C',
};

/** The Debian package that brings a program, for the error that says it is missing. */
const debianPackages: Readonly<Record<string, string>> = {
  'qemu-img': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  nbdfuse: 'libnbd-bin',
  'systemd-run': 'systemd',
  systemctl: 'systemd',
  mount: 'mount',
  umount: 'mount',
  losetup: 'mount',
  prlimit: 'util-linux',
  unshare: 'util-linux',
  setfacl: 'acl',
};

/** The absolute path of a program. `ToolMissing`, with the package to install, where it is not there. */
export async function findTool(name: string): Promise<string> {
  const candidates = isAbsolute(name) ? [name] : searchPath.map((folder) => join(folder, name));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not this one.
    }
  }
  const brings = debianPackages[name];
  const remedy = brings ? `install the package ${brings} (apt-get install ${brings})` : 'install it';
  throw new AgentError('ToolMissing', `The program ${name} is not installed on this host: ${remedy}.`);
}

export interface ToolOptions extends Wait {
  /** Characters of stdout, and of stderr, beyond which the tool is killed and the run has failed. */
  readonly maxOutput: number;
  /** Text for the tool's stdin; /dev/null where absent. */
  readonly input?: string;
  /** Bytes of address space that it may have; its allocations fail beyond. */
  readonly memory?: number;
}

/** A short-lived program failed. The caller turns it into the error that its verb names. */
export class ToolError extends Error {
  override readonly name = 'ToolError';
  readonly tool: string;
  readonly args: readonly string[];
  /** Undefined where it was ended by a signal, or killed by us for its output. */
  readonly exitCode: number | undefined;
  readonly stderr: string;

  constructor(tool: string, args: readonly string[], failure: ExecaError) {
    const { exitCode, signal } = failure;
    const stderr = typeof failure.stderr === 'string' ? failure.stderr.trim() : '';
    const how = failure.isMaxBuffer
      ? 'printed more than it may'
      : exitCode === undefined
        ? `was ended by ${signal ?? 'a fault'}`
        : `ended with ${exitCode}`;
    super(`${tool} ${how}${stderr ? `: ${stderr}` : ''}`, { cause: failure });
    this.tool = tool;
    this.args = args;
    this.exitCode = failure.isMaxBuffer ? undefined : exitCode;
    this.stderr = stderr;
  }
}

/**
 * Runs a short-lived program such as qemu-img to its end, in `/`, with a minimal environment, and returns what it
 * printed. `ToolMissing`, `Timeout` (after which it has been killed), the signal's own reason, or `ToolError`.
 */
export async function runTool(
  name: string,
  args: readonly string[],
  options: ToolOptions,
): Promise<{ stdout: string; stderr: string }> {
  options.signal?.throwIfAborted();
  return runCommand(name, { program: await findTool(name), args }, args, options);
}

export type RunTool = typeof runTool;

/**
 * Does the same with the command by which a tool is really run, in front of which others may stand.
 * @param tool and @param toolArgs what an error calls it
 */
export async function runCommand(
  tool: string,
  command: { program: string; args: readonly string[] },
  toolArgs: readonly string[],
  { timeoutMs, maxOutput, signal, input = '', memory }: ToolOptions,
): Promise<{ stdout: string; stderr: string }> {
  signal?.throwIfAborted();
  // Beside its time its processor time is limited too, so that it ends even where nobody is left to kill it.
  const limits = [
    `--cpu=${Math.ceil(timeoutMs / 1000)}`,
    '--core=0',
    ...(memory === undefined ? [] : [`--as=${memory}`]),
  ];
  try {
    const limited = [...limits, '--', command.program, ...command.args];
    const { stdout, stderr } = await execa(await findTool('prlimit'), limited, {
      cwd: '/',
      env: minimalEnvironment,
      extendEnv: false,
      input,
      timeout: timeoutMs,
      // A tool that sits in a hung file system ignores SIGTERM for as long as it likes.
      forceKillAfterDelay: 500,
      maxBuffer: maxOutput,
      ...(signal && { cancelSignal: signal }),
    });
    return { stdout, stderr };
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    if (signal?.aborted) throw signal.reason;
    if (error.timedOut) {
      throw new AgentError('Timeout', `${tool} took longer than ${timeoutMs} ms; try again.`, {
        cause: error,
      });
    }
    throw new ToolError(tool, toolArgs, error);
  }
}
