/** What the verbs that make exports answer. */
import type { Cbt, MountDiskResult } from '../api/generated.js';
import { type ExtentPage, pageOf } from '../changed-blocks/extents.js';
import { mapOf } from '../changed-blocks/map.js';
import { shownLease } from '../host/lease.js';
import { CONNECTIONS, type ExportsContext, STEP_MS } from './context.js';
import { uriOf } from './drive.js';
import type { ExportRecord, MapRecord } from './record.js';

/** What either verb is told; the map is for one of them alone. */
export type Made = MountDiskResult & { cbt?: Cbt };

/** The answer for a ready export: the same each time, since neither record nor map changes while it lives. */
export async function answerOf(
  { clock }: Pick<ExportsContext, 'clock'>,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<Made> {
  const { exportId, drive, file, params } = record;
  if (drive === null) throw new Error(`${exportId} is ready and has no drive`);
  const cbt = record.use === 'mount' ? undefined : await firstPage(record, drive.capacity, signal);
  return {
    exportId,
    drive,
    uri: uriOf(drive, params.transport),
    ...(cbt !== undefined && { cbt }),
    ...(file !== null && { path: file.file }),
    blocksStart: record.blocksStart,
    connections: CONNECTIONS,
    lease: shownLease(clock, record.lease),
  };
}

async function firstPage(record: ExportRecord, capacity: number, signal: AbortSignal): Promise<Cbt> {
  const { exportId, map, server, params } = record;
  if (map === null || server === null) throw new Error(`${exportId} is ready and has no map`);
  const served = { ...server, timeoutMs: STEP_MS, signal };
  const { inlineExtents = 0 } = params;
  // The first extent of a huge disk may take long to find the end of: who wants none does not wait for it.
  const page =
    inlineExtents === 0 && capacity > 0
      ? { extents: [], nextOffset: 0 }
      : await pageOf(mapOf(served, map, 0, undefined), inlineExtents, capacity, capacity);
  return cbtOf(record, map, page);
}

function cbtOf({ params }: ExportRecord, map: MapRecord, { extents, nextOffset }: ExtentPage): Cbt {
  return {
    mode: map.mode,
    ...(map.since != null && { since: map.since }),
    ...(params.checkpoint !== undefined && { checkpoint: params.checkpoint }),
    ...(map.reason !== null && { reason: map.reason }),
    origin: map.origin,
    metaContext: map.metaContext,
    granularity: map.granularity,
    changedBytes:
      nextOffset === null ? extents.reduce((sum, { dirty, length }) => sum + (dirty ? length : 0), 0) : null,
    extents,
    nextOffset,
  };
}

export function withCredentials(result: Made, credentials: Made['credentials']): Made {
  return credentials === undefined ? result : { ...result, credentials };
}
