import { runningBackup } from '../domains/backup-job.js';
import { libvirtFault } from '../domains/faults.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { isOperationInvalid, JobOperation, JobStat, JobType } from '../libvirt/index.js';
import type { PointsContext } from './context.js';

/** What a job is called in a message. */
const JOBS: Record<number, string> = {
  [JobOperation.save]: 'is being saved',
  [JobOperation.dump]: 'is being dumped',
  [JobOperation.snapshot]: 'is being snapshotted',
  [JobOperation.snapshotRevert]: 'is being reverted to a snapshot',
  [JobOperation.snapshotDelete]: 'has a snapshot that is being deleted',
};

/**
 * libvirt makes a second job wait for 30 s and then does not tell for whom; both questions here answer at once.
 * @throws AgentError `BackupBusy` naming the job that runs, `MigrationInProgress`
 */
export async function refuseSecondJob(
  { libvirt, backups }: PointsContext,
  { domain }: DomainState,
  signal: AbortSignal,
): Promise<void> {
  const about = { vmId: domain.uuid };
  const running = await runningBackup(libvirt, domain, signal);
  if (running !== null) {
    const ours = backups.allLive().find(({ socket }) => socket === running.socket);
    const who = ours === undefined ? 'a backup job of another product' : `the backup "${ours.backupId}"`;
    throw new AgentError(
      'BackupBusy',
      `${domain.name} has ${who} already, and libvirt allows one; ${ours === undefined ? 'try again when it has ended' : 'end it with stopBackup or its export with teardownBackupDisk'}.`,
      about,
    );
  }
  const job = await libvirt.jobs.getStats(domain, 0, { signal }).catch((cause: unknown) => {
    if (isOperationInvalid(cause)) {
      throw new AgentError('VMNotRunning', `${domain.name} has stopped; start it, then try again.`, about);
    }
    throw libvirtFault(cause, 'BackupError', `ask for the job of ${domain.name}`, about);
  });
  if (job.type !== JobType.bounded && job.type !== JobType.unbounded) return;
  const operation = Number(job.params[JobStat.operation] ?? JobOperation.unknown);
  if (operation === JobOperation.migrationOut || operation === JobOperation.migrationIn) {
    throw new AgentError(
      'MigrationInProgress',
      `${domain.name} is migrating; try again when it has, on the host where it then runs.`,
      about,
    );
  }
  throw new AgentError(
    'BackupBusy',
    `${domain.name} ${JOBS[operation] ?? 'has a job that runs'} (\`virsh domjobinfo ${domain.name}\`), and libvirt allows one job a VM; try again when it has ended.`,
    about,
  );
}
