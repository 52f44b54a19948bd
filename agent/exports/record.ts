import type { Drive, PrepareBackupDiskParams } from '../api/generated.js';
import type { MapSource } from '../changed-blocks/map.js';
import type { HotplugBus } from '../domains/targets.js';
import type { Cause } from '../errors.js';
import type { LeaseRecord } from '../host/lease.js';
import type { RecordHeader } from '../host/records.js';
import type { Layer } from '../images/chain.js';
import type { QemuNbdServer } from '../nbd/qemu-nbd.js';

/** The newest version of the record that this program writes and reads. */
export const EXPORT_RECORD_VERSION = 1;

export type ExportState = 'starting' | 'ready' | 'failed' | 'closing' | 'ended';

/** What serves an export: a qemu-nbd of its own, or QEMU's own server of a backup job, which all its disks share. */
export type ExportServer =
  | ({ kind: 'qemu-nbd' } & QemuNbdServer)
  | { kind: 'backup'; backupId: string; socket: string; exportName: string };

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
  /** The params after defaults, the VM by its UUID: what a retry is compared with. */
  params: PrepareBackupDiskParams;
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
  server: ExportServer | null;
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
