/**
 * The one registry of errors that callers see: name, number, and whether the same call may succeed later. Where it
 * `depends` on the case, each says so itself (`ErrorDetails.retryable`), and what stands here is for those that do not.
 * Where VDSM has a code for the same fault the number is VDSM's; ours begin at 5000.
 */
export const errorRegistry = {
  NoSuchVM: { code: 1, retryable: false },
  VMNotRunning: { code: 6, retryable: false },
  NoSuchImage: { code: 13, retryable: false },
  WrongFormat: { code: 17, retryable: false },
  HotplugDiskFailed: { code: 45, retryable: false },
  HotunplugDiskFailed: { code: 46, retryable: false },
  SnapshotFailed: { code: 48, retryable: false },
  MigrationInProgress: { code: 51, retryable: true },
  MergeFailed: { code: 52, retryable: false, depends: true },
  NoSuchJob: { code: 66, retryable: false },
  FreezeGuestFSFailed: { code: 76, retryable: true, depends: true },
  RecoveryInProgress: { code: 99, retryable: true },
  InvalidBitmapChain: { code: 946, retryable: false },
  BitmapDoesNotExist: { code: 947, retryable: false },
  BackupError: { code: 1600, retryable: false },
  NoSuchBackup: { code: 1601, retryable: false },
  CheckpointError: { code: 1610, retryable: false },
  NoSuchCheckpoint: { code: 1611, retryable: false },
  InconsistentCheckpoint: { code: 1612, retryable: false },
  AlreadyExists: { code: 5000, retryable: false },
  NoSuchExport: { code: 5001, retryable: false },
  ExportInUse: { code: 5002, retryable: true },
  ExportFailed: { code: 5003, retryable: false },
  NoSuchDisk: { code: 5004, retryable: false },
  DiskInUse: { code: 5005, retryable: true },
  PathNotAllowed: { code: 5006, retryable: false },
  UnsafeImage: { code: 5007, retryable: false },
  NotTracked: { code: 5008, retryable: false },
  BackupBusy: { code: 5009, retryable: true },
  NoSuchSnapshot: { code: 5010, retryable: false },
  SnapshotInUse: { code: 5011, retryable: true, depends: true },
  HotunplugTimeout: { code: 5012, retryable: true },
  HotunplugRefused: { code: 5013, retryable: true },
  NoFreeSlot: { code: 5014, retryable: false },
  LibvirtUnavailable: { code: 5015, retryable: true },
  Timeout: { code: 5016, retryable: true },
  NotAuthorized: { code: 5017, retryable: false },
  LimitReached: { code: 5018, retryable: true },
  ScratchFull: { code: 5019, retryable: true },
  CheckpointPending: { code: 5020, retryable: true },
  NotOurs: { code: 5021, retryable: false },
  ToolMissing: { code: 5022, retryable: false },
  UnsupportedDisk: { code: 5023, retryable: false },
  GatewayUnavailable: { code: 5024, retryable: true, depends: true },
  DrainFailed: { code: 5025, retryable: true },
} as const satisfies Record<string, { code: number; retryable: boolean; depends?: true }>;

export type ErrorName = keyof typeof errorRegistry;

/** Why something is not as it was asked for, as it stands in records and answers. */
export interface Cause {
  name: ErrorName;
  message: string;
}

/** What an error is about; every member ends up in `error.data`, except `cause`, which is only logged. */
export interface ErrorDetails {
  vmId?: string;
  disk?: string;
  exportId?: string;
  libvirt?: { code: number; domain: number; message: string };
  stderr?: string;
  /** Overrides the registry where this very case differs, of errors that it marks with `depends`. */
  retryable?: boolean;
  cause?: unknown;
}

/** A fault that the caller is told about by name. `message` is one sentence: the fact, and the remedy. */
export class AgentError extends Error {
  override readonly name: ErrorName;
  readonly code: number;
  readonly retryable: boolean;
  readonly details: Omit<ErrorDetails, 'cause' | 'retryable'>;

  constructor(name: ErrorName, message: string, { cause, retryable, ...details }: ErrorDetails = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = name;
    this.code = errorRegistry[name].code;
    this.retryable = retryable ?? errorRegistry[name].retryable;
    this.details = details;
  }
}

/** A fault in one member of the params: `path` is a JSON pointer (`/drive/hosts/0/socket`, empty: the params). */
export interface Issue {
  readonly path: string;
  readonly message: string;
}

/**
 * Params that are refused, answered as JSON-RPC's own -32602 with the issues. Thrown by validation, and by a verb
 * for what no schema can say (an offset that is no multiple of the granularity).
 */
export class InvalidParams extends Error {
  override readonly name = 'InvalidParams';

  constructor(
    message: string,
    readonly issues: readonly Issue[],
  ) {
    super(message);
  }
}
