import type { Drive, PrepareBackupDiskParams } from '../api/generated.js';
import type { MapSource } from '../changed-blocks/map.js';
import type { HotplugBus } from '../domains/targets.js';
import type { ErrorName } from '../errors.js';
import type { RecordHeader } from '../host/records.js';
import type { Layer } from '../images/chain.js';
import type { QemuNbdServer } from '../nbd/qemu-nbd.js';

/** The newest version of the record that this program writes and reads. */
export const EXPORT_RECORD_VERSION = 1;

export type ExportState = 'starting' | 'ready' | 'failed' | 'closing' | 'ended';

/** Why something is not as it was asked for, by the name of an error. */
export interface Cause {
  name: ErrorName;
  message: string;
}

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
  since: { bitmap: string } | null;
  reason: Cause | null;
  origin: 'bitmap' | 'allocation';
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
  pointInTime: { kind: 'image' | 'snapshot'; snapshotId?: string };
  /** The images, top first, as they were checked. */
  layers: Pick<Layer, 'path' | 'format' | 'file'>[];
  blocksStart: boolean;
  /** The name under which the server process is, was, or may have been started. */
  serverName: string;
  server: QemuNbdServer | null;
  drive: Drive | null;
  map: MapRecord | null;
  attachments: AttachmentRecord[];
  /** ISO 8601 UTC. */
  ended: string | null;
}

/** Whether a record that was read has the members without which nothing can be made of it. */
export function isWholeExport(record: ExportRecord): boolean {
  const { exportId, params, created, state, layers, serverName, attachments } = record;
  return (
    [exportId, created, state, serverName].every((member) => typeof member === 'string') &&
    typeof params === 'object' &&
    Array.isArray(layers) &&
    Array.isArray(attachments)
  );
}
