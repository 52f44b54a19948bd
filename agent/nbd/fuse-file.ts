import { constants, lstat, open, readFile, unlink } from 'node:fs/promises';

import { AgentError } from '../errors.js';
import { detachMounts, mountsAt } from '../host/mounts.js';
import type { ServerProcess, ServerProcesses, StopOptions } from '../host/process.js';
import { cutStderr, readStderrTail } from '../host/process-log.js';
import { type RunTool, runTool, ToolError } from '../host/process-tool.js';
import { poll, type Wait, within } from '../host/process-wait.js';
import { type FuseFileOptions, fuseFileProcess, isServerOf } from './fuse-server.js';

const device = '/dev/fuse';

/** Milliseconds for taking off what a dead server has left. */
const detachMs = 10_000;

/** A file that is served. Plain data, for records; a later daemon can check and stop it by this alone. */
export interface FuseFile {
  readonly process: ServerProcess;
  readonly file: string;
  /** Bytes, as the file shows them. */
  readonly size: number;
}

/**
 * Makes the file and returns once it shows the disk. `ToolMissing` for a program or for /dev/fuse; `AlreadyExists`
 * where there is something at that place other than an empty file; `ExportFailed` with the server's own words where it
 * dies first. When this throws, no process, no mount and no file is left.
 */
export async function startFuseFile(
  processes: ServerProcesses,
  options: FuseFileOptions,
  wait: Wait,
): Promise<FuseFile> {
  const spec = fuseFileProcess(options);
  const { file, stderrFile, name } = options;
  return within(`Serving ${file}`, wait, async (signal) => {
    await assertDevice(processes.runOnHost, signal);
    await cutStderr(stderrFile, 0); // what an earlier run said is not why this one fails
    await makeMountPoint(file);
    let process: ServerProcess | undefined;
    try {
      process = await processes.start(spec, { timeoutMs: wait.timeoutMs, signal });
      const size = await settled(processes, process, spec.program, options, signal);
      return { process, file, size };
    } catch (error) {
      // Past the caller's deadline, perhaps: cleaning up has one of its own.
      const server = process === undefined ? { name, file } : { process, file };
      await stopFuseFile(processes, server, { graceMs: 1000, timeoutMs: 5000 });
      throw error;
    }
  });
}

/**
 * Ends the server, by its process or, where that was not written down, by its name; takes off its mount and removes
 * the file. Who has the file open gets ENOTCONN from then on. Idempotent, also where the server is dead and its mount is
 * left, or where the NBD server hangs: a server that waits for it does not listen to SIGTERM and is killed after
 * `graceMs`, with which the kernel lets go of all who wait for an answer (nobody of them can be killed before).
 * What was written is with the NBD server already; of a shared mapping what was synced.
 */
export async function stopFuseFile(
  processes: ServerProcesses,
  server: { readonly file: string } & ({ readonly process: ServerProcess } | { readonly name: string }),
  options: StopOptions,
): Promise<void> {
  const { file } = server;
  // Whatever a record says, a process that does not serve the file is a stranger.
  const process = 'process' in server ? server.process : await processes.find(server.name);
  if (process !== undefined && (await fuseServesAt(process, file))) await processes.stop(process, options);
  await detachMounts(file, processes.runOnHost, { timeoutMs: detachMs });
  // Also in other namespaces, which may have a copy of the dead mount: the kernel drops it with its mount point.
  await unlink(file).catch(ignoreAbsent);
}

/** Whether a process found by its name serves that file: another daemon's, with other directories, may have the same. */
export async function fuseServesAt({ identity }: ServerProcess, file: string): Promise<boolean> {
  const args = await readFile(`/proc/${identity.pid}/cmdline`, 'utf8').catch(() => '');
  return isServerOf(args.split('\0'), file);
}

/** Asked of the host: a daemon in a sandbox has a /dev of its own. */
async function assertDevice(run: RunTool, signal: AbortSignal): Promise<void> {
  try {
    await ask(run, 'test', ['-r', device, '-a', '-w', device], signal);
  } catch (cause) {
    if (!(cause instanceof ToolError)) throw cause;
    const remedy = 'load the kernel module (modprobe fuse), or let this container have the device';
    throw new AgentError('ToolMissing', `This host has no ${device} to serve files by: ${remedy}.`, {
      cause,
    });
  }
}

/**
 * In a mount namespace of the daemon's own (systemd's PrivateMounts=) every other program would see an empty file. The
 * first process is asked, whose namespace is the host's, and not for its identity: that may be nobody's to read.
 */
async function assertSeen(file: string): Promise<void> {
  if ((await mountsAt(file, '1').catch(() => [])).length > 0) return;
  const message =
    'vmdiskd runs in a mount namespace of its own, so that a file it serves would be empty to everybody else: let it run in ' +
    "the host's (PrivateMounts=no and no sandboxing of paths), or read the export over NBD.";
  throw new AgentError('ToolMissing', message);
}

/** An empty file to mount upon; one that an earlier start has left does as well. */
async function makeMountPoint(file: string): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  try {
    await (await open(file, flags, 0o600)).close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    // First the list of mounts: only what is no mount can be looked at without harm.
    const free = (await mountsAt(file)).length === 0 && (await isEmptyFile(file));
    if (!free)
      throw new AgentError('AlreadyExists', `There is something at ${file} already; remove it first.`);
  }
}

async function isEmptyFile(file: string): Promise<boolean> {
  const stats = await lstat(file);
  return stats.isFile() && stats.size === 0;
}

/** Waits for the mount, sets who may do what, and asks for the size. */
async function settled(
  processes: ServerProcesses,
  process: ServerProcess,
  program: string,
  { file, writable, owner, stderrFile }: FuseFileOptions,
  signal: AbortSignal,
): Promise<number> {
  await poll(signal, async () => {
    if (!(await processes.isAlive(process))) throw await startFailure(program, stderrFile);
    return (await mountsAt(file)).at(-1)?.startsWith('fuse') || undefined;
  });
  await assertSeen(file);
  try {
    if (!writable) {
      if (owner) await ask(runTool, 'chown', [`${owner.uid}:${owner.gid}`, file], signal);
      // Root could open it for writing otherwise, and be refused with the first byte only.
      await ask(processes.runOnHost, 'mount', ['--options', 'remount,bind,ro,nosuid,nodev', file], signal);
    }
    return Number(await ask(runTool, 'stat', ['--format=%s', file], signal));
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    if (!(await processes.isAlive(process))) throw await startFailure(program, stderrFile);
    throw new AgentError('ExportFailed', `The file of the disk cannot be used: ${error.message}`, {
      cause: error,
    });
  }
}

/**
 * Runs a program that asks the server something. Where that does not answer, not even SIGKILL ends the program before
 * the server is dead: so at the deadline it is left to itself, and the caller is about to kill the server.
 */
async function ask(
  run: RunTool,
  tool: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const answer = run(tool, args, { timeoutMs: 60_000, maxOutput: 64 * 1024, signal });
  answer.catch(() => {}); // where nobody waits for it any more
  let onAbort = () => {};
  const over = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return (await Promise.race([answer, over])).stdout;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

async function startFailure(program: string, stderrFile: string): Promise<AgentError> {
  const stderr = await readStderrTail(stderrFile);
  // QEMU repeats its argument, the whole JSON.
  const line =
    stderr
      .split('\n')
      .at(-1)
      ?.replace(/--(blockdev|export) \{.*\}: /, '') || 'it gave no reason';
  return new AgentError('ExportFailed', `${program} ended at its start: ${line}`, { stderr });
}

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
