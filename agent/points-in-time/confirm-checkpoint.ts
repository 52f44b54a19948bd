import type { ConfirmCheckpointParams, ConfirmCheckpointResult } from '../api/generated.js';
import { noSuchCheckpoint } from '../domains/checkpoints.js';
import { findDomain, readDomain } from '../domains/lookup.js';
import { refuseMigrating } from '../domains/migration.js';
import { AgentError } from '../errors.js';
import { decideCheckpoint } from './checkpoint-life.js';
import { withinVm } from './checkpoint-record.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { refuseRead } from './refuse-read.js';

/**
 * Decides over a checkpoint that `createSnapshot` made. Repeated, it tells what the first call decided.
 * @throws AgentError `ExportInUse` for one that is decided at the end of its backup or export, or that is to be deleted
 *   while an export reads a file with its bitmap
 */
export async function confirmCheckpoint(
  context: PointsContext,
  { vmId, checkpoint, outcome }: ConfirmCheckpointParams,
  { signal }: PointsCall,
): Promise<ConfirmCheckpointResult> {
  const domain = await findDomain(context.libvirt, vmId, signal);
  const record = context.checkpoints.find(withinVm(domain.uuid, checkpoint));
  if (record === undefined) throw noSuchCheckpoint(domain, checkpoint);
  const decided = record.ended !== null || record.state === 'good';
  if (record.madeBy.kind !== 'snapshot' && !decided) {
    throw new AgentError(
      'ExportInUse',
      `The checkpoint "${checkpoint}" of ${domain.name} is decided at the end of the ${record.madeBy.kind} "${record.madeBy.id}"; give outcome there.`,
      { vmId: domain.uuid },
    );
  }
  if (!decided) await refuseMigrating(context.libvirt, domain, signal);
  return exclusively(context, domain, `confirmCheckpoint "${checkpoint}"`, async () => {
    if (outcome === 'failed') {
      const now = context.checkpoints.find(withinVm(domain.uuid, checkpoint));
      const state = now?.state === 'pending' ? await readDomain(context.libvirt, domain.uuid, signal) : null;
      if (now !== undefined && state !== null) await refuseRead(context, state, now);
    }
    return {
      vmId: domain.uuid,
      checkpoint: await decideCheckpoint(context, domain.uuid, checkpoint, outcome, record.madeBy, signal),
    };
  });
}
