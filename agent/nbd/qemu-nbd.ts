import { readFile, unlink } from 'node:fs/promises';

import { AgentError } from '../errors.js';
import { type ConfinedView, EXCHANGED } from '../host/confine.js';
import type { ProcessSpec, ServerProcess, ServerProcesses, StopOptions } from '../host/process.js';
import { cutStderr, readStderrTail } from '../host/process-log.js';
import { poll, type Wait, within } from '../host/process-wait.js';
import { type ImageOptions, imageFileName } from './image-options.js';
import { encodeString } from './payload.js';
import { probe } from './probe.js';
import { maxSocketPath } from './uri.js';

/** Connections to one export, where the caller names no number. qemu-nbd's own 1 makes a second client wait. */
const defaultShared = 16;

/** Milliseconds that one look at a starting server may take. */
const probeMs = 2000;

/** One qemu-nbd: one image, one export, one UNIX socket. */
export interface QemuNbdOptions {
  /** Unique on the host: `ProcessSpec.name`. */
  readonly name: string;
  /** The whole block graph; nothing is probed or taken from an image's header. */
  readonly image: ImageOptions;
  readonly readOnly: boolean;
  readonly exportName: string;
  /** For human eyes, in the list of exports. */
  readonly description?: string;
  /**
   * At most 107 bytes, in a folder that nobody else can write to. Made with 0600: only the server's own account and
   * root may connect, until the caller lets others in.
   */
  readonly socket: string;
  /** Connections at a time; a further one waits silently. */
  readonly shared?: number;
  /** Dirty bitmaps to offer as `qemu:dirty-bitmap:NAME`. */
  readonly bitmaps?: readonly string[];
  /** Whether to offer `qemu:allocation-depth`. */
  readonly allocationDepth?: boolean;
  /** For a writable export: pass trims on to the image, so that a restored disk stays sparse. */
  readonly discard?: boolean;
  readonly stderrFile: string;
  readonly user?: { readonly uid: number; readonly gid: number };
  /** What it sees of the host: the image's files and the socket's directory. */
  readonly confined?: ConfinedView;
  /** Bytes that its files may grow to: `ProcessSpec.fileSize`. */
  readonly fileSize?: number;
}

/** A qemu-nbd that runs, as it is written in records; a later daemon can check and stop it by this alone. */
export interface QemuNbdServer {
  readonly process: ServerProcess;
  readonly socket: string;
  readonly exportName: string;
}

/**
 * What to run. It is started as a plain server and not with `--fork`: its identity is then known before it runs,
 * its stderr is kept for as long as it lives and not only until it listens, and a systemd unit can do the same.
 * Always persistent: whether an export ends is for its lease to say, not for the last client that leaves.
 */
export function qemuNbdProcess(options: QemuNbdOptions): ProcessSpec {
  const { name, image, exportName, description, socket, stderrFile, user, confined, fileSize } = options;
  if (Buffer.byteLength(socket) > maxSocketPath) {
    throw new TypeError(`The path of a socket has at most ${maxSocketPath} bytes: ${socket}`);
  }
  encodeString(exportName);
  const args = [
    '--persistent',
    `--shared=${options.shared ?? defaultShared}`,
    socketArgument(socket),
    `--export-name=${exportName}`,
    ...(description === undefined ? [] : [`--description=${description}`]),
    ...(options.readOnly ? ['--read-only'] : []),
    ...(options.discard ? ['--discard=unmap'] : []),
    ...(options.allocationDepth ? ['--allocation-depth'] : []),
    ...(options.bitmaps ?? []).map((bitmap) => `--bitmap=${bitmap}`),
    imageFileName(image),
  ];
  return {
    name,
    program: 'qemu-nbd',
    args,
    stderrFile,
    umask: 0o177,
    ...(user && { user }),
    ...(confined && { confined }),
    ...(fileSize !== undefined && { fileSize }),
  };
}

const socketArgument = (socket: string): string => `--socket=${socket}`;

/**
 * Starts a server and returns once it has greeted a client. Where it dies before that the caller is told at once,
 * with its stderr: `DiskInUse` for QEMU's image locks, else `ExportFailed`. A server left over on that socket is
 * `AlreadyExists`. When this throws, no process and no socket is left.
 */
export async function startQemuNbd(
  processes: ServerProcesses,
  options: QemuNbdOptions,
  wait: Wait,
): Promise<QemuNbdServer> {
  const spec = qemuNbdProcess(options);
  const { socket, exportName } = options;
  return within('Starting qemu-nbd', wait, async (signal) => {
    await clearSocket(socket, signal);
    // What an earlier run said is not why this one fails.
    await cutStderr(spec.stderrFile, 0);
    const process = await processes.start(spec, { timeoutMs: wait.timeoutMs, signal });
    try {
      await poll(signal, () => isReady(processes, process, options, signal));
      return { process, socket, exportName };
    } catch (error) {
      // Past the caller's deadline, perhaps: cleaning up has one of its own.
      await stopQemuNbd(processes, { process, socket, exportName }, { graceMs: 1000, timeoutMs: 5000 });
      throw error;
    }
  });
}

/**
 * Ends a server; returns once its process is gone, and with it QEMU's lock on the image (a successor that comes too
 * early gets `Failed to get "write" lock`), and its socket too. Success where it is gone already.
 */
export async function stopQemuNbd(
  processes: ServerProcesses,
  server: QemuNbdServer,
  options: StopOptions,
): Promise<void> {
  await processes.stop(server.process, options);
  // It removes its socket itself when it ends in order, not when it is killed or fails to open the image.
  await unlink(server.socket).catch(ignoreAbsent);
}

/**
 * Whether a process found by its name is the server of that socket: another daemon on this host, with directories of
 * its own, may have started one of the same name.
 */
export async function servesAt({ identity }: ServerProcess, socket: string): Promise<boolean> {
  const args = await readFile(`/proc/${identity.pid}/cmdline`, 'utf8').catch(() => '');
  return args.split('\0').includes(socketArgument(socket));
}

/** True once it serves, undefined while it does not; throws once it is dead. */
async function isReady(
  processes: ServerProcesses,
  process: ServerProcess,
  { socket, stderrFile }: QemuNbdOptions,
  signal: AbortSignal,
): Promise<true | undefined> {
  const over = new AbortController();
  const answer = probe({ transport: 'unix', socket }, { timeoutMs: probeMs, signal: over.signal }).catch(
    () => 'left',
  );
  const onAbort = () => over.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    // A connection may hang in the queue of a server that is still opening its image: watch the process meanwhile.
    const result = await Promise.race([answer, untilDead(processes, process, over.signal)]);
    // Also after a greeting: by then it must be this process that lives.
    if (!(await processes.isAlive(process))) throw await startFailure(stderrFile);
    return result === 'ready' ? true : undefined;
  } finally {
    signal.removeEventListener('abort', onAbort);
    over.abort(new Error('no longer of interest'));
    await answer;
  }
}

async function untilDead(
  processes: ServerProcesses,
  process: ServerProcess,
  signal: AbortSignal,
): Promise<'dead'> {
  return poll(signal, async () => ((await processes.isAlive(process)) ? undefined : 'dead'));
}

async function startFailure(stderrFile: string): Promise<AgentError> {
  const stderr = await readStderrTail(stderrFile);
  if (/Failed to get (shared )?"[a-z ]+" lock/.test(stderr)) {
    return new AgentError(
      'DiskInUse',
      'Another process has the image open, so it cannot be exported now; shut that VM or export down first.',
      { stderr },
    );
  }
  if (stderr.includes(EXCHANGED)) {
    return new AgentError(
      'UnsafeImage',
      'A file of the image was exchanged while it was being opened, so it is not exported; see who writes there.',
      { stderr },
    );
  }
  return new AgentError('ExportFailed', `qemu-nbd ended at its start: ${lastLine(stderr)}`, { stderr });
}

/** The last line, without the whole block graph, which QEMU repeats as the image's name. */
function lastLine(text: string): string {
  return (
    text
      .replace(/'json:\{.*\}'/, 'the image')
      .split('\n')
      .at(-1) || 'it gave no reason'
  );
}

async function clearSocket(socket: string, signal: AbortSignal): Promise<void> {
  if ((await probe({ transport: 'unix', socket }, { timeoutMs: probeMs, signal })) !== 'refused') {
    throw new AgentError('AlreadyExists', `A server listens on ${socket} already; end it first.`);
  }
  await unlink(socket).catch(ignoreAbsent);
}

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
