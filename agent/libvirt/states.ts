/** What libvirt reports in numbers, by the names of include/libvirt/libvirt-domain.h. */

/** `virDomainState`. */
export const DomainState = {
  noState: 0,
  running: 1,
  blocked: 2,
  paused: 3,
  /** On its way down. */
  shutdown: 4,
  shutoff: 5,
  crashed: 6,
  pmSuspended: 7,
} as const;

/** `virDomainPausedReason`, the reason of `DomainState.paused`. */
export const PausedReason = {
  unknown: 0,
  user: 1,
  migration: 2,
  save: 3,
  dump: 4,
  ioError: 5,
  watchdog: 6,
  fromSnapshot: 7,
  shuttingDown: 8,
  snapshot: 9,
  crashed: 10,
  startingUp: 11,
  postcopy: 12,
  postcopyFailed: 13,
} as const;

/** `virDomainShutoffReason`, the reason of `DomainState.shutoff`. */
export const ShutoffReason = {
  unknown: 0,
  shutdown: 1,
  destroyed: 2,
  crashed: 3,
  migrated: 4,
  saved: 5,
  failed: 6,
  fromSnapshot: 7,
  daemon: 8,
} as const;

/** `virDomainEventType`, the `event` of a lifecycle message. */
export const LifecycleEvent = {
  defined: 0,
  undefined: 1,
  started: 2,
  suspended: 3,
  resumed: 4,
  stopped: 5,
  shutdown: 6,
  pmSuspended: 7,
  crashed: 8,
} as const;

/** `virDomainEventStartedDetailType`. */
export const StartedDetail = { booted: 0, migrated: 1, restored: 2, fromSnapshot: 3, wakeup: 4 } as const;

/** `virDomainEventStoppedDetailType`. */
export const StoppedDetail = {
  shutdown: 0,
  destroyed: 1,
  crashed: 2,
  migrated: 3,
  saved: 4,
  failed: 5,
  fromSnapshot: 6,
} as const;

/** `virDomainEventSuspendedDetailType`. */
export const SuspendedDetail = {
  paused: 0,
  migrated: 1,
  ioError: 2,
  watchdog: 3,
  restored: 4,
  fromSnapshot: 5,
  apiError: 6,
  postcopy: 7,
  postcopyFailed: 8,
} as const;

/** `virDomainBlockJobType`. */
export const BlockJobType = { unknown: 0, pull: 1, copy: 2, commit: 3, activeCommit: 4, backup: 5 } as const;

/** `virConnectDomainEventBlockJobStatus`. */
export const BlockJobStatus = {
  completed: 0,
  failed: 1,
  canceled: 2,
  /** An active commit or a copy can be pivoted. */
  ready: 3,
} as const;

/** `virDomainEventIOErrorAction`: what QEMU did about it. */
export const IoErrorAction = { none: 0, pause: 1, report: 2 } as const;

/** `virDomainDiskErrorCode`. */
export const DiskErrorCode = { none: 0, unspecified: 1, noSpace: 2 } as const;

/** `virDomainJobType`. */
export const JobType = {
  none: 0,
  bounded: 1,
  /** Without an end that is known: a pull-mode backup, a migration. */
  unbounded: 2,
  completed: 3,
  failed: 4,
  cancelled: 5,
} as const;

/** `virDomainJobOperation`: what the `operation` of job statistics means. */
export const JobOperation = {
  unknown: 0,
  start: 1,
  save: 2,
  restore: 3,
  migrationIn: 4,
  migrationOut: 5,
  snapshot: 6,
  snapshotRevert: 7,
  dump: 8,
  backup: 9,
  snapshotDelete: 10,
} as const;

/** Fields of job statistics (VIR_DOMAIN_JOB_... in libvirt-domain.h). Bytes, except as noted. */
export const JobStat = {
  /** A `JobOperation`. */
  operation: 'operation',
  /** Milliseconds. */
  timeElapsed: 'time_elapsed',
  dataTotal: 'data_total',
  dataProcessed: 'data_processed',
  dataRemaining: 'data_remaining',
  diskTotal: 'disk_total',
  diskProcessed: 'disk_processed',
  diskRemaining: 'disk_remaining',
  /** How full the scratch files of a pull-mode backup are. */
  diskTempUsed: 'disk_temp_used',
  diskTempTotal: 'disk_temp_total',
  /** A boolean, in completed jobs. */
  success: 'success',
  /** A string, in failed jobs. */
  errorMessage: 'errmsg',
} as const;

/** Fields of `block.getStats` (VIR_DOMAIN_BLOCK_STATS_...). Times are nanoseconds. */
export const BlockStat = {
  readBytes: 'rd_bytes',
  readRequests: 'rd_operations',
  readTotalTimes: 'rd_total_times',
  writeBytes: 'wr_bytes',
  writeRequests: 'wr_operations',
  writeTotalTimes: 'wr_total_times',
  flushRequests: 'flush_operations',
  flushTotalTimes: 'flush_total_times',
  errors: 'errs',
} as const;
