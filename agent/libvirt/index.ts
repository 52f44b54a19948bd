/**
 * A client of libvirt's RPC protocol over its UNIX socket: many calls at once, a time limit on each, events, and a
 * connection that comes back. Needs nothing but Node.
 *
 *     const client = connectLibvirt();
 *     await client.ready();
 *     const domain = await client.domains.lookupByName('web1');
 *     const removed = client.subscribe('deviceRemoved', ({ alias }) => console.log(alias), { domain });
 *     await removed.registered();
 *     await client.devices.detach(domain, xml);
 *     await client.close();
 *
 * libvirt counts this protocol among what it keeps stable (https://libvirt.org/support.html, "RPC protocol").
 */
export type { BackoffOptions } from './backoff.js';
export type { BackupCalls } from './calls/backup.js';
export type {
  BlockCalls,
  BlockCommitRequest,
  BlockInfo,
  BlockJobInfo,
  BlockJobRequest,
  DiskError,
} from './calls/block.js';
export type { CheckpointCalls } from './calls/checkpoints.js';
export type { DeviceCalls } from './calls/devices.js';
export type { DomainCalls, DomainInfo, DomainStateInfo, Metadata } from './calls/domains.js';
export type { GuestCalls } from './calls/guest.js';
export { type DomainCapabilitiesQuery, formatVersion, type HostCalls } from './calls/host.js';
export type { JobCalls, JobInfo, JobStats } from './calls/jobs.js';
export type { SnapshotCalls } from './calls/snapshots.js';
export {
  connectLibvirt,
  LibvirtClient,
  type LibvirtClientEvents,
  type LibvirtClientStatus,
} from './client.js';
export type { CallOptions } from './deadline.js';
export { ErrorCode, ErrorDomain, ErrorLevel } from './error-codes.js';
export {
  AuthenticationError,
  CallTimeoutError,
  ConnectionLostError,
  hasCode,
  isAgentUnavailable,
  isConnectionFailure,
  isDeviceMissing,
  isInconsistentCheckpoint,
  isNoBackup,
  isNoCheckpoint,
  isNoDomain,
  isNoMetadata,
  isNoSnapshot,
  isOperationInvalid,
  isOperationUnsupported,
  isStateLockTimeout,
  LibvirtError,
  MessageTooLargeError,
  NotConnectedError,
  ProtocolError,
} from './errors.js';
export type {
  AgentLifecycleMessage,
  BlockJobMessage,
  BlockThresholdMessage,
  DeviceMessage,
  DiskChangeMessage,
  DomainEvent,
  EventMessages,
  EventName,
  IoErrorMessage,
  JobCompletedMessage,
  LifecycleMessage,
} from './events.js';
export {
  AbortJobFlag,
  BackupBeginFlag,
  BlockCommitFlag,
  BlockJobAbortFlag,
  BlockRebaseFlag,
  CheckpointCreateFlag,
  CheckpointDeleteFlag,
  CheckpointListFlag,
  CheckpointXmlFlag,
  DeviceFlag,
  DomainAffect,
  DomainDefineFlag,
  DomainDestroyFlag,
  DomainShutdownFlag,
  DomainStartFlag,
  DomainUndefineFlag,
  DomainXmlFlag,
  JobStatsFlag,
  ListDomainsFlag,
  MetadataType,
  SnapshotCreateFlag,
  SnapshotDeleteFlag,
  SnapshotListFlag,
  SnapshotXmlFlag,
} from './flags.js';
export { FramingError } from './framing.js';
export type { IgnoredMessages } from './ignored.js';
export type { KeepAliveOptions } from './keepalive.js';
export type { LibvirtOptions } from './options.js';
export { type Procedure, procedure } from './procedure.js';
export { findSocket } from './socket-path.js';
export {
  BlockJobStatus,
  BlockJobType,
  BlockStat,
  DiskErrorCode,
  DomainState,
  IoErrorAction,
  JobOperation,
  JobStat,
  JobType,
  LifecycleEvent,
  PausedReason,
  ShutoffReason,
  StartedDetail,
  StoppedDetail,
  SuspendedDetail,
} from './states.js';
export type { EventListener, Subscription } from './subscriptions.js';
export type { TypedParams, TypedParamValue } from './typed-params.js';
export { type Checkpoint, type Domain, isUuid, type Snapshot } from './wire-types.js';
export { XdrError } from './xdr.js';
