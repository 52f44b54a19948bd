import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile } from '../host/open-files.js';
import type { PointsContext } from './context.js';
import type { SnapshotRecord } from './snapshot-record.js';

/**
 * Refuses to read layers that a merge is changing, or has changed: what a snapshot froze is gone from the first step of
 * its merge on. What a later one froze is still whole, and is refused only while the merge is at work below it. A snapshot
 * that is being made is merged as soon as its making fails.
 * To be asked once more after the reader's own record is written: whoever merges looks the other way round.
 * @param layers the chain that is to be read, top first
 * @throws AgentError `SnapshotInUse`
 */
export async function refuseMerging(
  { snapshots, running }: Pick<PointsContext, 'snapshots' | 'running'>,
  layers: readonly { file: FileId }[],
): Promise<void> {
  for (const record of snapshots.allLive()) {
    const { state, disks, jobId } = record;
    if (state !== 'merging' && state !== 'making') continue;
    const atWork = state === 'making' || (jobId !== null && running.has(jobId));
    for (const { frozen, active, target } of disks) {
      const [base, top] = await Promise.all([fileAt(frozen), fileAt(active)]);
      const has = (file: FileId | undefined, among: typeof layers) =>
        file !== undefined && among.some((layer) => isSameFile(layer.file, file));
      if (!has(base, atWork ? layers : layers.slice(0, 1)) && !(atWork && has(top, layers))) continue;
      throw new AgentError('SnapshotInUse', refusal(record, target, atWork), {
        vmId: record.vm.uuid,
        disk: target,
        retryable: atWork,
      });
    }
  }
}

function refusal({ snapshotId, vm, state, jobId }: SnapshotRecord, target: string, atWork: boolean): string {
  const snapshot = `The snapshot "${snapshotId}" of ${vm.name}`;
  if (state === 'making') {
    return `${snapshot} is being made or taken back, which may change the layers of ${target}; try again when that has ended.`;
  }
  const remedy = atWork ? 'wait for the job to end' : 'call deleteSnapshot again to finish it';
  return `${snapshot} is being merged (job ${jobId}), which changes what it froze of ${target}; ${remedy}.`;
}
