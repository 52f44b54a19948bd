/**
 * libvirt's flags, by the names of its headers (include/libvirt/libvirt-domain*.h). Combine them with `|`.
 *
 * VIR_DOMAIN_START_AUTODESTROY is left out on purpose: it ties a domain to one connection, of which a client has several.
 */

/** `virConnectListAllDomainsFlags`; flags of one group widen, groups narrow. */
export const ListDomainsFlag = {
  active: 1,
  inactive: 2,
  persistent: 4,
  transient: 8,
  running: 16,
  paused: 32,
  shutoff: 64,
  other: 128,
  hasSnapshot: 0x1000,
  noSnapshot: 0x2000,
  hasCheckpoint: 0x4000,
  noCheckpoint: 0x8000,
} as const;

/** `virDomainXMLFlags`. */
export const DomainXmlFlag = {
  /** With passwords and other secrets. */
  secure: 1,
  /** As it will be at the next start. */
  inactive: 2,
  updateCpu: 4,
  migratable: 8,
} as const;

/** `virDomainCreateFlags`. */
export const DomainStartFlag = {
  paused: 1,
  bypassCache: 4,
  forceBoot: 8,
  validate: 16,
  resetNvram: 32,
} as const;

/** `virDomainDefineFlags`. */
export const DomainDefineFlag = { validate: 1 } as const;

/** `virDomainUndefineFlagsValues`. */
export const DomainUndefineFlag = {
  managedSave: 1,
  snapshotsMetadata: 2,
  nvram: 4,
  keepNvram: 8,
  checkpointsMetadata: 16,
  tpm: 32,
  keepTpm: 64,
} as const;

/** `virDomainDestroyFlagsValues`. */
export const DomainDestroyFlag = { graceful: 1, removeLogs: 2 } as const;

/** `virDomainShutdownFlagValues`: how the guest is asked. */
export const DomainShutdownFlag = { acpiPowerButton: 1, guestAgent: 2 } as const;

/** `virDomainModificationImpact`: which of a domain's two configurations is meant. */
export const DomainAffect = {
  /** The running instance, or, shut off, the configuration. */
  current: 0,
  live: 1,
  /** What the next start will use. */
  config: 2,
} as const;

/** `virDomainDeviceModifyFlags`: `DomainAffect` and this. */
export const DeviceFlag = { ...DomainAffect, force: 4 } as const;

/** `virDomainMetadataType`. */
export const MetadataType = { description: 0, title: 1, element: 2 } as const;

/** `virDomainBlockCommitFlags`, without the unit of bandwidth, which is always bytes here. */
export const BlockCommitFlag = {
  /** Only into the next file below `top`. */
  shallow: 1,
  /** Delete what has been committed. */
  delete: 2,
  /** `top` is the active layer: the job stays until it is ended with `BlockJobAbortFlag.pivot`. */
  active: 4,
  /** Keep backing file names relative. */
  relative: 8,
} as const;

/** `virDomainBlockRebaseFlags`, without the unit of bandwidth. */
export const BlockRebaseFlag = {
  shallow: 1,
  reuseExternal: 2,
  copyRaw: 4,
  copy: 8,
  relative: 16,
  copyDevice: 32,
} as const;

/** `virDomainBlockJobAbortFlags`. */
export const BlockJobAbortFlag = {
  /** Do not wait for the job to end. */
  async: 1,
  /** Go over to the copy, or to the base after an active commit. */
  pivot: 2,
} as const;

/** `virDomainBackupBeginFlags`. */
export const BackupBeginFlag = { reuseExternal: 1 } as const;

/** `virDomainAbortJobFlagsValues`. */
export const AbortJobFlag = { postcopy: 1 } as const;

/** `virDomainGetJobStatsFlags`. */
export const JobStatsFlag = {
  /** Of the job that ended last; libvirt forgets them then. */
  completed: 1,
  /** With `completed`: do not forget. */
  keepCompleted: 2,
} as const;

/** `virDomainCheckpointCreateFlags`. */
export const CheckpointCreateFlag = {
  /** Metadata only, of a checkpoint that there was. */
  redefine: 1,
  /** Freeze the guest's file systems through its agent. */
  quiesce: 2,
  /** With `redefine`: check that the bitmaps are there (running domains only). */
  redefineValidate: 4,
} as const;

/** `virDomainCheckpointListFlags`. `roots` is for a domain, `descendants` the same bit for a checkpoint's children. */
export const CheckpointListFlag = {
  roots: 1,
  descendants: 1,
  /** Parents before children. */
  topological: 2,
  leaves: 4,
  noLeaves: 8,
} as const;

/** `virDomainCheckpointXMLFlags`. */
export const CheckpointXmlFlag = { secure: 1, noDomain: 2, size: 4 } as const;

/** `virDomainCheckpointDeleteFlags`. */
export const CheckpointDeleteFlag = {
  children: 1,
  /** Leave the bitmaps where they are. */
  metadataOnly: 2,
  childrenOnly: 4,
} as const;

/** `virDomainSnapshotCreateFlags`. */
export const SnapshotCreateFlag = {
  redefine: 1,
  current: 2,
  noMetadata: 4,
  halt: 8,
  diskOnly: 16,
  /** The new files are there already. */
  reuseExternal: 32,
  /** Freeze the guest's file systems through its agent. */
  quiesce: 64,
  /** All disks or none. */
  atomic: 128,
  live: 256,
  validate: 512,
} as const;

/** `virDomainSnapshotListFlags`. `roots` is for a domain, `descendants` the same bit for a snapshot's children. */
export const SnapshotListFlag = {
  roots: 1,
  descendants: 1,
  metadata: 2,
  leaves: 4,
  noLeaves: 8,
  noMetadata: 16,
  inactive: 32,
  active: 64,
  diskOnly: 128,
  internal: 256,
  external: 512,
  /** Parents before children. */
  topological: 1024,
} as const;

/** `virDomainSnapshotXMLFlags`. */
export const SnapshotXmlFlag = { secure: 1 } as const;

/** `virDomainSnapshotDeleteFlags`. */
export const SnapshotDeleteFlag = {
  children: 1,
  /** Leave the files and their contents alone. */
  metadataOnly: 2,
  childrenOnly: 4,
} as const;
