import type { GetChangedBlocksParams, GetChangedBlocksResult } from '../api/generated.js';
import { bitmapPageSpan, toBits } from '../changed-blocks/bits.js';
import { pageOf } from '../changed-blocks/extents.js';
import { mapOf } from '../changed-blocks/map.js';
import { AgentError, InvalidParams } from '../errors.js';
import { type ExportCall, type ExportsContext, STEP_MS } from './context.js';
import { failed, whileServed } from './failure.js';
import { liveExport } from './registry.js';

/** A page of the map of an export, as extents or as bits. The map stays the same while the export lives. */
export async function readMap(
  context: ExportsContext,
  { exportId, offset = 0, length, maxExtents = 10_000, encoding = 'extents' }: GetChangedBlocksParams,
  call: ExportCall,
): Promise<GetChangedBlocksResult> {
  const record = liveExport(context.registry, exportId);
  const { drive, map, server } = record;
  if (record.use === 'mount') {
    throw new AgentError(
      'NotTracked',
      `"${exportId}" was made by mountDisk, which gives no map; make an export with prepareBackupDisk for that.`,
      { exportId },
    );
  }
  if (record.state !== 'ready' || drive === null || map === null || server === null) throw failed(record);
  const { capacity } = drive;
  const { granularity } = map;
  if (offset > capacity) refuse('/offset', `lies beyond the end of the disk, which has ${capacity} bytes`);
  const rest = capacity - offset;
  const asked = Math.min(length ?? rest, rest);
  const served = { ...server, timeoutMs: STEP_MS, signal: call.signal };
  if (encoding === 'extents') {
    const extents = mapOf(served, map, offset, asked);
    const page = await whileServed(context, record, () =>
      pageOf(extents, maxExtents, offset + asked, capacity),
    );
    return { granularity, ...page };
  }
  if (offset % granularity !== 0) refuse('/offset', `must be a multiple of the granularity, ${granularity}`);
  if (asked < rest && asked % granularity !== 0) {
    refuse('/length', `must be a multiple of the granularity, ${granularity}, or reach the end of the disk`);
  }
  const span = Math.min(asked, bitmapPageSpan(granularity));
  const bits = await whileServed(context, record, () =>
    toBits(mapOf(served, map, offset, span), granularity, offset, span),
  );
  const end = offset + span;
  return {
    granularity,
    bitmap: Buffer.from(bits.buffer, bits.byteOffset, bits.byteLength).toString('base64'),
    nextOffset: end < capacity ? end : null,
  };
}

function refuse(path: string, message: string): never {
  throw new InvalidParams(`Invalid params: ${path} ${message}.`, [{ path, message }]);
}
