import { readFile } from 'node:fs/promises';

import { poll, type Wait, within } from './process-wait.js';

/**
 * Which process, beyond doubt: a pid alone is reused. Plain data, to be written in records and compared after a
 * restart of the daemon or of the host.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot at which it was forked: field 22 of /proc/PID/stat, proc(5). exec does not change it. */
  readonly startTime: number;
  /** /proc/sys/kernel/random/boot_id, without which start times of two boots could be confused. */
  readonly bootId: string;
}

/** What /proc/PID/stat says of a process at this moment. */
export interface ProcessStat {
  readonly pid: number;
  /** One letter, proc(5): `Z` and `X` are dead ones that nobody has waited for yet. */
  readonly state: string;
  readonly startTime: number;
}

/** Reads the text of /proc/PID/stat; field 2, the name, may itself hold blanks, brackets and newlines. */
export function parseStat(text: string): ProcessStat {
  const open = text.indexOf(' (');
  const close = text.lastIndexOf(') ');
  const pid = Number(text.slice(0, open));
  const fields = text.slice(close + 2).split(' ');
  // fields[0] is field 3, the state, so field 22 is fields[19].
  const state = fields[0];
  const startTime = Number(fields[19]);
  if (open < 1 || close < open || !Number.isInteger(pid) || !state || !Number.isInteger(startTime)) {
    throw new Error(`/proc/PID/stat is not of the known form: ${JSON.stringify(text.slice(0, 120))}`);
  }
  return { pid, state, startTime };
}

export async function currentBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

/** The state of a process, or undefined where there is none of that pid. */
export async function readStat(pid: number): Promise<ProcessStat | undefined> {
  try {
    return parseStat(await readFile(`/proc/${pid}/stat`, 'latin1'));
  } catch (error) {
    // ESRCH: it went away between open and read.
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** The identity of a process that lives now; undefined where it does not (a zombie counts as dead). */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readStat(pid);
  if (!stat || isDeadState(stat.state)) return undefined;
  return { pid, startTime: stat.startTime, bootId: await currentBootId() };
}

/**
 * Whether that very process still runs. `kill(pid, 0)` would say yes for a zombie, which a detached child becomes
 * when its new parent (pid 1 of a container, say) does not reap it, and for a stranger that got the pid.
 */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const stat = await readStat(identity.pid);
  if (!stat || isDeadState(stat.state) || stat.startTime !== identity.startTime) return false;
  return (await currentBootId()) === identity.bootId;
}

/** Returns once that process is dead. Throws `Timeout` at the deadline. */
export async function waitForExit(identity: ProcessIdentity, wait: Wait): Promise<void> {
  await within(`Waiting for process ${identity.pid} to end`, wait, (signal) =>
    poll(signal, async () => ((await isAlive(identity)) ? undefined : true)),
  );
}

export function isDeadState(state: string): boolean {
  return state === 'Z' || state === 'X' || state === 'x';
}

function isGone(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' || code === 'ESRCH';
}
