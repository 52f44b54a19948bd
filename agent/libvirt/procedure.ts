/** One remote procedure: its number, and what goes there and comes back. */
import type { CallOptions } from './deadline.js';
import type { Domain } from './wire-types.js';
import type { XdrType } from './xdr-types.js';

/** A row of src/remote/remote_protocol.x: `number` is REMOTE_PROC_..., `args` and `result` its structs. */
export interface Procedure<A, R> {
  /** In errors and logs. */
  readonly name: string;
  readonly number: number;
  readonly args: XdrType<A>;
  readonly result: XdrType<R>;
}

/** Writes a row down; the TypeScript types follow from the XDR ones. */
export function procedure<A, R>(
  name: string,
  number: number,
  args: XdrType<A>,
  result: XdrType<R>,
): Procedure<A, R> {
  return { name, number, args, result };
}

/**
 * Carries out a procedure. `domain` is whose lock in libvirt the call may wait for: calls for one domain are kept from
 * taking every place on the wire.
 */
export type Caller = <A, R>(
  procedure: Procedure<A, R>,
  args: A,
  options: CallOptions | undefined,
  domain?: Domain,
) => Promise<R>;
