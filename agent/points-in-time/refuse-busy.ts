import { runningBackup } from '../domains/backup-job.js';
import { libvirtFault } from '../domains/faults.js';
import { jobOperation, migrating } from '../domains/migration.js';
import { AgentError } from '../errors.js';
import { type Domain, JobOperation } from '../libvirt/index.js';
import type { PointsContext } from './context.js';

/** What is said of a VM with a job. */
const JOBS: Record<number, string> = {
  [JobOperation.start]: 'is being started',
  [JobOperation.save]: 'is being saved',
  [JobOperation.restore]: 'is being restored',
  [JobOperation.dump]: 'is being dumped',
  [JobOperation.snapshot]: 'is being snapshotted',
  [JobOperation.snapshotRevert]: 'is being reverted to a snapshot',
  [JobOperation.snapshotDelete]: 'has a snapshot that is being deleted',
};

/**
 * libvirt makes a second job wait for 30 s and then does not tell for whom. Both questions here answer at once.
 * @param doing the middle of a sentence: `make a snapshot of web1`
 * @throws AgentError `BackupBusy` that names the job and says how it ends, `MigrationInProgress`
 */
export async function refuseBusy(
  { libvirt, backups }: PointsContext,
  domain: Domain,
  doing: string,
  signal: AbortSignal,
): Promise<void> {
  if (domain.id === -1) return;
  const { uuid: vmId, name } = domain;
  const busy = (fact: string, remedy: string) =>
    new AgentError(
      'BackupBusy',
      `Cannot ${doing}: ${name} ${fact}, and libvirt allows one job a VM; ${remedy}.`,
      { vmId },
    );
  const backup = await runningBackup(libvirt, domain, signal);
  if (backup !== null) {
    const ours = backups.allLive().find(({ socket }) => socket === backup.socket);
    if (ours === undefined)
      throw busy('has a backup that another program began', 'try again when that has ended');
    throw ours.exportId === null
      ? busy(`has the backup "${ours.backupId}"`, 'end that with stopBackup')
      : busy(`has the live export "${ours.exportId}"`, 'end that with teardownBackupDisk');
  }
  const operation = await jobOperation(libvirt, domain, { signal }).catch((cause: unknown) => {
    throw libvirtFault(cause, 'BackupBusy', `ask for the job of ${name}`, { vmId });
  });
  if (operation === null) return;
  throw (
    migrating(domain, operation) ??
    busy(
      `${JOBS[operation] ?? 'has a job that runs'} (\`virsh domjobinfo ${name}\`)`,
      'try again when that has ended',
    )
  );
}
