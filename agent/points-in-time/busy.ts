import { runningBackup } from '../domains/backup-job.js';
import { libvirtFault } from '../domains/faults.js';
import { AgentError } from '../errors.js';
import { type Domain, isOperationInvalid, JobOperation, JobStat, JobType } from '../libvirt/index.js';
import type { PointsContext } from './context.js';

/**
 * Refuses at once where libvirt would wait for 30 s: while a backup, a migration or another job holds the VM.
 * @param doing the middle of a sentence: `make a snapshot of web1`
 * @param targets only a backup of one of these disks is in the way; absent: any
 * @throws AgentError `BackupBusy` that names the job, `MigrationInProgress`
 */
export async function refuseWhileBusy(
  { libvirt, backups }: PointsContext,
  domain: Domain,
  doing: string,
  signal: AbortSignal,
  targets?: readonly string[],
): Promise<void> {
  if (domain.id === -1) return;
  const vmId = domain.uuid;
  const backup = await runningBackup(libvirt, domain, signal);
  if (backup !== null) {
    if (targets !== undefined && !backup.disks.some(({ target }) => targets.includes(target))) return;
    const ours = backups.allLive().find(({ socket }) => socket === backup.socket);
    const who =
      ours === undefined
        ? 'a backup that another program began'
        : ours.exportId !== null
          ? `the export "${ours.exportId}", a live backup`
          : `the backup "${ours.backupId}"`;
    throw new AgentError(
      'BackupBusy',
      `Cannot ${doing}: ${who} runs on ${domain.name}; try again when it has ended.`,
      { vmId },
    );
  }
  try {
    if ((await libvirt.jobs.getInfo(domain, { signal })).type === JobType.none) return;
    const operation = (await libvirt.jobs.getStats(domain, 0, { signal })).params[JobStat.operation];
    const migrates = operation === JobOperation.migrationIn || operation === JobOperation.migrationOut;
    throw new AgentError(
      migrates ? 'MigrationInProgress' : 'BackupBusy',
      `Cannot ${doing}: ${migrates ? 'it is migrating' : `another job holds ${domain.name}`}; try again when that ` +
        `has ended (\`virsh domjobinfo ${domain.name}\`).`,
      { vmId },
    );
  } catch (cause) {
    if (isOperationInvalid(cause)) return; // it has stopped running
    throw libvirtFault(cause, 'BackupBusy', `ask for the job of ${domain.name}`, { vmId });
  }
}
