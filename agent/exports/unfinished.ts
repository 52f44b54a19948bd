import { type ExportsContext, exportLock } from './context.js';
import type { ExportRecord } from './record.js';
import { takeBack } from './take-back.js';
import { finishTeardown } from './teardown.js';

/**
 * Finishes what was begun with an export and left half-way: one that was being made is taken back, one that was being
 * torn down is torn down. Any other is left alone. To be called under the export's lock.
 */
export async function finishHalfWay(
  context: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<void> {
  const { log } = context;
  const { exportId, state } = record;
  if (state === 'starting') {
    await takeBack(context, record, signal);
    log.warn({ exportId }, 'took back an export that was half-way');
  } else if (state === 'closing') {
    await finishTeardown(context, record, signal);
    log.warn({ exportId }, 'finished a teardown that was half-way');
  }
}

/** As `finishHalfWay`, unless somebody is at work on it: whoever holds the lock is. */
export async function finishIfAbandoned(context: ExportsContext, exportId: string): Promise<void> {
  const { locks, registry, points } = context;
  const key = exportLock(exportId);
  if (locks.holder(key) !== undefined) return;
  const signal = AbortSignal.timeout(points.stateMs.halfWay);
  await locks.run(key, `the end of the export "${exportId}"`, signal, async () => {
    const record = registry.find(exportId);
    if (record !== undefined) await finishHalfWay(context, record, signal);
  });
}
