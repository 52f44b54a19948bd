/** What a process and its children have opened and run, told by the kernel. */
import { readFileSync } from 'node:fs';
import type { Host, Spawned } from '../../host/host.js';
import { poll } from '../../host/poll.js';

const DEADLINE_MS = 30_000;

export interface Trace {
  /** The files that were opened, by the names that they have; not those of which no more than a name was held (`O_PATH`). */
  opened(): string[];
  /** The programs that were run. */
  ran(): string[];
  /** Remote ends that were dialled. */
  dialled(): string[];
  stop(): Promise<void>;
}

/** Attaches strace(1) to a process of the host, all its threads and all that it starts. */
export async function startTrace(host: Host, pid: number): Promise<Trace> {
  const file = '/run/strace.out';
  const calls = 'open,openat,openat2,open_by_handle_at,connect,execve';
  const strace: Spawned = await host.spawn('strace', [
    ...['-f', '-qq', '-y', '-s', '4096', '-e', `trace=${calls}`, '-e', 'signal=none'],
    ...['-o', file, '-p', String(pid)],
  ]);
  const tracer = () =>
    /^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${host.pid}/root/proc/${pid}/status`, 'utf8'))?.[1];
  await poll('strace to attach', DEADLINE_MS, async () => tracer() !== '0');
  // A call that another thread's breaks into is told in two lines; the second has its result.
  const lines = () => readFileSync(host.path(file), 'utf8').split('\n');
  const matches = (pattern: RegExp) => lines().flatMap((line) => pattern.exec(line)?.slice(1, 2) ?? []);
  return {
    opened: () =>
      lines()
        .filter((line) => !line.includes('O_PATH'))
        .flatMap((line) => /\bopen\w*(?:\(| resumed).* = \d+<([^>]*)>/.exec(line)?.slice(1, 2) ?? []),
    ran: () => matches(/execve\("([^"]*)"/),
    dialled: () => matches(/connect\(\d+(?:<[^>]*>)?, (\{sa_family=AF_INET.*?\})/),
    stop: async () => {
      await strace.kill('SIGINT');
      await poll('strace to end', DEADLINE_MS, async () => (tracer() ?? '0') === '0');
    },
  };
}
