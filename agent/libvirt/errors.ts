/**
 * What a call can be rejected with. `LibvirtError` is libvirt's own answer; the others say that there was none, and
 * whether libvirtd may have acted all the same (`sent`).
 */
import { ErrorCode } from './error-codes.js';
import { domain, optionalText, text, uuid } from './wire-types.js';
import { int, optional, struct, type ValueOf } from './xdr-types.js';

const network = struct({ name: text, uuid });

/** `remote_error`, which is `virNetMessageError`; `domainObject` and `networkObject` are no longer used by libvirt. */
export const remoteError = struct({
  code: int,
  domain: int,
  message: optionalText,
  level: int,
  domainObject: optional(domain),
  str1: optionalText,
  str2: optionalText,
  str3: optionalText,
  int1: int,
  int2: int,
  networkObject: optional(network),
});

/** An error that libvirt answered. */
export class LibvirtError extends Error {
  override readonly name = 'LibvirtError';
  /** `virErrorNumber`; see `ErrorCode`. */
  readonly code: number;
  /** `virErrorDomain`, the part of libvirt that reports it; see `ErrorDomain`. Nothing to do with virtual machines. */
  readonly domain: number;
  /** `virErrorLevel`; see `ErrorLevel`. */
  readonly level: number;
  /** The procedure that was called, such as `domainGetXMLDesc`. */
  readonly procedure: string;
  /** Extra strings and numbers; their meaning depends on the code. `str1` is often the message's format. */
  readonly str1: string | null;
  readonly str2: string | null;
  readonly str3: string | null;
  readonly int1: number;
  readonly int2: number;

  constructor(procedure: string, wire: ValueOf<typeof remoteError>) {
    super(wire.message ?? `libvirt error ${wire.code} without a message`);
    this.procedure = procedure;
    this.code = wire.code;
    this.domain = wire.domain;
    this.level = wire.level;
    this.str1 = wire.str1;
    this.str2 = wire.str2;
    this.str3 = wire.str3;
    this.int1 = wire.int1;
    this.int2 = wire.int2;
  }
}

/** There is no connection to libvirtd now; nothing was sent. `cause` is why the last attempt or connection failed. */
export class NotConnectedError extends Error {
  override readonly name = 'NotConnectedError';
  readonly sent = false;
}

/**
 * The connection ended: libvirtd went away, did not answer keepalive, or sent what is not its protocol (`cause`).
 * With `sent` the call may have been carried out; without, it was not.
 */
export class ConnectionLostError extends Error {
  override readonly name = 'ConnectionLostError';

  constructor(
    message: string,
    readonly sent: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/**
 * No answer within the call's time limit. With `sent`, libvirtd may still carry it out: libvirt has no way to take a
 * call back. Without, it was still waiting for its turn and will not be sent.
 */
export class CallTimeoutError extends Error {
  override readonly name = 'CallTimeoutError';

  constructor(
    readonly procedure: string,
    readonly timeoutMs: number,
    readonly sent: boolean,
  ) {
    super(`libvirt did not answer ${procedure} within ${timeoutMs} ms`);
  }
}

/** An answer that cannot be understood (`cause` is usually an `XdrError`). The call has been carried out. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly sent = true;
}

/** A call that does not fit into a message. Nothing was sent. */
export class MessageTooLargeError extends Error {
  override readonly name = 'MessageTooLargeError';
  readonly sent = false;

  constructor(
    readonly procedure: string,
    readonly bytes: number,
    readonly maxBytes: number,
  ) {
    super(`${procedure} takes a message of ${bytes} bytes; at most ${maxBytes} are allowed`);
  }
}

/** libvirtd wants an authentication that is not spoken here, or refused ours; the message says what to do. */
export class AuthenticationError extends Error {
  override readonly name = 'AuthenticationError';
}

/** Whether `error` is libvirt's answer with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly number[]): error is LibvirtError {
  return error instanceof LibvirtError && codes.includes(error.code);
}

/** No domain has that UUID, name or number. */
export function isNoDomain(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.noDomain);
}

/** The domain has no checkpoint of that name, or the checkpoint has no parent. */
export function isNoCheckpoint(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.noDomainCheckpoint);
}

/** The domain has no snapshot of that name, or the snapshot has no parent, or none is current. */
export function isNoSnapshot(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.noDomainSnapshot);
}

/** No backup job runs on the domain. */
export function isNoBackup(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.noDomainBackup);
}

/** The domain has no metadata of that kind. */
export function isNoMetadata(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.noDomainMetadata);
}

/** The checkpoint's bitmap is missing, disabled or broken: no trustworthy map can be had from it. */
export function isInconsistentCheckpoint(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.checkpointInconsistent);
}

/** Another job held the domain's state-change lock for 30 s ("cannot acquire state change lock"). */
export function isStateLockTimeout(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.operationTimeout);
}

/** Not in the domain's present state: shut off, running, already so. */
export function isOperationInvalid(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.operationInvalid);
}

/** This libvirt, this driver or this QEMU cannot do it at all. */
export function isOperationUnsupported(error: unknown): error is LibvirtError {
  return hasCode(
    error,
    ErrorCode.operationUnsupported,
    ErrorCode.noSupport,
    ErrorCode.configUnsupported,
    ErrorCode.argumentUnsupported,
  );
}

/** The guest agent is absent, does not answer, or fell out of step. */
export function isAgentUnavailable(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.agentUnresponsive, ErrorCode.agentUnsynced);
}

/** The device that was to be detached or changed is not there. */
export function isDeviceMissing(error: unknown): error is LibvirtError {
  return hasCode(error, ErrorCode.deviceMissing);
}

/** The connection is not there, or went away under the call: worth another try once the client is back. */
export function isConnectionFailure(error: unknown): error is NotConnectedError | ConnectionLostError {
  return error instanceof NotConnectedError || error instanceof ConnectionLostError;
}
