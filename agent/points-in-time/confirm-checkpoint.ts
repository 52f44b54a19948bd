import type { ConfirmCheckpointParams, ConfirmCheckpointResult } from '../api/generated.js';
import { noSuchCheckpoint } from '../domains/checkpoints.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { decideCheckpoint } from './checkpoint-life.js';
import { withinVm } from './checkpoint-record.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';

/**
 * Decides over a checkpoint that `createSnapshot` made. Repeated, it tells what the first call decided.
 * @throws AgentError `ExportInUse` for one that is decided at the end of its backup or export
 */
export async function confirmCheckpoint(
  context: PointsContext,
  { vmId, checkpoint, outcome }: ConfirmCheckpointParams,
  { signal }: PointsCall,
): Promise<ConfirmCheckpointResult> {
  const domain = await findDomain(context.libvirt, vmId, signal);
  const record = context.checkpoints.find(withinVm(domain.uuid, checkpoint));
  if (record === undefined) throw noSuchCheckpoint(domain, checkpoint);
  if (record.madeBy.kind !== 'snapshot' && record.ended === null && record.state !== 'good') {
    throw new AgentError(
      'ExportInUse',
      `The checkpoint "${checkpoint}" of ${domain.name} is decided at the end of the ${record.madeBy.kind} "${record.madeBy.id}"; give outcome there.`,
      { vmId: domain.uuid },
    );
  }
  return exclusively(context, domain, `confirmCheckpoint ${checkpoint}`, async () => ({
    vmId: domain.uuid,
    checkpoint: await decideCheckpoint(context, domain.uuid, checkpoint, outcome, signal),
  }));
}
