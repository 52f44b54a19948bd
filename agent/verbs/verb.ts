/** What a verb is: a function of checked params and a call. */
import type { Logger } from 'pino';
import type { Identity } from '../access/identity.js';
import type { Verbs } from '../api/generated.js';

export type VerbName = keyof Verbs;

/** What a verb knows of its call besides the params. */
export interface Call {
  /** Stands in every log line of the call, and in the answer to an internal error. */
  readonly reference: string;
  readonly identity: Identity;
  /** Writes lines that bear the verb and the reference. */
  readonly log: Logger;
  /**
   * Fires at the verb's deadline, and then only: a verb that has begun finishes though its caller has left.
   * Its reason is the `AgentError` Timeout that the caller is told; throw it on (`signal.throwIfAborted()`) after
   * undoing what was done.
   */
  readonly signal: AbortSignal;
  /**
   * Fires when the caller sends nothing more: it has closed its side and still reads, or has left, which nobody can
   * tell apart. For verbs that do nothing but wait.
   */
  readonly callerEnded: AbortSignal;
}

/** Params are complete: validation has filled in the defaults. Faults are thrown as `AgentError`. */
export type Verb<N extends VerbName> = (
  params: Verbs[N]['params'],
  call: Call,
) => Promise<Verbs[N]['result']>;

/** The verbs that a daemon has; `rpc.discover` is the edge's own. A verb that is absent is answered with -32601. */
export type VerbTable = { readonly [N in Exclude<VerbName, 'rpc.discover'>]?: Verb<N> };
