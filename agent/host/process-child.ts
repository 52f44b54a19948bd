import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';

import { confinedCommand } from './confine.js';
import { identityOf, isAlive, type ProcessIdentity, waitForExit } from './identity.js';
import {
  assertProcessName,
  type ProcessSpec,
  type ServerProcess,
  type ServerProcesses,
  type StopOptions,
} from './process.js';
import { openStderr } from './process-log.js';
import { findTool, minimalEnvironment, runTool } from './process-tool.js';
import { poll, type Wait, within } from './process-wait.js';

/** The variable that carries a server's name, in its environment from its first instruction to its last. */
const nameVariable = 'VMDISKD_PROCESS';

/**
 * The gate. A shell, because neither Node nor libuv can set a child's umask without setting the daemon's own; and
 * because it waits for one line before it becomes the server: spawn() returns only when this shell runs, with the
 * name in its environment, and only then does the line go out. A daemon that dies before that leaves a shell which
 * reads the end of its stdin and goes; one that dies after it leaves a process that `find` sees. There is no
 * instant at which the server runs unseen. (Exported for its test.)
 */
export const gate = 'umask "$1" && shift && read -r _ && exec "$@" </dev/null';

/** Server processes as detached children of the daemon, for hosts without systemd. */
export const childProcesses: ServerProcesses = {
  start,
  find,
  isAlive: ({ identity }) => isAlive(identity),
  waitForExit: ({ identity }, wait) => waitForExit(identity, wait),
  stop: ({ identity }, options) => stop(identity, options),
  runOnHost: runTool,
};

async function start(spec: ProcessSpec, wait: Wait): Promise<ServerProcess> {
  assertProcessName(spec.name);
  wait.signal?.throwIfAborted();
  const { program, args } = await commandOf(spec);
  const stderr = await openStderr(spec.stderrFile);
  let child: ChildProcess;
  try {
    // node:child_process and not execa: this child is not to be waited for, tidied up or buffered.
    const umask = (spec.umask ?? 0o077).toString(8);
    child = spawn('/bin/sh', ['-c', gate, spec.name, umask, program, ...args], {
      cwd: '/',
      detached: true,
      env: { ...minimalEnvironment, ...spec.env, [nameVariable]: spec.name },
      stdio: ['pipe', 'ignore', stderr.fd],
      // libuv drops the supplementary groups where either is given.
      ...(spec.user && { uid: spec.user.uid, gid: spec.user.gid }),
    });
  } finally {
    await stderr.close();
  }
  child.unref();
  // Where spawn() itself fails there is no pid, and the reason comes as an event.
  const failed = new Promise<never>((_resolve, reject) => child.once('error', reject));
  failed.catch(() => {});
  const { pid } = child;
  if (pid === undefined) return failed;
  try {
    const identity = await identityOf(pid);
    if (!identity) throw new Error(`The shell that starts ${spec.program} ended at once.`);
    await within(`Starting ${spec.program}`, wait, (signal) => openGate(child, signal));
    return { name: spec.name, identity };
  } catch (error) {
    // A child that has not been waited for: Node sends nothing once it has.
    child.kill('SIGKILL');
    throw error;
  } finally {
    child.stdin?.destroy();
  }
}

async function commandOf({
  program,
  args,
  confined,
  fileSize,
}: ProcessSpec): Promise<{ program: string; args: readonly string[] }> {
  const path = await findTool(program);
  let command = { program: path, args };
  if (confined !== undefined) {
    const { program: outer, args: all } = confinedCommand(confined, path, args);
    command = { program: await findTool(outer), args: all };
  }
  if (fileSize === undefined) return command;
  // The signal that comes with the limit would end the server (setrlimit(2), signal(7)); ignored, it is the error alone.
  const limited = 'trap "" XFSZ; exec "$@"';
  const prlimit = [await findTool('prlimit'), `--fsize=${fileSize}`, '--'];
  const all = ['-c', limited, 'limited', ...prlimit, command.program, ...command.args];
  return { program: '/bin/sh', args: all };
}

function openGate({ stdin }: ChildProcess, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    // EPIPE: the shell is gone already (ended by the kernel, or by somebody); whoever waits for the server to
    // serve is told by its death and its stderr.
    stdin?.once('error', () => resolve());
    stdin?.end('\n', () => resolve());
  });
}

async function find(name: string): Promise<ServerProcess | undefined> {
  assertProcessName(name);
  const entry = `${nameVariable}=${name}`;
  let found: ProcessIdentity | undefined;
  for (const file of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(file) || !(await readEnvironment(file)).includes(entry)) continue;
    const identity = await identityOf(Number(file));
    // A child of the server has its environment too, and is younger.
    if (identity && (!found || identity.startTime < found.startTime)) found = identity;
  }
  return found && { name, identity: found };
}

/**
 * A process' environment, for root of any process, for another user of his own ones. What cannot be read is not
 * ours: only root can start a server as somebody else.
 */
async function readEnvironment(pid: string): Promise<string[]> {
  try {
    return (await readFile(`/proc/${pid}/environ`, 'latin1')).split('\0');
  } catch {
    return [];
  }
}

async function stop(
  identity: ProcessIdentity,
  { graceMs, timeoutMs, signal: outer }: StopOptions,
): Promise<void> {
  await within(`Stopping process ${identity.pid}`, { timeoutMs, signal: outer }, async (signal) => {
    await send(identity, 'SIGTERM');
    const killAt = Date.now() + graceMs;
    await poll(signal, async () => {
      if (!(await isAlive(identity))) return true;
      if (Date.now() >= killAt) await send(identity, 'SIGKILL');
      return undefined;
    });
  });
}

/** Signals that very process. Its pid could only be reused in the microseconds between this look and the signal. */
async function send(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(identity))) return;
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
