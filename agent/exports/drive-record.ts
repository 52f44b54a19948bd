import type { Drive } from '../api/generated.js';
import { aliasOf } from '../domains/place.js';
import { callersId, nullable, object, oneOf, text, time, withRule } from '../host/record-shape.js';
import { type LivingRecord, Registry } from '../host/registry.js';
import { withinVm } from '../points-in-time/checkpoint-record.js';
import type { AttachmentRecord } from './record.js';
import { attachmentShape, driveShape } from './record-shape.js';

export const DRIVE_RECORD_VERSION = 1;

/**
 * A drive of another host in a VM of this one, where no record of an export could say so: written before libvirt is
 * asked, removed after it is out.
 */
export interface DriveRecord extends LivingRecord {
  version: typeof DRIVE_RECORD_VERSION;
  kind: 'drive';
  /** The identity that plugged it in. */
  owner: string;
  /** As it was handed in: what a retry is compared with. */
  drive: Drive;
  attachment: AttachmentRecord;
}

const driveRecordShape = withRule(
  object<DriveRecord>({
    version: oneOf(DRIVE_RECORD_VERSION),
    kind: oneOf('drive'),
    created: time,
    ended: nullable(time),
    owner: text,
    drive: driveShape,
    attachment: attachmentShape,
  }),
  ({ ended, drive, attachment }) => {
    if (ended !== null) return 'has ended, and is removed then';
    if (drive.hosts[0]?.transport !== 'tcp') return 'drive/hosts is none of another host';
    if (attachment.alias !== aliasOf(drive.serial)) return 'attachment/alias is not made of the serial';
    return callersId(drive.name, 'drive/name');
  },
);

export type DriveRegistry = Registry<DriveRecord>;

/** A drive is in a VM once at most: the serial makes its alias. */
export const driveRecordId = (uuid: string, serial: string): string => withinVm(uuid, serial);

/** The id of a record. */
export const driveIdOf = ({ attachment, drive }: Pick<DriveRecord, 'attachment' | 'drive'>): string =>
  driveRecordId(attachment.vm.uuid, drive.serial);

export function driveRegistry(state: string): DriveRegistry {
  return new Registry<DriveRecord>(state, {
    folder: 'drives',
    kind: 'drive',
    version: DRIVE_RECORD_VERSION,
    idOf: driveIdOf,
    shape: driveRecordShape,
    remains: (record) => record,
  });
}
