import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('namespace.sh', import.meta.url));
const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 30_000;

/** A running set of namespaces (mount, pid, net, uts) with the private host's file system in it. */
export interface Namespace {
  /** Pid 1 of the namespace, as the outside sees it. */
  readonly pid: number;
  /** The `nsenter` command line that leads in; append a command. */
  readonly enter: readonly string[];
  /** Kills everything in it, as a power failure would; returns when the last process is gone. Idempotent. */
  close(): Promise<void>;
}

/** Starts a namespace over a directory made by `makeHostDirectory`. */
export async function openNamespace(dir: string): Promise<Namespace> {
  const child = spawn(
    'unshare',
    [
      '--mount',
      '--propagation=private',
      '--pid',
      '--fork',
      '--kill-child',
      '--net',
      '--uts',
      'bash',
      SCRIPT,
      dir,
    ],
    // Detached: a Ctrl-C is for the test process, whose end is the end of this.
    { stdio: ['pipe', 'pipe', 'pipe'], detached: true },
  );
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => {}); // EPIPE when it is gone already
  const lines = createInterface({ input: child.stdout });
  const pid = await new Promise<number>((resolve, reject) => {
    const timer = setTimeout(() => fail(`not ready after ${START_DEADLINE_MS / 1000} s`), START_DEADLINE_MS);
    const fail = (why: string): void => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(new Error(`The private host did not start: ${why}. ${stderr.trim()}`));
    };
    child.once('error', (error) => fail(error.message));
    child.once('close', (code, signal) => fail(`unshare ended with ${signal ?? code}`));
    lines.once('line', (line) => {
      clearTimeout(timer);
      child.removeAllListeners('close');
      resolve(Number(line.replace('ready ', '')));
    });
  });
  return {
    pid,
    enter: ['nsenter', `--target=${pid}`, '--mount', '--pid', '--net', '--uts', '--'],
    close: () => closeNamespace(child),
  };
}

/** Ends the first process of a namespace, which waits for its standard input to close; returns when all in it is gone. Idempotent. */
export async function closeNamespace(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.stdin?.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
  await gone;
  clearTimeout(timer);
}
