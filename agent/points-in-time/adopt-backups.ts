import { thawGuest } from '../domains/freeze.js';
import { hasGuestAgent } from '../domains/guest-agent.js';
import { findDomain } from '../domains/lookup.js';
import type { BackupRecord } from './backup-record.js';
import type { PointsContext } from './context.js';
import { finishBackup } from './stop-backup.js';

/** Milliseconds for bringing one backup in order. */
const ADOPT_MS = 60_000;

/**
 * Makes the host agree with the records, at start: a backup that was half-way when the daemon ended is taken back, an
 * end that was half-way is finished. Running ones go on; the watch looks whether their jobs do, and tries again what
 * fails here because libvirt is away.
 */
export async function adoptBackups(context: PointsContext): Promise<void> {
  const { backups, log } = context;
  await backups.forgetEnded(Date.now());
  for (const record of backups.allLive()) {
    if (record.state !== 'starting' && record.state !== 'ending') continue;
    const { backupId } = record;
    try {
      if (record.state === 'starting') await thaw(context, record);
      await finishBackup(context, record, 'failed', AbortSignal.timeout(ADOPT_MS));
      log.warn({ backupId }, 'ended a backup that was half-way when the daemon ended');
    } catch (error) {
      log.error({ backupId, err: error }, 'a backup could not be brought in order yet');
    }
  }
}

/** The daemon may have died between freeze and thaw; nobody else knows of that freeze. */
async function thaw(context: PointsContext, { quiesce, vm }: BackupRecord): Promise<void> {
  if (quiesce === 'no') return;
  const signal = AbortSignal.timeout(ADOPT_MS);
  const domain = await findDomain(context.libvirt, vm.uuid, signal);
  if (domain.id !== -1 && (await hasGuestAgent(context.libvirt, domain, signal))) {
    await thawGuest(context, domain);
  }
}
