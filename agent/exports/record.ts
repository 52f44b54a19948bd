import type { Drive, ExportRow, MountDiskParams, PrepareBackupDiskParams } from '../api/generated.js';
import type { MapSource } from '../changed-blocks/map.js';
import type { HotplugBus } from '../domains/targets.js';
import type { Cause } from '../errors.js';
import type { LeaseRecord } from '../host/lease.js';
import type { FileId } from '../host/open-files.js';
import type { RecordHeader } from '../host/records.js';
import type { Layer } from '../images/chain.js';
import type { FuseFile } from '../nbd/fuse-file.js';
import type { QemuNbdServer } from '../nbd/qemu-nbd.js';

/** The newest version of the record that this program writes and reads. */
export const EXPORT_RECORD_VERSION = 1;

export type ExportState = 'starting' | 'ready' | 'failed' | 'closing' | 'ended';

/** What serves an export: a qemu-nbd of its own, or QEMU's own server of a backup job, which all its disks share. */
export type ExportServer =
  | ({ kind: 'qemu-nbd' } & QemuNbdServer)
  | { kind: 'backup'; backupId: string; socket: string; exportName: string };

/** A throw-away layer: a qemu-nbd of its own, in front of the one that shows the point in time. */
export interface OverlayServer extends QemuNbdServer {
  /** The layer's file, which has no name any more. */
  file: FileId;
  /** Bytes that it may have. */
  limit: number;
}

/** A new image of `create`, from before it is made: by its first name it is ours, whatever is at its path. */
export interface NewImageRecord {
  temporary: string;
  /** Null until it is known. */
  file: FileId | null;
}

/** The params of either verb that makes exports. */
export type ExportParams = PrepareBackupDiskParams & Partial<Pick<MountDiskParams, 'as' | 'create'>>;

/** Which state of the disk an export shows. */
export type PointInTimeRecord =
  | { kind: 'image' }
  | { kind: 'snapshot'; snapshotId: string }
  /** `own`: the job was begun for this export and ends with it. */
  | { kind: 'backup'; backupId: string; own: boolean };

/** A VM that the drive is, or may be, plugged into. Written before libvirt is asked, removed after it is out. */
export interface AttachmentRecord {
  vm: { uuid: string; name: string };
  target: string;
  bus: HotplugBus;
  alias: string;
  persistent: boolean;
  /** `attaching`: libvirt may or may not have done it yet. */
  state: 'attaching' | 'attached';
}

/** What is asked of a changed-block map, and where it comes from. */
export interface MapRecord {
  mode: 'full' | 'incremental';
  since: PrepareBackupDiskParams['since'] | null;
  reason: Cause | null;
  origin: 'bitmap' | 'depth' | 'allocation';
  metaContext: string | null;
  /** Bytes. */
  granularity: number;
  source: MapSource;
}

/**
 * All that is known of one export, on disk from before its first deed until an hour after its end: enough to find,
 * serve, judge and remove everything that was made for it.
 */
export interface ExportRecord extends RecordHeader {
  version: typeof EXPORT_RECORD_VERSION;
  kind: 'export';
  exportId: string;
  /** The verb that made it: `mountDisk` gives no map. */
  use: ExportRow['kind'];
  /** The params after defaults, the VM by its UUID: what a retry is compared with. */
  params: ExportParams;
  owner: string;
  /** ISO 8601 UTC. */
  created: string;
  state: ExportState;
  error: Cause | null;
  vm: { uuid: string; name: string } | null;
  /** The disk's target name. */
  disk: string | null;
  pointInTime: PointInTimeRecord;
  /** The image that is exported, or that the VM writes to. */
  image: Pick<Layer, 'path' | 'format'>;
  /** The images that are served, top first, as they were checked; none where QEMU itself serves. */
  layers: Pick<Layer, 'path' | 'format' | 'file'>[];
  blocksStart: boolean;
  /** Null: until it is torn down. */
  lease: LeaseRecord | null;
  /** The name under which the server process is, was, or may have been started. */
  serverName: string;
  /** What shows the point in time, or writes to the image. */
  server: ExportServer | null;
  /** What clients write to, where that is thrown away. */
  overlay: OverlayServer | null;
  /** The plain file on this host. */
  file: FuseFile | null;
  newImage: NewImageRecord | null;
  drive: Drive | null;
  map: MapRecord | null;
  /** The pending checkpoint that waits for the outcome of this export's end. */
  checkpoint: string | null;
  /** What the end was told, from its first step on, and what became of the checkpoint, for a retry. */
  decided: 'success' | 'failed' | null;
  outcome: { id: string; state: 'kept' | 'deleted' } | null;
  attachments: AttachmentRecord[];
  /** ISO 8601 UTC. */
  ended: string | null;
}

/** What clients connect to; null while there is nothing. */
export function frontOf({
  params,
  server,
  overlay,
}: Pick<ExportRecord, 'params' | 'server' | 'overlay'>): Pick<QemuNbdServer, 'socket' | 'exportName'> | null {
  return params.access === 'scratch' ? overlay : server;
}
