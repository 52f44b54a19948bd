/** What is plugged in, whichever record says so: that of an export of this host, or of another host's drive. */
import type { Drive } from '../api/generated.js';
import { isOurAlias } from '../domains/place.js';
import { withAttachments } from './attachments.js';
import { driveLock, type ExportsContext, exportLock } from './context.js';
import { driveRecordId } from './drive-record.js';
import type { AttachmentRecord } from './record.js';
import { liveExport } from './registry.js';

/** A drive that can be plugged in, and the record of where it is. All of it under its lock. */
export interface Pluggable {
  /** What whoever changes where it is holds. */
  readonly lock: string;
  readonly drive: Drive;
  /** Of an export of another host: as the drive names it. */
  readonly exportId: string;
  readonly owner: string;
  attachments(): readonly AttachmentRecord[];
  /** Writes an attachment down, in place of the one in the same VM. To be done before libvirt is asked. */
  note(attachment: AttachmentRecord): Promise<void>;
  /** Idempotent. */
  forget(attachment: AttachmentRecord): Promise<void>;
}

/** A pluggable that is plugged in. */
export interface Plugged {
  readonly what: Pluggable;
  readonly attachment: AttachmentRecord;
}

/** The drive of an export of this host. Null before the export has one. */
export function exportedDrive(context: ExportsContext, exportId: string): Pluggable | null {
  const { registry } = context;
  const { drive, owner } = liveExport(registry, exportId);
  if (drive === null) return null;
  const others = ({ vm, alias }: AttachmentRecord) =>
    liveExport(registry, exportId).attachments.filter(
      (one) => one.vm.uuid !== vm.uuid || one.alias !== alias,
    );
  const write = async (attachments: AttachmentRecord[]): Promise<void> => {
    await withAttachments(context, liveExport(registry, exportId), attachments);
  };
  return {
    ...{ lock: exportLock(exportId), drive, exportId, owner },
    attachments: () => liveExport(registry, exportId).attachments,
    note: (attachment) => write([...others(attachment), attachment]),
    forget: (attachment) => write(others(attachment)),
  };
}

/** A drive of another host. @param owner who plugs it in */
export function foreignDrive({ drives }: ExportsContext, drive: Drive, owner: string): Pluggable {
  return {
    ...{ lock: driveLock(drive.serial), drive, exportId: drive.name, owner },
    attachments: () =>
      drives
        .allLive()
        .filter((one) => one.drive.serial === drive.serial)
        .map(({ attachment }) => attachment),
    note: async (attachment) => {
      const known = drives.find(driveRecordId(attachment.vm.uuid, drive.serial));
      const created = known?.created ?? new Date().toISOString();
      await drives.save({ version: 1, kind: 'drive', created, ended: null, owner, drive, attachment });
    },
    forget: ({ vm }) => drives.remove(driveRecordId(vm.uuid, drive.serial)),
  };
}

/** The drive behind an alias in a VM; undefined where no record has it. */
export function pluggedByAlias(
  context: ExportsContext,
  uuid: string,
  alias: string | null,
): Plugged | undefined {
  if (!isOurAlias(alias)) return undefined;
  const isMeant = (one: AttachmentRecord) => one.vm.uuid === uuid && one.alias === alias;
  for (const { exportId, attachments } of context.registry.allLive()) {
    const attachment = attachments.find(isMeant);
    const what = attachment && exportedDrive(context, exportId);
    if (what) return { what, attachment };
  }
  const record = context.drives.allLive().find(({ attachment }) => isMeant(attachment));
  if (record === undefined) return undefined;
  return { what: foreignDrive(context, record.drive, record.owner), attachment: record.attachment };
}
