/** What callers are told of records that were read, whatever is in them. */
import { unixIdentity } from '../../agent/access/identity.js';
import { AccessPolicy } from '../../agent/access/policy.js';
import { configFrom } from '../../agent/config/config.js';
import { AgentError, InvalidParams } from '../../agent/errors.js';
import { BackupPreparation } from '../../agent/exports/backups.js';
import type { ExportsContext } from '../../agent/exports/context.js';
import { ExportPreparation } from '../../agent/exports/prepare.js';
import { SnapshotCreation } from '../../agent/points-in-time/create-snapshot.js';
import { SnapshotDeletion } from '../../agent/points-in-time/delete-snapshot.js';
import { edgeLimits } from '../../agent/rpc/limits.js';
import type { AnyVerb } from '../../agent/rpc/run-verb.js';
import { createValidator, type Validator } from '../../agent/rpc/validate.js';
import { verbTable } from '../../agent/verbs/index.js';
import type { Services } from '../../agent/verbs/services.js';
import type { VerbName, VerbTable } from '../../agent/verbs/verb.js';

const validator: Validator = createValidator(edgeLimits);
const config = configFrom({});

/** @throws Error where a verb ends with what is no answer: another error than one of the registry, a result of another shape */
export async function checkVerbs(context: ExportsContext): Promise<void> {
  const verbs = verbTable({
    config: () => config,
    access: new AccessPolicy(context),
    exports: context,
    preparation: new ExportPreparation(context),
    backupPreparation: new BackupPreparation(context),
    snapshotCreation: new SnapshotCreation(context),
    snapshotDeletion: new SnapshotDeletion(context),
  } as Services);
  const ask = async (name: VerbName & keyof VerbTable, params: object): Promise<void> => {
    try {
      // As the edge has it: defaults filled in, and nothing goes further that the schema does not allow.
      const checked: unknown = structuredClone(params);
      validator.checkParams(name, checked);
      const call = {
        identity: unixIdentity,
        signal: AbortSignal.timeout(20_000),
        reference: 'r',
        log: context.log,
      };
      const result = await (verbs[name] as unknown as AnyVerb)(checked, call as never);
      const fault = validator.faultOfResult(name, result);
      if (fault !== undefined)
        throw new Error(`${name} answers ${JSON.stringify(result).slice(0, 1000)}: ${fault}`);
    } catch (error) {
      if (!(error instanceof AgentError || error instanceof InvalidParams)) {
        throw new Error(`${name} ${JSON.stringify(params).slice(0, 1000)}`, { cause: error });
      }
    }
  };
  const vmId = '01010101-0101-0101-0101-010101010101';
  for (const name of ['listExports', 'listBackups', 'listJobs'] as const) {
    await ask(name, {});
    await ask(name, { vmId });
  }
  for (const { jobId } of context.jobs.all()) {
    await ask('getJob', { jobId });
    await ask('cancelJob', { jobId });
  }
  for (const { exportId, params, drive } of context.registry.all()) {
    await ask('getExport', { exportId });
    await ask('getChangedBlocks', { exportId });
    await ask('prepareBackupDisk', params);
    if (drive !== null) await ask('hotplugDisk', { vmId, drive });
    await ask('teardownBackupDisk', { exportId, outcome: 'failed' });
  }
  for (const { drive } of context.drives.all()) {
    await ask('hotplugDisk', { vmId, drive });
    await ask('hotunplugDisk', { vmId, drive });
  }
  for (const { backupId } of context.backups.all())
    await ask('stopBackup', { backupId, outcome: 'failed', force: true });
  for (const { snapshotId } of context.snapshots.all()) {
    await ask('getSnapConfig', { vmId, snapshotId });
    await ask('deleteSnapshot', { vmId, snapshotId });
  }
  for (const { checkpoint } of context.checkpoints.all()) {
    await ask('confirmCheckpoint', { vmId, checkpoint, outcome: 'failed' });
    await ask('deleteCheckpoint', { vmId, checkpoint });
  }
  await ask('listExports', {});
}
