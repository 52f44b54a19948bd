import { thawGuest } from '../domains/freeze.js';
import { hasGuestAgent } from '../domains/guest-agent.js';
import { findDomainIfAny } from '../domains/lookup.js';
import { type BackupRecord, nameOf } from './backup-record.js';
import { exclusively, type PointsContext } from './context.js';
import { finishBackup, takeBackBackup } from './stop-backup.js';

/**
 * Makes the host agree with the records, at start, all at the same time: a backup that was half-way when the daemon ended
 * is taken back, an end that was half-way is finished. Running ones go on; the watch looks whether their jobs do, and
 * goes on with what is not in order when the signal fires, or because libvirt is away.
 */
export async function adoptBackups(context: PointsContext, signal: AbortSignal): Promise<void> {
  const { backups, log } = context;
  await Promise.all(
    backups.allLive().map(async (known) => {
      const { backupId, vm } = known;
      try {
        await exclusively(context, vm, `the recovery of ${nameOf(known)}`, async () => {
          const record = backups.find(backupId);
          if (record?.state === 'starting') await takeBackInterrupted(context, record, signal);
          else if (record?.state === 'ending') await finishBackup(context, record, 'failed', signal);
          else return;
          log.warn({ backupId }, 'ended a backup that was half-way when the daemon ended');
        });
      } catch (error) {
        log.error({ backupId, err: error }, 'a backup could not be brought in order yet');
      }
    }),
  );
}

/** Takes back a backup that was interrupted while it began. To be called under the VM's lock. */
export async function takeBackInterrupted(
  context: PointsContext,
  record: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  await thaw(context, record, signal);
  await takeBackBackup(context, record, signal);
}

/** The daemon may have died between freeze and thaw; nobody else knows of that freeze. */
async function thaw(
  context: PointsContext,
  { quiesce, vm }: BackupRecord,
  signal: AbortSignal,
): Promise<void> {
  if (quiesce === 'no') return;
  const domain = await findDomainIfAny(context.libvirt, vm.uuid, signal);
  if (domain !== null && domain.id !== -1 && (await hasGuestAgent(context.libvirt, domain, signal))) {
    await thawGuest(context, domain);
  }
}
