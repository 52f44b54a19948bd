import { stat } from 'node:fs/promises';
import type { RunningBackup } from '../domains/backup-job.js';
import { type Domain, isConnectionFailure } from '../libvirt/index.js';
import type { BackupRecord } from './backup-record.js';
import type { PointsContext } from './context.js';

/** No alarm is set nearer than this to the end of a scratch file: below it alarms would come for every write. */
const NEAREST = 1024 * 1024;
/** Milliseconds for setting one; a VM whose lock is taken keeps its backup watched by the clock alone meanwhile. */
const SET_MS = 5000;

/**
 * Asks QEMU to tell when the scratch files have grown by half of what is left until something must be done: a warning
 * at the reserve, the end at a quarter of it. Each file has its share, so that together they do not pass it unnoticed.
 * @param free bytes
 */
export async function setScratchAlarms(
  { libvirt, points, log }: PointsContext,
  domain: Domain,
  { backupId, disks }: BackupRecord,
  job: RunningBackup,
  free: number,
  signal: AbortSignal,
): Promise<void> {
  const level = free > points.scratchReserve ? points.scratchReserve : points.scratchReserve / 4;
  const share = Math.max((free - level) / 2 / disks.length, NEAREST);
  for (const { target, scratch } of disks) {
    const nodeIndex = job.disks.find((disk) => disk.target === target)?.nodeIndex ?? null;
    if (nodeIndex === null) continue;
    try {
      const { size } = await stat(scratch);
      const options = { signal, timeoutMs: SET_MS };
      await libvirt.block.setThreshold(domain, `${target}[${nodeIndex}]`, Math.floor(size + share), options);
    } catch (error) {
      if (isConnectionFailure(error)) throw error;
      log.debug({ backupId, disk: target, err: error }, 'no alarm could be set on a scratch file');
    }
  }
}
