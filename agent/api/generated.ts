// Generated from rpc-schema/ by `npm run generate`. Do not edit.

/** What clients may do: `read-only`; `scratch`, where they write to a throw-away layer that vanishes with the export; `read-write`, where they write to the image itself. */
export type ExportAccess = 'read-only' | 'scratch' | 'read-write';
/** Bytes: a size, an offset or a length, up to 2^53-1. */
export type ByteCount = number;
/** One identity that a client's certificate bears: its subject, a DNS name or a URI. */
export type ClientIdentity = string;
/** A disk of a VM: its target name (`vda`), or else its alias or its serial where no other disk of the VM has the same. */
export type DiskName = string;
/** Where the drive's NBD server listens: a UNIX socket on this host, or a host's TLS gateway. */
export type DriveHost = UnixDriveHost | TcpDriveHost;
/** Something that has happened on the host and is on record. Texts are cut at 1024 characters. An `owner` is the identity that made the export, backup, snapshot or job that it is about. */
export type HostEvent =
  | ExportReadyEvent
  | ExportFailedEvent
  | ExportClosedEvent
  | LeaseExpiredEvent
  | DriveAttachedEvent
  | DriveDetachedEvent
  | DriveDetachRefusedEvent
  | BackupStartedEvent
  | BackupEndedEvent
  | BackupFailedEvent
  | ScratchLowEvent
  | SnapshotCreatedEvent
  | CheckpointDeletedEvent
  | JobProgressEvent
  | JobEndedEvent
  | VmStartedEvent
  | VmStoppedEvent
  | VmMigratedEvent
  | LibvirtLostEvent
  | LibvirtBackEvent;
/** An absolute path on this host. */
export type HostPath = string;
/** An id that the caller picks: a UUID, or 1-64 of letters, digits, `_`, `.` and `-`, the first a letter or digit. An `exportId` is unique on the host. */
export type Id = string;
/** The format of an image file or block device. It is given, never probed: a raw disk's content could pretend to be anything. */
export type ImageFormat = 'raw' | 'qcow2';
/** The length of a lease in seconds, counted from the call on. */
export type LeaseSeconds = number;
/** The name of a checkpoint or snapshot, as libvirt has it. */
export type LibvirtName = string;
/** Whether the backup was good: `success` keeps its checkpoint, `failed` deletes it. Required where a pending checkpoint waits for it. */
export type Outcome = 'success' | 'failed';
/** Whether the guest agent freezes the guest's file systems for the instant: `no`; `try`, and go on without where that fails; `require`, and fail. They are always thawed. */
export type Quiesce = 'no' | 'try' | 'require';
/** The point from which on changes are wanted. */
export type Since = SinceCheckpoint | SinceSnapshot | SinceBitmap;
/** A time, ISO 8601 in UTC. */
export type Time = string;
/** How the reader reaches the export: by a UNIX socket on this host, or by this host's TLS gateway. */
export type Transport = UnixTransport | TcpTransport;
/** A libvirt domain, by UUID or name. */
export type VmId = string;
/** Result of getChangedBlocks. */
export type GetChangedBlocksResult = ChangedExtents | ChangedBitmap;
/** Result of cancelJob. */
export type CancelJobResult = JobRow;
/** Result of getExport. */
export type GetExportResult = ExportRow;
/** Result of getJob. */
export type GetJobResult = JobRow;

/** The verbs by name. */
export interface Verbs {
  /** Expose one disk at one point in time over NBD, with the map of its changed blocks */
  prepareBackupDisk: { params: PrepareBackupDiskParams; result: PrepareBackupDiskResult };
  /** End an export and remove everything that it made */
  teardownBackupDisk: { params: TeardownBackupDiskParams; result: TeardownBackupDiskResult };
  /** Plug an exported drive into a running VM */
  hotplugDisk: { params: HotplugDiskParams; result: HotplugDiskResult };
  /** Take a drive that hotplugDisk plugged in out of the VM */
  hotunplugDisk: { params: HotunplugDiskParams; result: HotunplugDiskResult };
  /** Read the map of an export's changed blocks, a page at a time */
  getChangedBlocks: { params: GetChangedBlocksParams; result: GetChangedBlocksResult };
  /** End a job where it is */
  cancelJob: { params: CancelJobParams; result: CancelJobResult };
  /** Decide over a checkpoint that createSnapshot made */
  confirmCheckpoint: { params: ConfirmCheckpointParams; result: ConfirmCheckpointResult };
  /** Freeze a VM's disks at one instant, each below an overlay of its own */
  createSnapshot: { params: CreateSnapshotParams; result: CreateSnapshotResult };
  /** Delete a checkpoint and its bitmaps */
  deleteCheckpoint: { params: DeleteCheckpointParams; result: DeleteCheckpointResult };
  /** Merge a snapshot's overlays into what it froze, as a job */
  deleteSnapshot: { params: DeleteSnapshotParams; result: DeleteSnapshotResult };
  /** End all exports and backups of the host, as a job */
  drain: { params: DrainParams; result: DrainResult };
  /** Tell what is known of one export */
  getExport: { params: GetExportParams; result: GetExportResult };
  /** Tell what this daemon is, what it works with, and its limits */
  getHostInfo: { params: GetHostInfoParams; result: GetHostInfoResult };
  /** Tell how far a job is */
  getJob: { params: GetJobParams; result: GetJobResult };
  /** Tell a VM's configuration as it was at a snapshot */
  getSnapConfig: { params: GetSnapConfigParams; result: GetSnapConfigResult };
  /** List the backup jobs */
  listBackups: { params: ListBackupsParams; result: ListBackupsResult };
  /** List a VM's checkpoints, the oldest first */
  listCheckpoints: { params: ListCheckpointsParams; result: ListCheckpointsResult };
  /** List a VM's disks that can be exported */
  listDisks: { params: ListDisksParams; result: ListDisksResult };
  /** List the exports */
  listExports: { params: ListExportsParams; result: ListExportsResult };
  /** List jobs */
  listJobs: { params: ListJobsParams; result: ListJobsResult };
  /** List a VM's snapshots */
  listSnapshots: { params: ListSnapshotsParams; result: ListSnapshotsResult };
  /** Expose a disk or snapshot for any use: to scan, to list, to restore */
  mountDisk: { params: MountDiskParams; result: MountDiskResult };
  /** Tell libvirt of checkpoints that it has lost */
  redefineCheckpoints: { params: RedefineCheckpointsParams; result: RedefineCheckpointsResult };
  /** Give a backup a new lease */
  renewBackup: { params: RenewBackupParams; result: RenewBackupResult };
  /** Give an export a new lease */
  renewExport: { params: RenewExportParams; result: RenewExportResult };
  /** Describe this API as an OpenRPC document */
  'rpc.discover': { params: RpcDiscoverParams; result: RpcDiscoverResult };
  /** Fix one point in time of a running VM's disks */
  startBackup: { params: StartBackupParams; result: StartBackupResult };
  /** End a backup job */
  stopBackup: { params: StopBackupParams; result: StopBackupResult };
  /** End an export and remove everything that it made */
  unmountDisk: { params: UnmountDiskParams; result: UnmountDiskResult };
  /** Wait for what happens on the host, and tell it */
  waitEvents: { params: WaitEventsParams; result: WaitEventsResult };
}
/** A VM that an export's drive is plugged into. */
export interface Attachment {
  /** The domain's UUID. */
  vmId: VmId;
  /** The disk's target name there. */
  target: string;
}
/** A dirty bitmap of a disk. */
export interface BitmapRow {
  /** Its name. */
  name: string;
  /** Its tracking unit in bytes. */
  granularity: number;
  /** Whether a map can be had from it now. */
  usable: boolean;
  /** If not, why; else null. */
  reason: Cause | null;
}
/** Why something is not as asked: the name of an error (see Errors) and its sentence. */
export interface Cause {
  /** The error's name. */
  name: string;
  /** One sentence: the fact, and the remedy. */
  message: string;
}
/** The map of changed blocks of an export. It never lacks a change: where that cannot be promised, the verb fails. */
export interface Cbt {
  /** `full`: dirty is what holds data. `incremental`: dirty is what changed since `since`. */
  mode: 'full' | 'incremental';
  /** What an incremental map counts from; absent in a full map. */
  since?: Since;
  /** The checkpoint that was created at this instant, the `since` of the next run; absent without one. */
  checkpoint?: Id;
  /** Why the map is full although `since` was given (`ifUntracked: "full"`); absent otherwise. */
  reason?: Cause;
  /** Where the map comes from: `bitmap` (a qcow2 dirty bitmap or a libvirt checkpoint), `depth` (allocation depth in the backing chain), `allocation` (a full map). */
  origin: 'bitmap' | 'depth' | 'allocation';
  /** The NBD meta context that is by itself the whole map; null where only `getChangedBlocks` has it. */
  metaContext: string | null;
  /** The tracking unit in bytes, a power of two. */
  granularity: number;
  /** The sum of the dirty extents' lengths; null when the map did not fit inline. */
  changedBytes: ByteCount | null;
  /** The beginning of the map, at most `inlineExtents` long. */
  extents: Extent[];
  /** Where `getChangedBlocks` goes on; null, and only then, if the map is complete. */
  nextOffset: ByteCount | null;
}
/** A page of the map, one bit a block. */
export interface ChangedBitmap {
  /** The size of a block in bytes. */
  granularity: number;
  /** Base64; one bit a block, least significant bit first, bit 0 the block at `offset`. A bit is set if any byte of its block is dirty. The last block may be short. */
  bitmap: string;
  /** The `offset` of the next page; null if this was the last. */
  nextOffset: ByteCount | null;
}
/** A page of the map, as extents. */
export interface ChangedExtents {
  /** The tracking unit in bytes. */
  granularity: number;
  /** The page's extents. */
  extents: Extent[];
  /** The `offset` of the next page; null if this was the last. */
  nextOffset: ByteCount | null;
}
/** A libvirt checkpoint that covers a disk. */
export interface CheckpointRow {
  /** Its name. */
  checkpoint: string;
}
/** The key to one export, made for it alone and gone with it. It is in this answer, again in that to the identical call, and nowhere else. */
export interface Credentials {
  /** A pre-shared key of TLS. */
  type: 'psk';
  /** The identity to name in the TLS handshake. */
  identity: Id;
  /** The key: 32 bytes in hexadecimal. */
  key: string;
}
/** The device's address as libvirt's XML has it, for example `{"type": "pci", "domain": "0x0000", …}` or `{"type": "drive", "controller": "0", …}`. */
export interface DeviceAddress {
  /** The kind of address. */
  type: string;
  [k: string]: string;
}
/** A disk of a VM. */
export interface DiskRow {
  /** The target name (`vda`). */
  target: string;
  /** The device alias; null while the VM is shut off. */
  alias: string | null;
  /** The bus: `virtio`, `scsi`, `sata`, … */
  bus: string;
  /** The serial that the guest sees; null if it has none. */
  serial: string | null;
  /** The top image's format, as the domain names it. */
  format: string;
  /** The disk's size in bytes, whole sectors of 512 as QEMU counts; null where it could not be had. */
  capacity: ByteCount | null;
  /** Whether the guest may only read it. */
  readonly: boolean;
  /** The images, topmost first. */
  chain: Image[];
  /** Whether changed blocks can be tracked. */
  trackable: boolean;
  /** If not, why; else null. */
  reason: Cause | null;
  /** Its checkpoints. */
  checkpoints: CheckpointRow[];
  /** The dirty bitmaps of its top image. */
  bitmaps: BitmapRow[];
}
/** What a `drain` has ended, and what not. */
export interface Drained {
  /** Ids of the exports and mounts that were ended. */
  exports: string[];
  /** Ids of the backups that were ended. */
  backups: string[];
  /** What was not ended in time. */
  left: {
    /** `export` (mounts too) or `backup`. */
    kind: 'export' | 'backup';
    /** Its `exportId` or `backupId`. */
    id: string;
    /** What the last attempt to end it has met. */
    error: Cause;
  }[];
}
/** An exported disk, as `prepareBackupDisk` returns it and `hotplugDisk` takes it: passed as it came. Members that this version does not know are ignored, unless `requires` names them. */
export interface Drive {
  /** A drive reached over the network or a socket. */
  type: 'network';
  /** What the guest sees. */
  device: 'disk';
  /** The protocol of the server. */
  protocol: 'nbd';
  /** The NBD export name, which is the exportId. */
  name: Id;
  /**
   * The one address of the server.
   *
   * @minItems 1
   * @maxItems 1
   */
  hosts: [DriveHost];
  /** Whether the connection is encrypted. */
  tls: boolean;
  /** The name that the server's certificate bears, where it is not the host's. */
  tlsHostname?: string;
  /** Where TLS is not opened by a certificate: `psk`, the key that came with the drive. libvirt knows certificates only, so `hotplugDisk` of any host refuses it. */
  tlsCredentials?: 'psk';
  /** The disk's content as served, whatever the image's own format. */
  format: 'raw';
  /** Whether writes are refused. */
  readonly: boolean;
  /** The serial that the guest sees; it differs for every export of every host. */
  serial: string;
  /** The disk's size in bytes, whole sectors of 512, as its server presents it. */
  capacity: ByteCount;
  /**
   * Names of members that must be understood. Every name that this version knows is listed here.
   *
   * @maxItems 64
   */
  requires?: (
    | 'type'
    | 'device'
    | 'protocol'
    | 'name'
    | 'hosts'
    | 'tls'
    | 'tlsHostname'
    | 'tlsCredentials'
    | 'format'
    | 'readonly'
    | 'serial'
    | 'capacity'
    | 'requires'
  )[];
  [k: string]: unknown;
}
export interface UnixDriveHost {
  transport: 'unix';
  /** The path of the UNIX socket. */
  socket: HostPath;
  [k: string]: unknown;
}
export interface TcpDriveHost {
  transport: 'tcp';
  /** A host name or IP address. */
  name: string;
  /** The TCP port. */
  port: number;
  [k: string]: unknown;
}
/** What became of the checkpoint that depended on the export. */
export interface EndedCheckpoint {
  /** The checkpoint. */
  id: Id;
  /** `kept`, or `deleted`. */
  state: 'kept' | 'deleted';
}
/** What is known of one export. */
export interface ExportRow {
  /** The export. */
  exportId: Id;
  /** The verb that made it: `backup`, `prepareBackupDisk`; `mount`, `mountDisk`. */
  kind: 'backup' | 'mount';
  /** The identity that made it. */
  owner: string;
  /** The domain's UUID; null for an export by path. */
  vmId: VmId | null;
  /** The disk's target name; null for an export by path. */
  disk: string | null;
  /** The image that is served. */
  path: HostPath;
  /** That image's format. */
  format: ImageFormat;
  /** Which state of the disk it shows. */
  pointInTime: PointInTime;
  /** What clients may do. */
  access: ExportAccess;
  /** How it is reached. */
  transport: Transport;
  /** The VMs that it is plugged into. */
  attachedTo: Attachment[];
  /** NBD connections now; null where that is not known. */
  clients: number | null;
  /** Bytes sent to readers; null where that is not known. */
  bytes: ByteCount | null;
  /** When it was made. */
  created: Time;
  /** Its lease; null: until torn down. */
  lease: Lease | null;
  /** `starting`, `ready`, `failed` (its server died: see `error`) or `closing`. */
  state: 'starting' | 'ready' | 'failed' | 'closing';
  /** Why it failed; null in other states. */
  error: Cause | null;
  /** Whether the VM that owns the image cannot start while this lives. */
  blocksStart: boolean;
  /** The space that writes have taken; null without `access: "scratch"`, and while that is not known. */
  scratch: ScratchUse | null;
  /** The plain file on this host; null without `as: "file"`. */
  mountedAt: HostPath | null;
}
/** A range of the disk. Extents are in order, do not overlap, and cover the disk, or a page of it exactly up to `nextOffset`. */
export interface Extent {
  /** The offset of the first byte. */
  start: ByteCount;
  /** The length in bytes. */
  length: ByteCount;
  /** Full map: the range holds data. Incremental map: it was written, or discarded, since. */
  dirty: boolean;
  /** The range reads as zeroes. A range discarded since is dirty and zero. */
  zero: boolean;
}
/** An export serves: its `prepareBackupDisk` is answered, or about to be. */
export interface ExportReadyEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'exportReady';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID; null where it is exported by `path`. */
  vmId: string | null;
  /** The disk's target; null where it is exported by `path`. */
  disk: string | null;
  /** Which state of the disk it shows. */
  pointInTime: PointInTime;
}
/** An export serves no more, by itself: its server died, or the backup that it reads has failed. It stays listed until it is torn down. */
export interface ExportFailedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'exportFailed';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID; null where it is exported by `path`. */
  vmId: string | null;
  /** The disk's target; null where it is exported by `path`. */
  disk: string | null;
  /** Why: the name of an error and its sentence. */
  error: Cause;
}
/** An export has ended and nothing is left of it. */
export interface ExportClosedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'exportClosed';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID; null where it is exported by `path`. */
  vmId: string | null;
  /** The disk's target; null where it is exported by `path`. */
  disk: string | null;
  /** What it was called at its end; a lease that expires, a fault and a forced end are `failed`. */
  outcome: Outcome;
  /** What became of the checkpoint that depended on it; null where none did. */
  checkpoint: EndedCheckpoint | null;
}
/** A lease ran out, and what it was for is ended, outcome `failed`; `exportClosed` or `backupEnded` follows. */
export interface LeaseExpiredEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'leaseExpired';
  /** The export; null where the lease was a backup's. */
  exportId: Id | null;
  /** The backup; null where the lease was an export's. */
  backupId: Id | null;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID; null where it is exported by `path`. */
  vmId: string | null;
}
/** An export's drive is plugged into a VM. */
export interface DriveAttachedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'driveAttached';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM that it is plugged into, a domain's UUID. */
  vmId: string;
  /** The disk's target in that VM. */
  target: string;
  /** The serial that the guest sees. */
  serial: string;
}
/** An export's drive is out of a VM. */
export interface DriveDetachedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'driveDetached';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM that it was plugged into, a domain's UUID. */
  vmId: string;
  /** The disk's target in that VM. */
  target: string;
  /** `unplugged`: by `hotunplugDisk`, or a teardown with `force`, which waited for it. `left`: later than the call waited, or by another hand. `vmEnded`: with its VM. */
  reason: 'unplugged' | 'left' | 'vmEnded';
}
/** The guest has said that it does not let a drive go. */
export interface DriveDetachRefusedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'driveDetachRefused';
  /** The export. */
  exportId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM that it is plugged into, a domain's UUID. */
  vmId: string;
  /** The disk's target in that VM. */
  target: string;
}
/** `startBackup` has fixed a point in time. (A job that `prepareBackupDisk` begins for one export is told as `exportReady`, `exportFailed` and `exportClosed` of that alone.) */
export interface BackupStartedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'backupStarted';
  /** The backup. */
  backupId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID. */
  vmId: string;
  /** The targets of its disks. */
  disks: string[];
  /** Whether the guest's file systems were frozen at that instant. */
  quiesced: boolean;
  /** The checkpoint that was made with it; null without one. */
  checkpoint: string | null;
}
/** A backup of `startBackup` has ended and nothing is left of it. */
export interface BackupEndedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'backupEnded';
  /** The backup. */
  backupId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID. */
  vmId: string;
  /** What it was called at its end; a lease that expires, a fault and a forced end are `failed`. */
  outcome: Outcome;
  /** What became of the checkpoint that depended on it; null where none did. */
  checkpoint: EndedCheckpoint | null;
}
/** A backup of `startBackup` has come to a bad end by itself: its VM stopped, its job was ended by another hand, the scratch space ran out. It stays listed until `stopBackup`. */
export interface BackupFailedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'backupFailed';
  /** The backup. */
  backupId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID. */
  vmId: string;
  /** Why: the name of an error and its sentence. */
  error: Cause;
}
/** The scratch space of a live backup runs low: at a quarter of the reserve it is ended. Or that of an export with `access: "scratch"`: beyond it writes fail. */
export interface ScratchLowEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'scratchLow';
  /** The backup; null where the job, or the throw-away layer, is an export's own. */
  backupId: Id | null;
  /** The export whose own job, or throw-away layer, it is; null where it is a backup's. */
  exportId: Id | null;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID; null for an export by path. */
  vmId: string | null;
  /** Where the scratch files lie. */
  path: HostPath;
  /** Bytes that are free there, or that are left of what the layer may have. */
  free: ByteCount;
  /** Bytes that should be: `[limits] scratchReserve`, or a fifth of what the layer may have. */
  reserve: ByteCount;
}
/** A snapshot is made. */
export interface SnapshotCreatedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'snapshotCreated';
  /** The snapshot. */
  snapshotId: Id;
  /** The identity that made it. */
  owner: string;
  /** The VM, a domain's UUID. */
  vmId: string;
  /** The targets of its disks. */
  disks: string[];
  /** Whether the guest's file systems were frozen at that instant. */
  quiesced: boolean;
  /** The checkpoint that was made with it; null without one. */
  checkpoint: string | null;
}
/** A checkpoint of ours is deleted, with its bitmaps: by `deleteCheckpoint`, or since what it was made with was not called good. */
export interface CheckpointDeletedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'checkpointDeleted';
  /** The checkpoint. */
  checkpoint: Id;
  /** The VM, a domain's UUID. */
  vmId: string;
  /** What it was made with. */
  madeBy: {
    /** What that is. */
    kind: 'export' | 'backup' | 'snapshot';
    /** Its id. */
    id: string;
  };
}
/** A job has come further. At most once a second a job. */
export interface JobProgressEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'jobProgress';
  /** The job. */
  jobId: string;
  /** The identity that made it. */
  owner: string;
  /** The verb that began it: `deleteSnapshot` or `drain`. */
  verb: string;
  /** What it works on: the snapshot's id. */
  subject: string;
  /** The VM, a domain's UUID; null where it was not known any more. */
  vmId: string | null;
  /** How far it is; units mean nothing by themselves. */
  progress: {
    /** So much is done */
    current: ByteCount;
    /** of so much. */
    total: ByteCount;
  };
}
/** A job has ended. */
export interface JobEndedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'jobEnded';
  /** The job. */
  jobId: string;
  /** The identity that made it. */
  owner: string;
  /** The verb that began it: `deleteSnapshot` or `drain`. */
  verb: string;
  /** What it works on: the snapshot's id. */
  subject: string;
  /** The VM, a domain's UUID; null where it was not known any more. */
  vmId: string | null;
  /** How it ended. */
  state: 'done' | 'failed' | 'cancelled';
  /** Why it failed; null where it did not. */
  error: Cause | null;
}
/** A VM of this host has started. */
export interface VmStartedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'vmStarted';
  /** The VM, a domain's UUID. */
  vmId: string;
  /** The domain's name. */
  name: string;
  /** How, in libvirt's words (`virDomainEventStartedDetailType`). */
  reason: 'booted' | 'restored' | 'fromSnapshot' | 'wakeup' | 'unknown';
}
/** A VM of this host has stopped. */
export interface VmStoppedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'vmStopped';
  /** The VM, a domain's UUID. */
  vmId: string;
  /** The domain's name. */
  name: string;
  /** How, in libvirt's words (`virDomainEventStoppedDetailType`). */
  reason: 'shutdown' | 'destroyed' | 'crashed' | 'saved' | 'failed' | 'fromSnapshot' | 'unknown';
}
/** A VM has come to this host, or gone from it, by migration. */
export interface VmMigratedEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'vmMigrated';
  /** The VM, a domain's UUID. */
  vmId: string;
  /** The domain's name. */
  name: string;
  /** `arrived` here, or `left`. */
  reason: 'arrived' | 'left';
}
/** The connection to libvirt is lost. What happens to VMs until `libvirtBack` is not told. */
export interface LibvirtLostEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'libvirtLost';
  /** What the connection ended with. */
  reason: string;
}
/** libvirt is connected again: look at the VMs anew. */
export interface LibvirtBackEvent {
  /** Its number. */
  seq: number;
  /** When. */
  time: Time;
  /** What has happened. */
  kind: 'libvirtBack';
}
/** One layer of a disk's backing chain. */
export interface Image {
  /** The image file or block device. */
  path: HostPath;
  /** Its format, as the domain names it. */
  format: string;
}
/** Long work, and how far it is. */
export interface JobRow {
  /** The job. */
  jobId: string;
  /** The verb that began it: `deleteSnapshot` or `drain`. */
  kind: string;
  /** What it works on: the snapshot's id; of a drain, the host's. */
  subject: string;
  /** The identity that began it. */
  owner: string;
  /** The domain's UUID; null where the VM was not known any more, and of a drain. */
  vmId: VmId | null;
  /** `running`, `done`, `failed` (see `error`) or `cancelled`. */
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /** How far it is; units mean nothing by themselves. */
  progress: {
    /** So much is done */
    current: ByteCount;
    /** of so much. */
    total: ByteCount;
  };
  /** Of a drain that has ended: what it has ended; absent otherwise. */
  result?: Drained;
  /** Why it failed; absent otherwise. */
  error?: Cause;
  /** When it began. */
  created: Time;
  /** When it ended; null while it runs. */
  ended: Time | null;
}
/** How long something lives unless its lease is renewed: then it is torn down, its checkpoint deleted. */
export interface Lease {
  /** The length of the lease in seconds. */
  seconds: LeaseSeconds;
  /** When it ends, by the host's clock as it is set now. Measured by time that passes: setting the clock neither shortens nor lengthens a lease. */
  expires: Time;
}
/** Which state of the disk an export shows: `image`, the image as it is (the VM is shut off, or `path` was given); `snapshot`, what that snapshot froze; `backup`, the instant of that backup job. */
export interface PointInTime {
  /** The kind of point in time. */
  kind: 'image' | 'snapshot' | 'backup';
  /** The snapshot, with `kind: "snapshot"`. */
  snapshotId?: string;
  /** The backup, with `kind: "backup"`; absent where the job was begun for this export alone. */
  backupId?: string;
}
/** The throw-away layer of an export with `access: "scratch"`. */
export interface ScratchUse {
  /** Bytes that its file has. */
  used: ByteCount;
  /** Bytes that its file may have: beyond it a write fails with ENOSPC, and reads go on. */
  limit: ByteCount;
}
export interface SinceCheckpoint {
  /** A checkpoint of the VM, ours or another product's. */
  checkpoint: LibvirtName;
}
export interface SinceSnapshot {
  /** An external snapshot of the VM: what was written above what it froze, by allocation depth. Works for raw images and without any bitmap. */
  snapshot: LibvirtName;
}
export interface SinceBitmap {
  /** The name of a persistent qcow2 dirty bitmap of the image (with `path`). It must be on the top image, recording and not in use, and without a gap in the backing chain. */
  bitmap: string;
}
/** A disk of an external snapshot. */
export interface SnapshotDisk {
  /** Its target name. */
  disk: string;
  /** The image that holds its state at the snapshot. The merge of an older snapshot may move that to a lower file. */
  frozen: HostPath;
  /** The overlay that was put above it, which the VM went on with. */
  active: HostPath;
}
/** A snapshot of a VM, made here or by another program. */
export interface SnapshotRow {
  /** Its id, which is its name in libvirt. */
  snapshotId: LibvirtName;
  /** The snapshot before it, by libvirt's name; null for the first. */
  parent: string | null;
  /** When it was made. */
  created: Time;
  /** `external`: an overlay above each image, which can be exported and deleted here. `internal`: kept inside the image, which cannot. */
  kind: 'external' | 'internal';
  /** Whether it holds the guest's memory too; then it was not made here. */
  memory: boolean;
  /** `ready`; `making`; `merging` (its deletion has begun: it can no longer be exported, and `deleteSnapshot` again finishes what was interrupted); `foreign` (made by another program). */
  state: 'making' | 'ready' | 'merging' | 'foreign';
  /** Whether the guest's file systems were frozen for it; null where another program made it. */
  quiesced: boolean | null;
  /** The job that merges it, or was the last to try; null before. */
  jobId: string | null;
  /** The disks that it froze. */
  disks: SnapshotDisk[];
}
/** A UNIX socket on this host, open to root and to `user`. */
export interface UnixTransport {
  type: 'unix';
  /** A local account that may connect, besides root. */
  user?: string;
}
/** The TLS gateway's port. */
export interface TcpTransport {
  type: 'tcp';
  /** How a client shows that it may connect. `psk`: with a key made for this export alone, which is in the answer's `credentials`; for libnbd and QEMU's tools. `x509`: with a certificate of one of `clients`. `none`: not at all, and only from this very host, where `[gateway] plaintextLoopback` allows it. */
  tls: 'psk' | 'x509' | 'none';
  /**
   * The certificates that may connect, any of them: each by its subject (`subject:CN=appliance,O=Example`, a distinguished name of RFC 4514) or by one of its alternative names (`dns:appliance.example`, `uri:spiffe://example/appliance`). Compared whole.
   *
   * @minItems 1
   * @maxItems 64
   */
  clients?: [ClientIdentity, ...ClientIdentity[]];
}
/** Params of prepareBackupDisk, checked and with defaults filled in. */
export interface PrepareBackupDiskParams {
  /** Names the export. */
  exportId: Id;
  /** The VM whose disk it is. Goes with `disk`. */
  vmId?: VmId;
  /** The disk: target name, alias or serial. Goes with `vmId`. */
  disk?: DiskName;
  /** Instead of `vmId` and `disk`: an image file or block device under an allowed root. */
  path?: HostPath;
  /** The format of the image at `path`. Never probed. */
  format?: ImageFormat;
  /** The state that this libvirt external snapshot froze. */
  snapshotId?: LibvirtName;
  /** The instant that this backup fixed. `since`, `ifUntracked`, `checkpoint` and `quiesce` are then the backup's. */
  backupId?: Id;
  /** The map is of blocks changed since that checkpoint, snapshot or bitmap; without it, of blocks that hold data (a full backup). `{bitmap}` goes with `path`, the others with `vmId`; `{snapshot}` needs `snapshotId` or a shut-off VM. */
  since?: Since;
  /** Create this checkpoint at the same instant, the `since` of the next run. It is pending until the export's end says `outcome: "success"`. */
  checkpoint?: Id;
  /** Freeze the guest's file systems for a backup job of this export's own. Absent: `no`. */
  quiesce?: Quiesce;
  /** What clients may do. `read-write` is for an image as it is, of a VM that is off or by path, and goes without `snapshotId`, `backupId`, `since` and `checkpoint`. */
  access: ExportAccess;
  /** How the export is reached. */
  transport: Transport;
  /** The export is torn down by itself, outcome failed, when so long nobody has called `renewExport`. Absent: `limits.maxLease` where that is set, else it stays until it is torn down. */
  leaseSeconds?: LeaseSeconds;
  /** How many extents of the map come back in `cbt`. */
  inlineExtents: number;
  /** Where a trustworthy map cannot be had from `since` on: `fail` with the named error, or give the `full` map with the cause in `cbt.reason`. Absent: `fail`. */
  ifUntracked?: 'fail' | 'full';
}
/** Result of prepareBackupDisk. */
export interface PrepareBackupDiskResult {
  /** The export. */
  exportId: Id;
  /** The drive, for `hotplugDisk`. */
  drive: Drive;
  /** The same as an NBD URI, for libnbd and qemu-img. */
  uri: string;
  /** The key to the export, where the transport is `{"type": "tcp", "tls": "psk"}`. Absent otherwise. */
  credentials?: Credentials;
  /** The map of changed blocks. */
  cbt: Cbt;
  /** Whether the VM that owns the image cannot start while the export lives. */
  blocksStart: boolean;
  /** How many clients can be connected at once. */
  connections: number;
  /** The export's lease; null: until torn down. */
  lease: Lease | null;
}
/** Params of teardownBackupDisk, checked and with defaults filled in. */
export interface TeardownBackupDiskParams {
  /** The export. */
  exportId: Id;
  /** How the backup went. Required where a pending checkpoint depends on this call. */
  outcome?: 'success' | 'failed';
  /** Detach the drive first where it is attached to a VM. */
  force: boolean;
}
/** Result of teardownBackupDisk. */
export interface TeardownBackupDiskResult {
  /** The export. */
  exportId: Id;
  /** The checkpoint that depended on the export, if any. */
  checkpoint: EndedCheckpoint | null;
}
/** Params of hotplugDisk, checked and with defaults filled in. */
export interface HotplugDiskParams {
  /** The VM to plug it into. */
  vmId: VmId;
  /** The drive, passed as it came. */
  drive: Drive;
  /** The bus. Absent: `scsi` where the domain has a virtio-scsi controller, else `virtio`. */
  bus?: 'virtio' | 'scsi';
  /** The target name. Absent: the first free one of the bus. */
  target?: string;
  /** Also put it into the VM's stored configuration. */
  persistent: boolean;
}
/** Result of hotplugDisk. */
export interface HotplugDiskResult {
  /** The domain's UUID. */
  vmId: VmId;
  /** The disk's target name. */
  target: string;
  /** The bus. */
  bus: 'virtio' | 'scsi';
  /** The device alias. */
  alias: string;
  /** The serial that the guest sees. */
  serial: string;
  /** The device's address. */
  address: DeviceAddress;
  /** `/dev/disk/by-id/…` inside a Linux guest. */
  guestPath: string;
}
/** Params of hotunplugDisk, checked and with defaults filled in. */
export interface HotunplugDiskParams {
  /** The VM. */
  vmId: VmId;
  /** The drive that was plugged in. Or `target`. */
  drive?: Drive;
  /** The target name that `hotplugDisk` returned. Or `drive`. */
  target?: string;
  /** How long to wait for the guest, in seconds. */
  timeoutSeconds: number;
}
/** Result of hotunplugDisk. */
export interface HotunplugDiskResult {
  /** The VM, by UUID where it is known. */
  vmId: VmId;
  /** The target name that is free now; null if the disk was already gone. */
  target: string | null;
}
/** Params of getChangedBlocks, checked and with defaults filled in. */
export interface GetChangedBlocksParams {
  /** The export. */
  exportId: Id;
  /** The first byte of the page. */
  offset: ByteCount;
  /** How many bytes of the disk to map. Absent: to its end. */
  length?: number;
  /** How many extents a page has at most. */
  maxExtents: number;
  /** `extents`: a list of ranges. `bitmap`: one bit a block. */
  encoding: 'extents' | 'bitmap';
}
/** Params of cancelJob, checked and with defaults filled in. */
export interface CancelJobParams {
  /** The job. */
  jobId: Id;
}
/** Params of confirmCheckpoint, checked and with defaults filled in. */
export interface ConfirmCheckpointParams {
  /** The VM. */
  vmId: VmId;
  /** The checkpoint. */
  checkpoint: LibvirtName;
  /** Whether the backup was good. */
  outcome: Outcome;
}
/** Result of confirmCheckpoint. */
export interface ConfirmCheckpointResult {
  /** The VM, by UUID where it is known. */
  vmId: VmId;
  /** What became of it. */
  checkpoint: EndedCheckpoint;
}
/** Params of createSnapshot, checked and with defaults filled in. */
export interface CreateSnapshotParams {
  /** Names the snapshot, here and in libvirt; unique within the VM. */
  snapshotId: Id;
  /** The VM, running or shut off. */
  vmId: VmId;
  /**
   * Target names, aliases or serials, each disk once. Absent: all that can take part (CD-ROMs, read-only, shareable, transient and network disks cannot).
   *
   * @minItems 1
   * @maxItems 256
   */
  disks?: [DiskName, ...DiskName[]];
  /** Create this checkpoint just before the snapshot, on the disks that can have one. It is pending until `confirmCheckpoint`. */
  checkpoint?: Id;
  /** Freeze the guest's file systems for the instant. A VM that is off has nothing to freeze. */
  quiesce: Quiesce;
}
/** Result of createSnapshot. */
export interface CreateSnapshotResult {
  /** The snapshot. */
  snapshotId: Id;
  /** The domain's UUID. */
  vmId: VmId;
  /** When. */
  created: Time;
  /** Whether the guest's file systems were frozen for the instant. False for a VM that was off. */
  quiesced: boolean;
  /** The checkpoint that was created; absent where none was asked for or no disk can have one. */
  checkpoint?: string;
  /** The disks. */
  disks: SnapshotDisk[];
}
/** Params of deleteCheckpoint, checked and with defaults filled in. */
export interface DeleteCheckpointParams {
  /** The VM. */
  vmId: VmId;
  /** The checkpoint. */
  checkpoint: LibvirtName;
}
/** Result of deleteCheckpoint. */
export interface DeleteCheckpointResult {
  /** The VM, by UUID where it is known. */
  vmId: VmId;
  /** The checkpoint. */
  checkpoint: string;
}
/** Params of deleteSnapshot, checked and with defaults filled in. */
export interface DeleteSnapshotParams {
  /** The VM. */
  vmId: VmId;
  /** The snapshot. */
  snapshotId: LibvirtName;
}
/** Result of deleteSnapshot. */
export interface DeleteSnapshotResult {
  /** The job; see `getJob`. */
  jobId: string;
}
/** Params of drain, checked and with defaults filled in. */
export interface DrainParams {
  /** How long the job goes on trying. */
  timeoutSeconds: number;
}
/** Result of drain. */
export interface DrainResult {
  /** The job; see `getJob`. */
  jobId: string;
}
/** Params of getExport, checked and with defaults filled in. */
export interface GetExportParams {
  /** The export. */
  exportId: Id;
}
/** Params of getHostInfo, checked and with defaults filled in. */
export type GetHostInfoParams = Record<string, never>;
/** Result of getHostInfo. */
export interface GetHostInfoResult {
  /** The version of this API. */
  apiVersion: string;
  /** The host's id, stable over reboots. */
  hostId: string;
  /** `recovering` from its start until the host agrees with the records: other verbs answer RecoveryInProgress then. Else `ready`. */
  state: 'recovering' | 'ready';
  /** Versions of the programs; null where one is missing or cannot be asked now. */
  versions: {
    /** This daemon. */
    vmdiskd: string;
    /** Node.js. */
    node: string;
    /** The libvirt daemon. */
    libvirt: string | null;
    /** QEMU, as libvirt runs it. */
    qemu: string | null;
    /** qemu-nbd, which serves the exports. */
    qemuNbd: string | null;
  };
  /** What the parts can do here. */
  capabilities: {
    /** The connection to libvirt. */
    libvirt: {
      /** The connection's URI. */
      uri: string;
      /** Whether it answers now. */
      connected: boolean;
    };
    /** The means to serve and to map a disk. */
    qemu: {
      /** qemu-nbd can serve dirty bitmaps. */
      bitmaps: boolean;
      /** qemu-nbd can serve allocation depth. */
      allocationDepth: boolean;
    };
  };
  /** What a caller may ask for, and how long it may take. */
  limits: {
    /** Connections to the daemon. */
    clients: number;
    /** Connections of one identity from the network. */
    clientsPerIdentity: number;
    /** The size of a message. */
    frameBytes: number;
    /** The calls in a batch. */
    batch: number;
    /** Verbs at work at once. */
    verbs: number;
    /** Exports on the host. */
    exports: number;
    /** Exports of one VM's disks. */
    exportsPerVm: number;
    /** The longest lease in seconds; 0: any. */
    maxLease: number;
    /** Bytes that must be free for a live backup to begin. */
    scratchReserve: number;
    /** Bytes that the throw-away layer of one export may take. */
    scratchPerExport: number;
    /** Events that are kept. */
    events: number;
    /** Callers that wait for events at once. */
    eventWaiters: number;
    /** Extents that come back inline. */
    inlineExtents: number;
    /** Extents in a page. */
    maxExtents: number;
    /** The size of a bitmap page before base64. */
    bitmapBytes: number;
    /** Clients of an export. */
    connections: number;
    /** How long each verb may take, in seconds, by name. */
    deadlineSeconds: {
      [k: string]: number;
    };
    /** How long a state may last in which nobody can use the thing, in seconds, by kind and state: then the work in it is given up and tried again from the records. */
    stateSeconds: {
      [k: string]: number;
    };
  };
}
/** Params of getJob, checked and with defaults filled in. */
export interface GetJobParams {
  /** The job. */
  jobId: Id;
}
/** Params of getSnapConfig, checked and with defaults filled in. */
export interface GetSnapConfigParams {
  /** The VM. */
  vmId: VmId;
  /** The snapshot, ours or another program's. */
  snapshotId: LibvirtName;
}
/** Result of getSnapConfig. */
export interface GetSnapConfigResult {
  /** The snapshot. */
  snapshotId: LibvirtName;
  /** When it was made. */
  created: Time;
  /** libvirt's `<domain>`, in a form that can be defined; its disks name what was frozen. */
  domainXml: string;
  /** The disks that it froze. */
  disks: SnapshotDisk[];
  /** The firmware's variables (UEFI); null where the VM had none. */
  nvram: {
    /** The file that holds them, as they are now. */
    path: HostPath;
    /** What they were made from; null where that is not said. */
    template: string | null;
  } | null;
  /** The TPM; null where the VM had none. */
  tpm: {
    /** Its model: `tpm-crb`, `tpm-tis`, … */
    model: string;
    /** `emulator`, `passthrough` or `external`. */
    backend: string;
    /** `1.2` or `2.0`; null where that is not said. */
    version: string | null;
    /** The directory of an emulator's state, as it is now; null for others. */
    state: string | null;
  } | null;
}
/** Params of listBackups, checked and with defaults filled in. */
export interface ListBackupsParams {
  /** Those of this VM alone, by UUID or by the name that it had. */
  vmId?: VmId;
}
/** Result of listBackups. */
export interface ListBackupsResult {
  /** The backups, the oldest first. */
  backups: {
    /** The backup. */
    backupId: Id;
    /** The domain's UUID. */
    vmId: VmId;
    /** The identity that made it. */
    owner: string;
    /** When. */
    created: Time;
    /** `starting`, `running`, `failed` (see `error`) or `ending`. */
    state: 'starting' | 'running' | 'failed' | 'ending';
    /** Why it failed; null in other states. */
    error: Cause | null;
    /** Whether the guest's file systems were frozen for the instant. */
    quiesced: boolean;
    /** Its checkpoint, or null. */
    checkpoint: string | null;
    /** Its disks. */
    disks: {
      /** Its target name. */
      disk: string;
      /** Whether its map is `full` or `incremental`. */
      mode: 'full' | 'incremental';
      /** The checkpoint that an incremental map counts from. */
      since?: string;
      /** Why it is full although `since` was given. */
      reason?: Cause;
      /** Whether a checkpoint can cover it: false for raw disks. */
      tracked: boolean;
    }[];
    /** Its lease; null: until it is stopped. */
    lease: Lease | null;
  }[];
}
/** Params of listCheckpoints, checked and with defaults filled in. */
export interface ListCheckpointsParams {
  /** The VM. */
  vmId: VmId;
}
/** Result of listCheckpoints. */
export interface ListCheckpointsResult {
  /** The checkpoints, parents before children. */
  checkpoints: {
    /** Its name. */
    checkpoint: string;
    /** The one before it; null for the first. */
    parent: string | null;
    /** When; null where nobody knows. */
    created: Time | null;
    /** Targets of the disks that it covers. */
    disks: string[];
    /** `pending` (its backup has not been called good), `good`, `broken` (`since` it would be refused of one of its disks: see `reason`) or `foreign` (another product's). */
    state: 'pending' | 'good' | 'broken' | 'foreign';
    /** Why it is broken; null in other states. */
    reason: string | null;
    /** libvirt's XML of it, for `redefineCheckpoints`. */
    xml: string | null;
  }[];
}
/** Params of listDisks, checked and with defaults filled in. */
export interface ListDisksParams {
  /** The VM. */
  vmId: VmId;
}
/** Result of listDisks. */
export interface ListDisksResult {
  /** The disks, in the domain's order. */
  disks: DiskRow[];
}
/** Params of listExports, checked and with defaults filled in. */
export interface ListExportsParams {
  /** Only the exports of this VM's disks. */
  vmId?: VmId;
}
/** Result of listExports. */
export interface ListExportsResult {
  /** The exports. */
  exports: ExportRow[];
}
/** Params of listJobs, checked and with defaults filled in. */
export interface ListJobsParams {
  /** Only those of this VM. */
  vmId?: VmId;
}
/** Result of listJobs. */
export interface ListJobsResult {
  /** The jobs. */
  jobs: JobRow[];
}
/** Params of listSnapshots, checked and with defaults filled in. */
export interface ListSnapshotsParams {
  /** The VM. */
  vmId: VmId;
}
/** Result of listSnapshots. */
export interface ListSnapshotsResult {
  /** The snapshots. */
  snapshots: SnapshotRow[];
}
/** Params of mountDisk, checked and with defaults filled in. */
export interface MountDiskParams {
  /** Names the export. */
  exportId: Id;
  /** The VM whose disk it is. Goes with `disk`. */
  vmId?: VmId;
  /** The disk: target name, alias or serial. Goes with `vmId`. */
  disk?: DiskName;
  /** Instead of `vmId` and `disk`: an image file or block device under an allowed root. */
  path?: HostPath;
  /** The format of the image at `path`. Never probed. */
  format?: ImageFormat;
  /** The state that this libvirt external snapshot froze. */
  snapshotId?: LibvirtName;
  /** The instant that this backup fixed. `quiesce` is then the backup's. */
  backupId?: Id;
  /** Freeze the guest's file systems for a backup job of this export's own. Absent: `no`. */
  quiesce?: Quiesce;
  /** What clients may do. `read-write` is for an image as it is, of a VM that is off or by path, and goes without `snapshotId` and `backupId`. */
  access: ExportAccess;
  /** How the export is reached. */
  transport: Transport;
  /** The export is torn down by itself, outcome failed, when so long nobody has called `renewExport`. Absent: `limits.maxLease` where that is set, else it stays until it is torn down. */
  leaseSeconds?: LeaseSeconds;
  /** `file`: `path` in the result is a plain file on this host with the disk's raw content (FUSE), besides the NBD export. Its owner is the transport's `user`, or root. With a `unix` transport only. */
  as: 'nbd' | 'file';
  /** Make a new, empty image at `path` first. It stays when the export ends; where the export cannot be made, it does not. */
  create?: {
    /** The size of the disk in bytes, a multiple of 512. */
    capacity: number;
    /** The same as the `format` beside `path`, which it may be left to. */
    format?: ImageFormat;
  };
}
/** Result of mountDisk. */
export interface MountDiskResult {
  /** The export. */
  exportId: Id;
  /** The drive, for `hotplugDisk`. */
  drive: Drive;
  /** The same as an NBD URI, for libnbd and qemu-img. */
  uri: string;
  /** The key to the export, where the transport is `{"type": "tcp", "tls": "psk"}`. Absent otherwise. */
  credentials?: Credentials;
  /** Whether the VM that owns the image cannot start while the export lives. */
  blocksStart: boolean;
  /** How many clients can be connected at once. */
  connections: number;
  /** The export's lease; null: until torn down. */
  lease: Lease | null;
  /** The plain file on this host, with `as: "file"`. Absent otherwise. */
  path?: HostPath;
}
/** Params of redefineCheckpoints, checked and with defaults filled in. */
export interface RedefineCheckpointsParams {
  /** The VM. */
  vmId: VmId;
  /**
   * Absent: all from our own records.
   *
   * @maxItems 1000
   */
  checkpoints?: {
    /** Its name. */
    checkpoint: LibvirtName;
    /** As `listCheckpoints` gave it; the name in it is `checkpoint`. */
    xml: string;
  }[];
}
/** Result of redefineCheckpoints. */
export interface RedefineCheckpointsResult {
  /** The domain's UUID. */
  vmId: VmId;
  /** What became of each. */
  checkpoints: {
    /** Its name. */
    checkpoint: string;
    /** `defined`, `known` (libvirt had it) or `failed`. */
    state: 'defined' | 'known' | 'failed';
    /** Why it failed; null in other states. */
    reason: string | null;
  }[];
}
/** Params of renewBackup, checked and with defaults filled in. */
export interface RenewBackupParams {
  /** The backup. */
  backupId: Id;
  /** How long from now on; at most `limits.maxLease` where that is set. */
  leaseSeconds: LeaseSeconds;
}
/** Result of renewBackup. */
export interface RenewBackupResult {
  /** The backup. */
  backupId: Id;
  /** The new lease. */
  lease: Lease;
}
/** Params of renewExport, checked and with defaults filled in. */
export interface RenewExportParams {
  /** The export. */
  exportId: Id;
  /** How long from now on; at most `limits.maxLease` where that is set. */
  leaseSeconds: LeaseSeconds;
}
/** Result of renewExport. */
export interface RenewExportResult {
  /** The export. */
  exportId: Id;
  /** The new lease. */
  lease: Lease;
}
/** Params of rpc.discover, checked and with defaults filled in. */
export type RpcDiscoverParams = Record<string, never>;
/** Result of rpc.discover. */
export interface RpcDiscoverResult {
  [k: string]: unknown;
}
/** Params of startBackup, checked and with defaults filled in. */
export interface StartBackupParams {
  /** Names the backup. */
  backupId: Id;
  /** The VM. */
  vmId: VmId;
  /**
   * The disks, each once.
   *
   * @minItems 1
   * @maxItems 256
   */
  disks: [
    {
      /** Target name, alias or serial. */
      disk: DiskName;
      /** The map is of blocks changed since that checkpoint; without it, of blocks that hold data. */
      since?: {
        /** A checkpoint of the VM. */
        checkpoint: LibvirtName;
      };
      /** Where a trustworthy map cannot be had: `fail` with the named error, or give the `full` map with the cause in `reason`. */
      ifUntracked: 'fail' | 'full';
    },
    ...{
      /** Target name, alias or serial. */
      disk: DiskName;
      /** The map is of blocks changed since that checkpoint; without it, of blocks that hold data. */
      since?: {
        /** A checkpoint of the VM. */
        checkpoint: LibvirtName;
      };
      /** Where a trustworthy map cannot be had: `fail` with the named error, or give the `full` map with the cause in `reason`. */
      ifUntracked: 'fail' | 'full';
    }[],
  ];
  /** Create this checkpoint at the same instant. It is pending until `stopBackup` says `outcome: "success"`. */
  checkpoint?: Id;
  /** Freeze the guest's file systems for the instant. */
  quiesce: Quiesce;
  /** The backup and its exports are ended by themselves, outcome failed, when so long nobody has called `renewBackup`. Absent: `limits.maxLease` where that is set, else it stays until it is stopped. */
  leaseSeconds?: LeaseSeconds;
}
/** Result of startBackup. */
export interface StartBackupResult {
  /** The backup. */
  backupId: Id;
  /** The domain's UUID. */
  vmId: VmId;
  /** When. */
  created: Time;
  /** Whether the guest's file systems were frozen for the instant. */
  quiesced: boolean;
  /** The checkpoint that was created; absent where none was asked for or no disk can have one. */
  checkpoint?: string;
  /** The disks. */
  disks: {
    /** Its target name. */
    disk: string;
    /** Whether its map is `full` or `incremental`. */
    mode: 'full' | 'incremental';
    /** The checkpoint that an incremental map counts from. */
    since?: string;
    /** Why it is full although `since` was given. */
    reason?: Cause;
    /** Whether a checkpoint can cover it: false for raw disks. */
    tracked: boolean;
  }[];
  /** The backup's lease; null: until it is stopped. */
  lease: Lease | null;
}
/** Params of stopBackup, checked and with defaults filled in. */
export interface StopBackupParams {
  /** The backup. */
  backupId: Id;
  /** Whether the backup was good. */
  outcome?: Outcome;
  /** Tear its exports down first, unplugging their drives. */
  force: boolean;
}
/** Result of stopBackup. */
export interface StopBackupResult {
  /** The backup. */
  backupId: Id;
  /** What became of its checkpoint; null without one. */
  checkpoint: EndedCheckpoint | null;
}
/** Params of unmountDisk, checked and with defaults filled in. */
export interface UnmountDiskParams {
  /** The export. */
  exportId: Id;
  /** How the backup went. Required where a pending checkpoint depends on this call. */
  outcome?: 'success' | 'failed';
  /** Detach the drive first where it is attached to a VM. */
  force: boolean;
}
/** Result of unmountDisk. */
export interface UnmountDiskResult {
  /** The export. */
  exportId: Id;
  /** The checkpoint that depended on the export, if any. */
  checkpoint: EndedCheckpoint | null;
}
/** Params of waitEvents, checked and with defaults filled in. */
export interface WaitEventsParams {
  /** The number of the last event that the caller knows: `next` of the last answer. 0: all that is kept. Absent: from now on. A number beyond the newest (of another journal, or after the state was restored) is answered at once, with a gap. */
  after?: number;
  /** How long to wait for an event. 0: not at all. */
  timeoutSeconds: number;
  /** How many events to tell at most; fewer where they are long. */
  max: number;
}
/** Result of waitEvents. */
export interface WaitEventsResult {
  /** The id of the journal. Where it is not that of the last answer, the numbering began again, and this answer does not follow on that one. */
  journal: string;
  /** What happened after `after`, or after the gap, in order and without a number missing. */
  events: HostEvent[];
  /** The `after` of the next call. */
  next: number;
  /** Numbers before `events` that cannot be told: too long ago, lost in a crash, never given, or not of this journal. Null without any. */
  gap: {
    /** The first of them. */
    from: number;
    /** The last of them. */
    to: number;
  } | null;
}
/** The daemon's configuration. */
export interface Config {
  /** This host's id: part of every drive's serial, so that guest paths never collide between hosts. Empty: made from /etc/machine-id. */
  hostId: string;
  /** The libvirt daemon that this one works with. */
  libvirt: {
    /** The connection: the system's VMs, or those of the user that runs the daemon. */
    uri: 'qemu:///system' | 'qemu:///session';
    /** The path of libvirt's own UNIX socket, where it is not the usual one. Empty: found from the URI. */
    socket: string;
  };
  /** Where callers reach the daemon. */
  rpc: {
    /** The UNIX socket; one JSON value and a newline a message, both ways. At most 107 bytes, which is what the kernel takes. */
    socket: string;
    /** The group that may use that socket (mode 0660). Its members can read every disk, as root can. Where there is no such group, root alone. */
    group: string;
    /**
     * Addresses with ports (1 to 65535) for callers on other machines, e.g. "192.0.2.10:16520": TLS with a client certificate, then one JSON value and a newline a message, both ways. `[tls]` and `[[roles]]` say who may come in. Empty: none.
     *
     * @maxItems 16
     */
    tls:
      | []
      | [string]
      | [string, string]
      | [string, string, string]
      | [string, string, string, string]
      | [string, string, string, string, string]
      | [string, string, string, string, string, string]
      | [string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string, string]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ];
    /**
     * The same for HTTPS: one message or batch in the body of a POST to `/`.
     *
     * @maxItems 16
     */
    https:
      | []
      | [string]
      | [string, string]
      | [string, string, string]
      | [string, string, string, string]
      | [string, string, string, string, string]
      | [string, string, string, string, string, string]
      | [string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string, string]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ];
    /**
     * The same for WebSockets: a text message is one JSON value. May share an address with `https`.
     *
     * @maxItems 16
     */
    wss:
      | []
      | [string]
      | [string, string]
      | [string, string, string]
      | [string, string, string, string]
      | [string, string, string, string, string]
      | [string, string, string, string, string, string]
      | [string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string, string]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ];
  };
  /** The certificates of this host's network side, PEM files. They are read at the start of vmdiskd-gateway, and of vmdiskd where it listens on the network, and again at a reload, when files that are named here since then count too. */
  tls: {
    /** The host's own certificate, with those between it and its CA after it. Empty: there are no exports with certificates (`tls: "x509"`). */
    cert: string;
    /** The key of that certificate, without a passphrase, in a file that nobody else can read. */
    key: string;
    /** The CAs that clients' certificates must come from. No other is trusted, the system's neither. */
    clientCa: string;
    /** Their revocation lists, one for each CA in clientCa: with one missing or expired no certificate of that CA is accepted. Empty: revocation is not looked at. */
    crl: string;
  };
  /**
   * Who may do what over the network. A caller is known by the identities of its certificate; all rows that name one of them count, and the first names the caller as an owner. One that no row names may do nothing. After a reload the next call on a connection is judged anew; verbs at work finish.
   *
   * @maxItems 1024
   */
  roles: {
    /** An identity of a certificate: `subject:` and an RFC 4514 name (`subject:CN=engine,O=Example`), `dns:` or `uri:` and an alternative name. Compared whole. */
    identity: string;
    /** `observer` reads what is of its VMs; `backup` makes points in time, exports, and plugs drives in; `restore` may write, too; `admin` everything, as on the UNIX socket. */
    role: 'observer' | 'backup' | 'restore' | 'admin';
    /**
     * The VMs that it is for: UUIDs, or names; "*" is all. For `admin` it means nothing.
     *
     * @maxItems 4096
     */
    vms: string[];
  }[];
  /** Where the daemon keeps its files. */
  paths: {
    /** Exports and sockets: gone after a reboot, as they must be. Short, since a socket's path has at most 107 bytes and `/exports/<exportId>/nbd.sock` is added to it. */
    run: string;
    /** Records that outlive a reboot. */
    state: string;
    /** Scratch files and overlays, on a file system with room for what guests write during a backup. */
    scratch: string;
  };
  /** Which images may be opened. */
  images: {
    /**
     * Directories under which every image of a chain must lie, links resolved: an image's header may name any file of the host.
     *
     * @maxItems 256
     */
    allowedRoots: string[];
    /** The account that qemu-nbd and qemu-img run as, where the daemon is root; it owns nothing and is in no group. Where there is no such account, nobody's. */
    user: string;
  };
  /** How VMs run here. */
  qemu: {
    /** The group of QEMU's own account: it gets in at an export's socket when the drive is plugged in. Debian: libvirt-qemu; Fedora: qemu. */
    group: string;
    /** QEMU's own account: it makes the socket of a live backup. Debian: libvirt-qemu; Fedora: qemu. */
    user: string;
  };
  /** Which drives may be plugged into VMs of this host. */
  hotplug: {
    /**
     * Gateways whose drives may be plugged in here, as drives name them, e.g. "192.0.2.10:10809", "gw1.example" or "[2001:db8::1]:10809"; without a port: any port of that host. A drive that is reached at another address is `NotAuthorized`. QEMU shows all of them this host's certificate, whichever VM the drive is for, so name only hosts whose callers may read what is exported to this one. Empty: drives on UNIX sockets of this host alone; under systemd the service is then without a network, so that the first one needs a restart.
     *
     * @maxItems 1024
     */
    allowedHosts: string[];
  };
  /** Entries in systemd's journal, with fields; without systemd, JSON lines on the standard output. */
  log: {
    /** The least level that is written. */
    level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';
    /**
     * Parts of the program that also say what is for debugging, whatever the level: `libvirt` each call to it.
     *
     * @maxItems 32
     */
    debug: ('rpc' | 'exports' | 'libvirt' | 'events' | 'host' | 'gateway')[];
  };
  /** Numbers for Prometheus, by HTTP at `/metrics`. */
  metrics: {
    /** A UNIX socket's path (mode 0660, group `rpc.group`), e.g. "/run/vmdiskd/metrics.sock", or a loopback address with a port, e.g. "127.0.0.1:9737", where every local account can read the ids of exports and the names of VMs. Empty: none. */
    listen: string;
  };
  /** The TLS gateway, vmdiskd-gateway: the one way to exports over the network. */
  gateway: {
    /**
     * Addresses with ports (1 to 65535), e.g. "0.0.0.0:10809" or "[::]:10809"; drives name the port of the first. Empty: no network exports.
     *
     * @maxItems 16
     */
    listen:
      | []
      | [string]
      | [string, string]
      | [string, string, string]
      | [string, string, string, string]
      | [string, string, string, string, string]
      | [string, string, string, string, string, string]
      | [string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string]
      | [string, string, string, string, string, string, string, string, string, string, string, string]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ]
      | [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ];
    /** The name or address that is put into drives, without a port. Empty: the first of `listen`, or this host's name where that is all addresses. */
    advertise: string;
    /** Whether exports without TLS (`tls: "none"`) may be made, for clients on this very host: any local account can connect to them. */
    plaintextLoopback: boolean;
    /** Clients at once that have not shown who they are yet. Beyond it the oldest of the address with most of them is dropped: who opens many connections and says nothing is in nobody else's way. */
    handshakes: number;
    /** How long a client has to show who it is. */
    handshakeSeconds: number;
    /** Clients at once that have shown who they are. Each may hold 2 MiB of memory, where it reads more slowly than it is sent to. */
    connections: number;
    /** How long a client may take nothing of what is sent to it before it is dropped, so that one that hangs does not keep a place. */
    stallSeconds: number;
  };
  /** What callers may ask for. At a limit the answer is LimitReached. */
  limits: {
    /** Connections to the daemon at once; each may hold frameBytes of memory. */
    clients: number;
    /** Connections of one identity (`[[roles]]`) from the network at once: one certificate, or a client that leaks connections, must not take the places of all others. With as many as `clients` or more it limits nothing. */
    clientsPerIdentity: number;
    /** The size of one message. The longest drive is a few KiB; a batch is many. */
    frameBytes: number;
    /** The calls in one batch. */
    batch: number;
    /** Verbs at work at once, over all clients. getHostInfo and waitEvents are answered beyond it. */
    verbs: number;
    /** Exports at once: each is a process of some 20 MiB. */
    exports: number;
    /** Exports of one VM's disks at once: one that leaks exports must not take the places of all others. */
    exportsPerVm: number;
    /** The longest lease in seconds that an export or a backup gets, and the one of those that ask for none: whatever its caller has forgotten is gone after it. 0: as long as is asked for, and without a lease until it is torn down. */
    maxLease: number;
    /** Bytes that must be free where scratch files lie before a live backup begins; below that a warning, below a quarter of it the backup is ended, since QEMU would pause the guest. */
    scratchReserve: number;
    /** Bytes that the throw-away layer of one export with `access: "scratch"` may take: beyond it writes fail with ENOSPC, and reads go on. Less where that would leave less than `scratchReserve` free when the export begins. */
    scratchPerExport: number;
    /** The bytes that a live merge (deleteSnapshot) writes in a second, so that the guest's own I/O is not starved. 0: as fast as it goes. */
    mergeBytesPerSecond: number;
    /** Events that are kept for waitEvents, in memory and on disk: a caller that stays away for longer is told a gap, and reads the lists. One is some 300 bytes. */
    events: number;
    /** Bytes of those events, where they are longer than usual. On disk it may be a quarter more. */
    eventBytes: number;
    /** Callers that wait for events (waitEvents) at once. They take no place among the verbs at work. */
    eventWaiters: number;
    /** How long each verb may take, in seconds. Then it is undone and the caller gets Timeout. */
    deadlineSeconds: {
      /** For prepareBackupDisk. */
      prepareBackupDisk: number;
      /** For teardownBackupDisk. */
      teardownBackupDisk: number;
      /** For hotplugDisk. */
      hotplugDisk: number;
      /** For hotunplugDisk. */
      hotunplugDisk: number;
      /** For getChangedBlocks. */
      getChangedBlocks: number;
      /** For cancelJob. */
      cancelJob: number;
      /** For confirmCheckpoint. */
      confirmCheckpoint: number;
      /** For createSnapshot. */
      createSnapshot: number;
      /** For deleteCheckpoint. */
      deleteCheckpoint: number;
      /** For deleteSnapshot. */
      deleteSnapshot: number;
      /** For drain. */
      drain: number;
      /** For getExport. */
      getExport: number;
      /** For getHostInfo. */
      getHostInfo: number;
      /** For getJob. */
      getJob: number;
      /** For getSnapConfig. */
      getSnapConfig: number;
      /** For listBackups. */
      listBackups: number;
      /** For listCheckpoints. */
      listCheckpoints: number;
      /** For listDisks. */
      listDisks: number;
      /** For listExports. */
      listExports: number;
      /** For listJobs. */
      listJobs: number;
      /** For listSnapshots. */
      listSnapshots: number;
      /** For mountDisk. */
      mountDisk: number;
      /** For redefineCheckpoints. */
      redefineCheckpoints: number;
      /** For renewBackup. */
      renewBackup: number;
      /** For renewExport. */
      renewExport: number;
      /** For rpc.discover. */
      'rpc.discover': number;
      /** For startBackup. */
      startBackup: number;
      /** For stopBackup. */
      stopBackup: number;
      /** For unmountDisk. */
      unmountDisk: number;
      /** For waitEvents. */
      waitEvents: number;
    };
    /** How long a state may last in which a thing can be used by nobody, in seconds. Then the attempt to end it is given up, said in the log, and begun again from the records. */
    stateSeconds: {
      /** From the daemon's start until verbs are answered; what is not in order by then is gone on with meanwhile. */
      recovery: number;
      /** An attempt to finish or take back an export, a backup or a snapshot that was left half-way. A snapshot that libvirt has made is merged then, which takes as long as it takes and is not cut short. */
      halfWay: number;
      /** How long a guest may take to let go of a drive that is unplugged because its export ends, or because a hot-plug failed. */
      detach: number;
      /** An attempt to end what its lease has left. */
      leaseEnd: number;
      /** How long a merge waits for a libvirt that went away, before its job fails; QEMU goes on with it meanwhile. */
      libvirtAway: number;
      /** How long a guest stays frozen while libvirt makes a snapshot or begins a backup; then that is given up and undone. */
      frozen: number;
    };
  };
}
