import type { Cause } from '../errors.js';
import { refreshAttachments } from './attachments.js';
import { Comparisons } from './comparisons.js';
import { type ExportsContext, exportLock } from './context.js';
import { deathOf } from './failure.js';
import { lossOf } from './network.js';
import type { AttachmentRecord, ExportRecord } from './record.js';
import { ofExport } from './told.js';
import { finishIfAbandoned } from './unfinished.js';

/** How often it is looked whether the servers live. */
const LOOK_MS = 1000;
/** How often ended ids are swept. */
const SWEEP_MS = 60_000;
/** Until an export that is half-way is tried again. */
const FINISH_AGAIN_MS = 10_000;
/** Milliseconds for bringing one export in line with libvirt. */
const REFRESH_MS = 30_000;

/**
 * Notices what happens to exports by itself: a server that dies, or the loss of the file by which the gateway knows an
 * export, makes it `failed` with the reason, and a drive that leaves its VM late (after `HotunplugTimeout`), together with
 * it, or while nobody watched, is forgotten.
 */
export function watchExports(context: ExportsContext): { close(): void } {
  const { registry, libvirt, locks, log } = context;
  const report = (error: unknown) => log.error({ err: error }, 'the watch over exports failed');

  let looking = false;
  /** Those that are waited for to be declared failed: their locks are held. */
  const declaring = new Set<string>();
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      for (const record of registry.allLive()) {
        if (record.state !== 'ready' || record.server === null || declaring.has(record.exportId)) continue;
        if ((await faultOf(context, record)) === null) continue;
        // Not waited for: whoever holds one export's lock must not keep the others from being looked at.
        const signal = AbortSignal.timeout(REFRESH_MS);
        const declare = () => declareFailed(context, record.exportId);
        declaring.add(record.exportId);
        void locks
          .run(exportLock(record.exportId), `the watch over the export "${record.exportId}"`, signal, declare)
          .catch(report)
          .finally(() => declaring.delete(record.exportId));
      }
    } finally {
      looking = false;
    }
  };

  const comparisons = new Comparisons(context, 'exportId', (exportId) => refreshOne(context, exportId));
  const ask = (concerned: (attachment: AttachmentRecord) => boolean) => {
    for (const { exportId, attachments } of registry.allLive()) {
      if (attachments.some(concerned)) comparisons.add(exportId);
    }
    comparisons.run();
  };
  const askAll = () => ask(() => true);

  /** What was begun and could not be finished or taken back: until when each is left alone. */
  const halfWay = new Map<string, number>();
  const finish = () => {
    const now = performance.now();
    const unfinished = registry.allLive().filter(({ state }) => state === 'starting' || state === 'closing');
    for (const exportId of halfWay.keys()) {
      if (!unfinished.some((record) => record.exportId === exportId)) halfWay.delete(exportId);
    }
    for (const { exportId } of unfinished) {
      if ((halfWay.get(exportId) ?? 0) > now) continue;
      halfWay.set(exportId, now + FINISH_AGAIN_MS);
      void finishIfAbandoned(context, exportId).catch((err: unknown) =>
        log.warn({ exportId, err }, 'an export that is half-way could not be finished; will try again'),
      );
    }
  };

  const timers = [
    setInterval(() => {
      comparisons.run();
      finish();
      look().catch(report);
    }, LOOK_MS),
    setInterval(() => void registry.forgetEnded(Date.now()).catch(report), SWEEP_MS),
  ];
  const subscriptions = [
    libvirt.subscribe('deviceRemoved', ({ domain, alias }) =>
      ask((attachment) => attachment.vm.uuid === domain.uuid && attachment.alias === alias),
    ),
    libvirt.subscribe('lifecycle', ({ domain }) => ask(({ vm }) => vm.uuid === domain.uuid)),
  ];
  libvirt.on('back', askAll);
  askAll();
  return {
    close() {
      for (const timer of timers) clearInterval(timer);
      for (const subscription of subscriptions) subscription.close();
      libvirt.off('back', askAll);
    },
  };
}

/** Why an export is of no use any more; null while it is. */
async function faultOf(context: ExportsContext, record: ExportRecord): Promise<Cause | null> {
  return (await deathOf(context, record)) ?? lossOf(context, record);
}

/**
 * Marks an export whose server is gone, with what that said last, or that nobody can reach. Its files stay until it is
 * torn down. To be called under its lock.
 */
export async function declareFailed(context: ExportsContext, exportId: string): Promise<void> {
  const { registry, log } = context;
  const record = registry.find(exportId);
  if (record?.state !== 'ready') return;
  const error = await faultOf(context, record);
  if (error === null) return;
  await registry.save({ ...record, state: 'failed', error });
  context.events.emit({ kind: 'exportFailed', ...ofExport(record), error });
  log.error({ exportId, reason: error.message }, 'an export has failed');
}

async function refreshOne(context: ExportsContext, exportId: string): Promise<void> {
  const signal = AbortSignal.timeout(REFRESH_MS);
  await context.locks.run(
    exportLock(exportId),
    `the watch over the export "${exportId}"`,
    signal,
    async () => {
      const record: ExportRecord | undefined = context.registry.find(exportId);
      if (record === undefined || record.attachments.length === 0) return;
      await refreshAttachments(context, record, signal);
    },
  );
}
