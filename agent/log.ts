/** The log: JSON lines on the standard output, for the journal or for whoever runs the daemon. */
import { fstatSync } from 'node:fs';
import { type DestinationStream, destination, type Logger, pino } from 'pino';
import type { Config } from './config/config.js';

export type Log = Logger;

/** What is never written, wherever it turns up in the first levels of a line: keys, PSKs, passwords. */
const secretNames = ['key', 'psk', 'password', 'passwd', 'credentials', 'secret'];
const secretPaths = secretNames.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]);

/** pino's levels as syslog priorities, which journald reads from a `<N>` in front of a line (sd-daemon(3)). */
const priorities: ReadonlyArray<readonly [level: number, priority: number]> = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
  [0, 7],
];

export interface LogOptions {
  readonly level: Config['log']['level'];
  /** Put `<N>` priorities in front of lines. Default: where systemd has connected us to its journal. */
  readonly journal?: boolean;
  /** Where lines go. Default: the standard output, written at once, so that the last line before a crash is there. */
  readonly out?: DestinationStream;
}

export function createLog({
  level,
  journal = stdoutIsJournal(),
  out = destination({ fd: 1, sync: true }),
}: LogOptions): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: journal ? false : () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretPaths, censor: '[secret]' },
    },
    journal ? withPriorities(out) : out,
  );
}

/** Changes what is written from now on; connections that are open keep theirs. */
export function setLevel(log: Log, { level }: Config['log']): void {
  log.level = level;
}

/** Puts the priority of each line in front of it. */
function withPriorities(out: DestinationStream): DestinationStream {
  return {
    // pino sets `lastLevel` on a stream that has this symbol, before each write.
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write(line: string): void {
      const level = this.lastLevel;
      const [, priority] = priorities.find(([least]) => level >= least) ?? [0, 6];
      out.write(`<${priority}>${line}`);
    },
  } as DestinationStream & { lastLevel: number };
}

/** systemd.exec(5): JOURNAL_STREAM is inherited, so it counts only if it names the very file that we write to. */
function stdoutIsJournal(): boolean {
  const stream = process.env.JOURNAL_STREAM;
  if (stream === undefined) return false;
  const { dev, ino } = fstatSync(1);
  return stream === `${dev}:${ino}`;
}
