import type { ExportsContext } from './context.js';
import { scratchUseOf } from './overlay.js';
import { ofExport } from './told.js';

/** How often it is looked how much the throw-away layers have taken. */
const LOOK_MS = 1000;
/** The part of what a layer may take below which it is said that little is left. */
const LOW = 0.2;

/** Says once of each scratch export that its space runs low, before its clients' writes fail. */
export function watchScratch(context: ExportsContext): { close(): void } {
  const { registry, events, log, points } = context;
  const told = new Set<string>();
  let looking = false;
  const look = async () => {
    if (looking) return;
    looking = true;
    try {
      const written = registry
        .allLive()
        .filter(({ overlay, state }) => overlay !== null && state === 'ready');
      for (const exportId of told)
        if (!written.some((one) => one.exportId === exportId)) told.delete(exportId);
      for (const record of written) {
        const use = await scratchUseOf(record);
        const { exportId } = record;
        if (use === null || told.has(exportId)) continue;
        const free = Math.max(0, use.limit - use.used);
        const reserve = Math.floor(use.limit * LOW);
        if (free >= reserve) continue;
        told.add(exportId);
        log.warn(
          { event: 'scratchLow', exportId, ...use },
          'the throw-away layer of an export is nearly full',
        );
        events.emit({
          kind: 'scratchLow',
          ...ofExport(record),
          backupId: null,
          path: points.scratch,
          free,
          reserve,
        });
      }
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(() => {
    look().catch((error: unknown) => log.error({ err: error }, 'the watch over scratch exports failed'));
  }, LOOK_MS);
  return { close: () => clearInterval(timer) };
}
