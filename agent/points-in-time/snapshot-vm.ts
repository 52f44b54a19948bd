import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import type { PointsContext } from './context.js';
import type { SnapshotRecord } from './snapshot-record.js';

/**
 * The VM that `vmId` means; of one that is gone, as our record of that snapshot has it, so that what was asked once can
 * be asked again.
 * @throws AgentError `NoSuchVM` where neither libvirt nor a record knows it
 */
export async function snapshotVm(
  { libvirt, snapshots }: PointsContext,
  { vmId, snapshotId }: { vmId: string; snapshotId: string },
  signal: AbortSignal,
): Promise<SnapshotRecord['vm'] & { gone: boolean }> {
  try {
    const { uuid, name } = await findDomain(libvirt, vmId, signal);
    return { uuid, name, gone: false };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    // libvirt may be away, or the VM undefined.
    const known = snapshots
      .all()
      .find(({ vm, snapshotId: id }) => id === snapshotId && (vm.uuid === vmId || vm.name === vmId));
    if (known === undefined) throw error;
    return { ...known.vm, gone: error.name === 'NoSuchVM' };
  }
}
