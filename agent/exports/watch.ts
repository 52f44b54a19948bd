import { refreshAttachments } from './attachments.js';
import { type ExportsContext, exportLock } from './context.js';
import { deathOf } from './failure.js';
import type { AttachmentRecord, ExportRecord } from './record.js';

/** How often it is looked whether the servers live. */
const LOOK_MS = 1000;
/** How often ended ids are swept. */
const SWEEP_MS = 60_000;
/** Milliseconds for bringing one export in line with libvirt. */
const REFRESH_MS = 30_000;

/** A watch that runs until it is closed. */
export interface Watch {
  close(): void;
}

/**
 * Notices what happens to exports by itself: a server that dies makes its export `failed` with the reason, and a
 * drive that leaves its VM late (after `HotunplugTimeout`), together with it, or while nobody watched, is forgotten.
 */
export function watchExports(context: ExportsContext): Watch {
  const { registry, libvirt, log } = context;
  const report = (error: unknown) => log.error({ err: error }, 'the watch over exports failed');

  let looking = false;
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      for (const record of registry.allLive()) {
        if (record.state !== 'ready' || record.server === null) continue;
        if ((await deathOf(context, record)) !== null) await declareFailed(context, record.exportId);
      }
    } finally {
      looking = false;
    }
  };

  /** Exports whose attachments may not be what libvirt says: each stays until the two have been compared. */
  const due = new Set<string>();
  const comparing = new Set<string>();
  const compare = () => {
    if (!libvirt.status.connected) return;
    for (const exportId of due) {
      if (comparing.has(exportId)) continue;
      due.delete(exportId);
      comparing.add(exportId);
      void refreshOne(context, exportId)
        .catch((error: unknown) => {
          due.add(exportId);
          log.warn({ exportId, err: error }, 'could not ask libvirt where the drive is; will ask again');
        })
        .finally(() => comparing.delete(exportId));
    }
  };
  const ask = (concerned: (attachment: AttachmentRecord) => boolean) => {
    for (const { exportId, attachments } of registry.allLive()) {
      if (attachments.some(concerned)) due.add(exportId);
    }
    compare();
  };
  const askAll = () => ask(() => true);

  const timers = [
    setInterval(() => {
      compare();
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

/** Marks an export whose server is gone, with what that said last. Its files stay until it is torn down. */
export async function declareFailed(context: ExportsContext, exportId: string): Promise<void> {
  const { registry, locks, log } = context;
  const signal = AbortSignal.timeout(REFRESH_MS);
  await locks.run(exportLock(exportId), 'the watch over exports', signal, async () => {
    const record = registry.find(exportId);
    if (record?.state !== 'ready') return;
    const error = await deathOf(context, record);
    if (error === null) return;
    await registry.save({ ...record, state: 'failed', error });
    log.error({ exportId, reason: error.message }, 'an export has failed');
  });
}

async function refreshOne(context: ExportsContext, exportId: string): Promise<void> {
  const signal = AbortSignal.timeout(REFRESH_MS);
  await context.locks.run(exportLock(exportId), 'the watch over exports', signal, async () => {
    const record: ExportRecord | undefined = context.registry.find(exportId);
    if (record === undefined || record.attachments.length === 0) return;
    await refreshAttachments(context, record, signal);
  });
}
