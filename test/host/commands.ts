import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { account } from './accounts.js';

/** The same for every command inside, whatever runner or shell the tests were started from. */
const ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
};
/** From nsenter to the prologue's word. */
const START_DEADLINE_MS = 60_000;
const MAX_OUTPUT = 256 * 1024 * 1024;

/**
 * Runs as the first argument's owner of a session and process group, so that a deadline can end the command with all
 * that it has started; tells its pid on descriptor 3; then becomes the command, in the caller's working directory
 * where the account may enter it.
 */
const PROLOGUE = 'echo $$ >&3; exec 3>&-; cd "$0" 2>/dev/null || cd /; exec "$@"';

export interface RunOptions {
  /** Written to the command's standard input, which is otherwise empty. */
  input?: string | Buffer;
  /** After this the command is killed, with its process group, and the result has `timedOut`. */
  timeoutMs?: number;
  /** Local account to run as (default root), with its groups. */
  user?: string;
  env?: Record<string, string>;
}

/** What a command did. A failure is a result, not an exception: tests look at both. */
export interface RunResult {
  stdout: string;
  stderr: string;
  /** Undefined when it was killed. As nsenter passes it on, a signal can also show as 128 and its number. */
  exitCode: number | undefined;
  signal: string | undefined;
  timedOut: boolean;
}

/** A process inside a host. */
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

/** Where commands run: the `nsenter` command line that leads in, and the host's directory (for its accounts). */
export interface Inside {
  enter: readonly string[];
  dir: string;
}

/** Starts a command inside and returns when its pid is known. Rejects with its words when it could not be started. */
export async function startCommand(
  inside: Inside,
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Spawned> {
  const as =
    options.user === undefined
      ? []
      : [
          'setpriv',
          `--reuid=${options.user}`,
          `--regid=${account(inside.dir, options.user).gid}`,
          '--init-groups',
          '--',
        ];
  const [nsenter = 'nsenter', ...enter] = inside.enter;
  const line = [...enter, ...as, 'setsid', 'sh', '-c', PROLOGUE, process.cwd(), command, ...args];
  // nsenter must live until it has reaped its child: nobody else may, and a zombie in a pid namespace keeps that from
  // ending. So it is out of reach of a terminal's Ctrl-C (detached), and a deadline kills the command, never nsenter.
  const child = execa(nsenter, line, {
    reject: false,
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    input: options.input ?? '',
    maxBuffer: MAX_OUTPUT,
    extendEnv: false,
    env: { ...ENVIRONMENT, ...options.env },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const signal = async (name: string, target: string): Promise<boolean> => {
    const kill = await execa(nsenter, [...enter, 'sh', '-c', 'kill -s "$0" -- "$1"', name, target], {
      reject: false,
      detached: true,
    });
    return kill.exitCode === 0;
  };

  let timedOut = false;
  let timer: NodeJS.Timeout | undefined;
  const exited = child.then((result): RunResult => {
    clearTimeout(timer);
    return {
      stdout: String(result.stdout ?? ''),
      stderr: String(result.stderr ?? ''),
      exitCode: result.exitCode,
      signal: result.signal,
      timedOut,
    };
  });
  const pid = await toldPid(child.stdio[3], exited);
  if (options.timeoutMs !== undefined) {
    timer = setTimeout(() => {
      timedOut = true;
      void signal('KILL', `-${pid}`);
    }, options.timeoutMs);
    // It may have ended before its pid was read.
    void exited.then(() => clearTimeout(timer));
  }
  return {
    pid,
    output: () => output,
    exited,
    kill: (name = 'SIGTERM') => signal(name.replace('SIG', ''), String(pid)),
  };
}

/** The pid that the prologue tells on descriptor 3. */
async function toldPid(pipe: unknown, exited: Promise<RunResult>): Promise<number> {
  if (!(pipe instanceof Readable)) throw new Error('No descriptor 3');
  const line = new Promise<string>((resolve) => {
    pipe.once('data', (data: Buffer) => resolve(data.toString()));
  });
  const late = new AbortController();
  const deadline = sleep(START_DEADLINE_MS, 'nothing heard of it', { signal: late.signal }).catch(() => '');
  const first = await Promise.race([line, exited.then((result) => result.stderr), deadline]);
  late.abort();
  if (!/^\d+\n$/.test(first)) throw new Error(`Could not be started: ${first}`);
  return Number(first);
}
