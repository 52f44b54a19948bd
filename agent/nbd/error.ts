/**
 * What went wrong with an NBD server:
 * - `unreachable`: no connection could be made
 * - `closed`: it ended the connection, or died, before the answer was whole
 * - `protocol`: it broke the specification, or a limit of ours; the connection is dropped
 * - `unsupported`: it cannot do what is needed (structured replies, a metadata context)
 * - `refused`: it answered an option with an error; `code` is the `NBD_REP_ERR_…` name
 * - `failed`: it answered a request with an error; `code` is the `NBD_E…` name
 * - `untrusted`: its certificate does not prove that it is the server that is meant
 * - `unwelcome`: it ended the connection once it had seen our certificate
 */
export type NbdErrorKind =
  | 'unreachable'
  | 'closed'
  | 'protocol'
  | 'unsupported'
  | 'refused'
  | 'failed'
  | 'untrusted'
  | 'unwelcome';

export class NbdError extends Error {
  override readonly name = 'NbdError';
  readonly kind: NbdErrorKind;
  /** The specification's name of the error that the server sent, or the system's (`ECONNREFUSED`). */
  readonly code: string | undefined;

  constructor(kind: NbdErrorKind, message: string, { code, cause }: { code?: string; cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
    this.code = code;
  }
}

/** A breach of the specification by the peer. `section` names the part of proto.md that it breaks. */
export function protocolError(section: string, fact: string): NbdError {
  return new NbdError('protocol', `The NBD peer broke the protocol (${section}): ${fact}.`);
}
