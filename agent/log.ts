/** The log: entries of systemd's journal, or JSON lines on the standard output for whoever runs the daemon. */
import { fstatSync } from 'node:fs';
import { type DestinationStream, destination, type Logger, pino } from 'pino';
import type { Config } from './config/config.js';
import { journalEntry } from './journal/entry.js';
import { JournalRelay } from './journal/relay.js';

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
  /** Modules that also write what is for debugging. */
  readonly debug?: Config['log']['debug'];
  /** Lines are for a journal. Default: where systemd has connected us to its own. */
  readonly journal?: boolean;
  /** SYSLOG_IDENTIFIER= of entries in the journal. */
  readonly identifier?: string;
  /** Passes entries to the journal. Without one lines for a journal have `<N>` in front, their priority. */
  readonly relay?: Pick<JournalRelay, 'write'> | null;
  /** Where lines go. Default: the standard output, written at once, so that the last line before a crash is there. */
  readonly out?: DestinationStream;
}

/** What is in the way of an entry goes to the standard output, which journald reads too. */
export function createLog({
  level,
  debug = [],
  journal = stdoutIsJournal(),
  identifier = 'vmdiskd',
  out = destination({ fd: 1, sync: true }),
  relay = journal ? new JournalRelay({ fallback: (line) => void out.write(line) }) : null,
}: LogOptions): Log {
  const log = pino(
    {
      level,
      base: null,
      timestamp: journal ? false : () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretPaths, censor: '[secret]' },
    },
    journal ? forJournal(out, relay, identifier) : out,
  );
  const modules = new Map<Module, Log>();
  modulesOf.set(log, modules);
  setLevel(log, { level, debug });
  return log;
}

/** A part of the program, of which `[log] debug` may want to hear more. */
export type Module = Config['log']['debug'][number];

/** The loggers of the modules, by their common root. */
const modulesOf = new WeakMap<Log, Map<Module, Log>>();
const settingsOf = new WeakMap<Log, Config['log']>();

/** The logger of a part of the program. @param log as `createLog` made it */
export function moduleLog(log: Log, module: Module): Log {
  const modules = modulesOf.get(log);
  const child = modules?.get(module) ?? log.child({ module });
  modules?.set(module, child);
  const settings = settingsOf.get(log);
  if (settings !== undefined) setLevel(log, settings);
  return child;
}

/** Changes what is written from now on; connections that are open keep theirs. */
export function setLevel(log: Log, settings: Config['log']): void {
  const { level, debug } = settings;
  settingsOf.set(log, settings);
  log.level = level;
  for (const [module, child] of modulesOf.get(log) ?? []) {
    child.level = debug.includes(module) && level !== 'trace' ? 'debug' : level;
  }
}

/** Makes an entry of each line; without a relay puts its priority in front of it. */
function forJournal(
  out: DestinationStream,
  relay: LogOptions['relay'],
  identifier: string,
): DestinationStream {
  return {
    // pino sets `lastLevel` on a stream that has this symbol, before each write.
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write(line: string): void {
      const level = this.lastLevel;
      const [, priority] = priorities.find(([least]) => level >= least) ?? [0, 6];
      const marked = `<${priority}>${line}`;
      if (relay) relay.write(journalEntry(line, priority, identifier, process.pid), marked);
      else out.write(marked);
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
