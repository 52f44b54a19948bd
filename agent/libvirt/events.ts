/**
 * The events that can be subscribed to: `virDomainEventID`, the procedure that carries it and its message
 * (src/remote/remote_protocol.x, remote_domain_event_..._msg). Each message begins with the callback's number.
 */
import { type TypedParams, typedParams } from './typed-params.js';
import { type Domain, domain, optionalText, text } from './wire-types.js';
import { int, mapped, size, struct, type XdrType } from './xdr-types.js';

/** What every event has. */
export interface DomainEvent {
  readonly domain: Domain;
}

/** A domain was defined, started, stopped, ... `event` is a `LifecycleEvent`, `detail` says why, by event. */
export interface LifecycleMessage extends DomainEvent {
  readonly event: number;
  readonly detail: number;
}

/** A device, by its alias, came or went, or the guest refused to let it go. */
export interface DeviceMessage extends DomainEvent {
  readonly alias: string;
}

/** A block job ended or is ready to pivot: `type` is a `BlockJobType`, `status` a `BlockJobStatus`. */
export interface BlockJobMessage extends DomainEvent {
  /** The disk's target, such as `vda` (VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2). */
  readonly disk: string;
  readonly type: number;
  readonly status: number;
}

/** A node was written to beyond the offset set with `block.setThreshold`; it has to be set again for a next event. */
export interface BlockThresholdMessage extends DomainEvent {
  /** The node as it was named when the threshold was set: `vda` or `vda[3]`. */
  readonly device: string;
  readonly path: string | null;
  /** Bytes. */
  readonly threshold: number;
  /** Bytes by which the write went beyond it. */
  readonly excess: number;
}

/** A guest's I/O failed; `action` is an `IoErrorAction`, `reason` such as `enospc`, or empty. */
export interface IoErrorMessage extends DomainEvent {
  readonly path: string;
  readonly alias: string;
  readonly action: number;
  readonly reason: string;
}

/** A job (backup, migration, save, ...) ended; the statistics are those of `jobs.getStats`. */
export interface JobCompletedMessage extends DomainEvent {
  readonly params: TypedParams;
}

/** The guest agent came or went: 1 connected, 2 disconnected; the reason is 1 domain started, 2 channel. */
export interface AgentLifecycleMessage extends DomainEvent {
  readonly state: number;
  readonly reason: number;
}

/** A disk's source was changed by libvirt, for instance left out because the file is missing. */
export interface DiskChangeMessage extends DomainEvent {
  readonly oldPath: string | null;
  readonly newPath: string | null;
  readonly alias: string;
  readonly reason: number;
}

/** Event names and what their listeners are given. */
export interface EventMessages {
  lifecycle: LifecycleMessage;
  reboot: DomainEvent;
  ioError: IoErrorMessage;
  diskChange: DiskChangeMessage;
  deviceAdded: DeviceMessage;
  deviceRemoved: DeviceMessage;
  deviceRemovalFailed: DeviceMessage;
  blockJob: BlockJobMessage;
  blockThreshold: BlockThresholdMessage;
  agentLifecycle: AgentLifecycleMessage;
  jobCompleted: JobCompletedMessage;
}

export type EventName = keyof EventMessages;

/** One row. */
export interface EventDefinition<M> {
  /** `virDomainEventID`. */
  readonly id: number;
  /** REMOTE_PROC_DOMAIN_EVENT_..., which carries it. */
  readonly procedure: number;
  readonly message: XdrType<M>;
}

/** Adds the callback's number in front and drops it: one registration a kind, so the procedure says it all. */
function event<M>(id: number, procedure: number, message: XdrType<M>): EventDefinition<M> {
  const withCallback = struct({ callbackId: int, message });
  return {
    id,
    procedure,
    message: mapped(
      withCallback,
      (value: M) => ({ callbackId: 0, message: value }),
      (wire) => wire.message as M,
    ),
  };
}

const device = struct({ domain, alias: text });

/** REMOTE_DOMAIN_JOB_STATS_MAX. */
export const jobStatsMax = 64;

export const eventDefinitions: { readonly [N in EventName]: EventDefinition<EventMessages[N]> } = {
  lifecycle: event(0, 318, struct({ domain, event: int, detail: int })),
  reboot: event(1, 319, struct({ domain })),
  ioError: event(6, 324, struct({ domain, path: text, alias: text, action: int, reason: text })),
  diskChange: event(
    9,
    327,
    struct({ domain, oldPath: optionalText, newPath: optionalText, alias: text, reason: int }),
  ),
  deviceRemoved: event(15, 333, device),
  blockJob: event(16, 339, struct({ domain, disk: text, type: int, status: int })),
  agentLifecycle: event(18, 348, struct({ domain, state: int, reason: int })),
  deviceAdded: event(19, 354, device),
  jobCompleted: event(21, 363, struct({ domain, params: typedParams(jobStatsMax) })),
  deviceRemovalFailed: event(22, 367, device),
  blockThreshold: event(
    24,
    385,
    struct({ domain, device: text, path: optionalText, threshold: size, excess: size }),
  ),
};
