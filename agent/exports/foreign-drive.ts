/** Drives that other hosts export: there is no record of their exports here, only of where they are plugged in. */
import type { HotplugDiskParams, HotplugDiskResult } from '../api/generated.js';
import { readDomain } from '../domains/lookup.js';
import { presenceOf, whyGone } from './attachments.js';
import { driveLock, type ExportCall, type ExportsContext } from './context.js';
import { isSameDrive } from './drive.js';
import { driveIdOf, driveRecordId } from './drive-record.js';
import { throughNetwork } from './network-drive.js';
import { notRunning, otherwisePlugged, plug } from './plug.js';
import { foreignDrive } from './pluggable.js';
import { ofDrive } from './told.js';

/** Milliseconds for bringing one record in line with libvirt. */
const REFRESH_MS = 30_000;

/** Plugs it into a running VM; repeated, it gives the same answer. Its address has been judged. */
export async function attachForeign(
  context: ExportsContext,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { locks, libvirt, drives } = context;
  const { drive, vmId } = params;
  const exportId = drive.name;
  return locks.run(driveLock(drive.serial), `hotplugDisk of ${exportId}`, call.signal, async () => {
    const { domain, running } = await readDomain(libvirt, vmId, call.signal);
    for (const one of drives.allLive()) {
      if (one.drive.serial === drive.serial) await refreshDrive(context, driveIdOf(one), call.signal);
    }
    if (!running) throw notRunning(domain, exportId);
    const known = drives.find(driveRecordId(domain.uuid, drive.serial));
    if (known !== undefined && !(isSameDrive(known.drive, drive) && isSameDrive(drive, known.drive)))
      throw otherwisePlugged(domain, known.attachment, exportId);
    const what = foreignDrive(context, drive, call.owner);
    return throughNetwork(context, drive, domain, call, (ready) =>
      plug(context, what, domain, params, call, ready),
    );
  });
}

/**
 * Brings a record in line with what libvirt says, as `refreshAttachments` does for exports: what is out of its VM is
 * forgotten, what was being plugged in when the daemon ended is plugged in if it is there. To be called under the
 * drive's lock.
 */
export async function refreshDrive(
  { drives, libvirt, events }: ExportsContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  const record = drives.find(id);
  if (record === undefined) return;
  const { attachment, drive, owner } = record;
  const where = await presenceOf(libvirt, attachment, signal);
  const isAttached = attachment.state === 'attached';
  if (where.live || where.stored) {
    if (!isAttached) await drives.save({ ...record, attachment: { ...attachment, state: 'attached' } });
    return;
  }
  await drives.remove(id);
  if (!isAttached) return;
  const about = ofDrive({ exportId: drive.name, owner }, attachment.vm.uuid, attachment.target);
  events.emit({ kind: 'driveDetached', ...about, reason: whyGone(where) });
}

/** As `refreshDrive`, under the lock. */
export async function refreshDriveById(context: ExportsContext, id: string): Promise<void> {
  const record = context.drives.find(id);
  if (record === undefined) return;
  const signal = AbortSignal.timeout(REFRESH_MS);
  await context.locks.run(driveLock(record.drive.serial), 'the watch over drives', signal, () =>
    refreshDrive(context, id, signal),
  );
}

/** Makes the records agree with libvirt, at start. What cannot be in order before the signal fires is left to the watch. */
export async function adoptDrives(context: ExportsContext, signal: AbortSignal): Promise<void> {
  const { drives, locks, log } = context;
  await Promise.all(
    drives.allLive().map(async (record) => {
      const { drive, attachment } = record;
      try {
        await locks.run(driveLock(drive.serial), 'the recovery of a drive', signal, () =>
          refreshDrive(context, driveIdOf(record), signal),
        );
      } catch (err) {
        const about = { exportId: drive.name, vmId: attachment.vm.uuid };
        log.error({ ...about, err }, 'a drive of another host could not be brought in order yet');
      }
    }),
  );
}
