import type { Drained } from '../api/generated.js';
import { AgentError, type Cause } from '../errors.js';
import { pause, within } from '../host/process-wait.js';
import { stopBackup } from './backups.js';
import { type ExportsContext, exportLock } from './context.js';
import { endExport } from './teardown.js';

/** Until what could not be ended is tried again. */
const AGAIN_MS = 2000;
const REPORT_MS = 1000;

/** Something to be ended, and what the last attempt has met. */
interface Thing {
  kind: 'export' | 'backup';
  id: string;
  ended: boolean;
  error: Cause;
  /** Exports whose point in time it is: they go first. */
  after: readonly string[];
}

/**
 * Ends every export and backup, outcome failed, drives unplugged first, each again and again until it has ended. All at the
 * same time, so that one that hangs holds up no other, but a backup after its exports. What clients have written is waited for.
 * @param over fires when time is over: what is not ended by then is left; what is half ended, the watches finish
 * @returns as it is when all have ended, or `over` has fired; never rejects
 */
export async function endAll(
  context: ExportsContext,
  over: AbortSignal,
  progress: (current: number, total: number) => void,
): Promise<Drained> {
  const things: Thing[] = [];
  const fired = new Promise<void>((resolve) => {
    if (over.aborted) resolve();
    else over.addEventListener('abort', () => resolve(), { once: true });
  });
  const report = () => progress(things.filter(({ ended }) => ended).length, things.length);
  // The writer leaves out what comes too soon after the last.
  const timer = setInterval(report, REPORT_MS);
  // More than one round: a call that had begun before the drain may have written its record since.
  for (let found = alive(context); found.length > 0 && !over.aborted; found = alive(context)) {
    things.push(...found.filter((one) => !things.some((other) => isSame(one, other))));
    report();
    const ends = new Map<string, Promise<void>>();
    const work = found.map(async (one) => {
      const thing = things.find((other) => isSame(one, other)) ?? one;
      thing.ended = false; // once ended, and there again: a call that was under way has made it
      const exportsFirst = thing.after.map((exportId) => ends.get(exportId));
      const end = Promise.all(exportsFirst).then(() => endOne(context, thing, over));
      if (thing.kind === 'export') ends.set(thing.id, end);
      await end;
      report();
    });
    await Promise.race([Promise.all(work), fired]);
  }
  clearInterval(timer);
  const idsOf = (kind: Thing['kind']) =>
    things.filter((thing) => thing.kind === kind && thing.ended).map(({ id }) => id);
  const left = things.filter(({ ended }) => !ended).map(({ kind, id, error }) => ({ kind, id, error }));
  return { exports: idsOf('export'), backups: idsOf('backup'), left };
}

const isSame = (one: Thing, other: Thing): boolean => one.kind === other.kind && one.id === other.id;

/** The exports first, so that their ends are known to those of their backups. */
function alive({ registry, backups }: ExportsContext): Thing[] {
  const exports = registry.allLive();
  const thing = (kind: Thing['kind'], id: string, after: readonly string[]): Thing => ({
    ...{ kind, id, after, ended: false },
    error: { name: 'Timeout', message: 'Its end had begun and was not over.' },
  });
  const users = (backupId: string) =>
    exports
      .filter(({ pointInTime: point }) => point.kind === 'backup' && point.backupId === backupId)
      .map(({ exportId }) => exportId);
  return [
    ...exports.map(({ exportId }) => thing('export', exportId, [])),
    ...backups
      .allLive()
      .filter(({ exportId }) => exportId === null)
      .map(({ backupId }) => thing('backup', backupId, users(backupId))),
  ];
}

/** Returns when the thing has ended, or time is over. */
async function endOne(context: ExportsContext, thing: Thing, over: AbortSignal): Promise<void> {
  const { log, points } = context;
  const { kind, id } = thing;
  while (!over.aborted) {
    const wait = { timeoutMs: points.stateMs.leaseEnd, signal: over };
    const attempt = (signal: AbortSignal) =>
      kind === 'export' ? endOneExport(context, id, signal) : endOneBackup(context, id, signal);
    try {
      await within(`to end the ${kind} "${id}"`, wait, attempt);
      thing.ended = true;
      return;
    } catch (err) {
      if (over.aborted) return;
      thing.error = causeOf(err);
      log.warn({ kind, id, err }, 'a drain could not end this yet; will try again');
    }
    await pause(AGAIN_MS, over).catch(() => {});
  }
}

/** Whoever has ended it meanwhile, it has ended. */
async function endOneExport(context: ExportsContext, exportId: string, signal: AbortSignal): Promise<void> {
  const { registry, locks } = context;
  await locks.run(exportLock(exportId), `the drain, of the export "${exportId}"`, signal, async () => {
    const record = registry.find(exportId);
    if (record !== undefined && record.ended === null) {
      await endExport(context, record, 'failed', true, signal);
    }
  });
}

async function endOneBackup(context: ExportsContext, backupId: string, signal: AbortSignal): Promise<void> {
  await stopBackup(context, { backupId, outcome: 'failed', force: true }, { owner: '', signal });
}

function causeOf(error: unknown): Cause {
  if (error instanceof AgentError) return { name: error.name, message: error.message };
  // Its trace is in the log.
  return {
    name: 'DrainFailed',
    message: `It could not be ended (${error instanceof Error ? error.message : error}).`,
  };
}
