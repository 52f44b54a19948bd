import { decideCheckpoint, type EndedCheckpoint, type Outcome } from '../points-in-time/checkpoint-life.js';
import { exclusively, IN_TURN } from '../points-in-time/context.js';
import type { ExportsContext } from './context.js';

/**
 * Decides over the checkpoint that was made with an export of a VM that is off, under that VM's lock: another export that
 * begins meanwhile makes its own the child of the last one there is.
 * @throws AgentError `BackupBusy`, and as `decideCheckpoint`
 */
export function decideOwn(
  context: ExportsContext,
  { vm, checkpoint, exportId }: { vm: { uuid: string; name: string }; checkpoint: string; exportId: string },
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint> {
  const by = { kind: 'export', id: exportId } as const;
  const decide = () => decideCheckpoint(context, vm.uuid, checkpoint, outcome, by, signal);
  return exclusively(context, vm, `teardownBackupDisk "${exportId}"${IN_TURN}`, decide, IN_TURN);
}
