import { writeFile } from 'node:fs/promises';
import { BlockBits } from '../changed-blocks/bits.js';
import { ALLOCATION_CONTEXT, type KeptData, type ServedExport } from '../changed-blocks/map.js';
import { ALLOCATION_GRANULARITY, affordable } from '../changed-blocks/plan.js';
import { blockStatus } from '../nbd/block-status.js';
import { NbdClient } from '../nbd/client.js';
import { State } from '../nbd/constants.js';
import { exportFiles } from './context.js';

/**
 * Reads once which blocks of a live backup's export hold data, and keeps that in the export's directory. What the export reads
 * as never changes, but what QEMU calls zeroes does: before the guest's first write to a cluster of 64 KiB it copies all
 * of it to the scratch image (QEMU 7.2, block/copy-before-write.c, block/block-copy.c), and zeroes that were smaller
 * than a cluster, or of two kinds, are data from then on. A map has to stay the same while the export lives, and so it is
 * kept of an image that the export's clients write to, too.
 */
export async function keepData(
  { run }: { run: string },
  exportId: string,
  { socket, exportName, capacity }: Pick<ServedExport, 'socket' | 'exportName'> & { capacity: number },
  wait: Pick<ServedExport, 'timeoutMs' | 'signal'>,
): Promise<KeptData> {
  const files = exportFiles(run, exportId);
  const bits = new BlockBits(affordable(ALLOCATION_GRANULARITY, capacity), 0, capacity);
  const contexts = [ALLOCATION_CONTEXT];
  const client = await NbdClient.connect({ transport: 'unix', socket }, { exportName, contexts, ...wait });
  try {
    for await (const { extents } of blockStatus(client, wait)) {
      for (const { start, length, flags } of extents.get(ALLOCATION_CONTEXT) ?? []) {
        if ((flags & State.ZERO) === 0) bits.set(start, length);
      }
    }
  } finally {
    await client.close();
  }
  await writeFile(files.data, bits.bytes, { mode: 0o600, flag: 'wx' });
  return { file: files.data, granularity: bits.granularity };
}
