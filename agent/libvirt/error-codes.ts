/** Numbers in libvirt's errors, by the names of include/libvirt/virterror.h. Those that a caller may act on. */

/** `virErrorNumber`: what went wrong. */
export const ErrorCode = {
  internalError: 1,
  noMemory: 2,
  noSupport: 3,
  noConnect: 5,
  invalidConn: 6,
  invalidDomain: 7,
  invalidArg: 8,
  operationFailed: 9,
  xmlError: 27,
  domExist: 28,
  operationDenied: 29,
  systemError: 38,
  rpc: 39,
  noDomain: 42,
  authFailed: 45,
  operationInvalid: 55,
  configUnsupported: 67,
  /** Also what a call gets that waited 30 s for the domain's state-change lock. */
  operationTimeout: 68,
  noDomainSnapshot: 72,
  argumentUnsupported: 74,
  operationAborted: 78,
  authCancelled: 79,
  noDomainMetadata: 80,
  blockCopyActive: 83,
  operationUnsupported: 84,
  agentUnresponsive: 86,
  resourceBusy: 87,
  accessDenied: 88,
  xmlInvalidSchema: 92,
  authUnavailable: 94,
  agentUnsynced: 97,
  deviceMissing: 99,
  noDomainCheckpoint: 103,
  noDomainBackup: 104,
  /** A checkpoint whose bitmap is missing, disabled or broken. */
  checkpointInconsistent: 109,
  multipleDomains: 110,
} as const;

/** `virErrorDomain`: which part of libvirt says so. */
export const ErrorDomain = {
  none: 0,
  xml: 5,
  rpc: 7,
  qemu: 10,
  remote: 13,
  storage: 18,
  domain: 20,
  cpu: 31,
  domainSnapshot: 35,
  auth: 46,
  capabilities: 44,
  security: 24,
  locking: 42,
  polkit: 60,
  cgroup: 54,
  systemd: 56,
  domainCheckpoint: 69,
} as const;

/** `virErrorLevel`. */
export const ErrorLevel = { none: 0, warning: 1, error: 2 } as const;
