/** Every limit on what a peer may send, keep open or make us hold, in one place. */
import type { Config } from '../config/config.js';

/** From the configuration, and shown in `getHostInfo.limits`. */
export type RpcLimits = Pick<
  Config['limits'],
  'clients' | 'clientsPerIdentity' | 'frameBytes' | 'batch' | 'verbs' | 'deadlineSeconds'
>;

/** Fixed: not worth an option, but worth a name. Tests shorten the times. */
export interface EdgeLimits {
  /** Calls of one connection at work or with their answers unread; beyond it, its next message waits unread. */
  readonly outstanding: number;
  /**
   * Connections beyond the limit of clients, on which getHostInfo is answered and all else refused, and for how long. On the
   * network as many more, of callers without a role.
   */
  readonly guests: number;
  readonly guestSeconds: number;
  /** Clients on the network at once that have not shown who they are; see `HalfOpen`. */
  readonly handshakes: number;
  /** How long they have for that. */
  readonly handshakeSeconds: number;
  /** Answers that a client has left unread, in bytes; one more and it is disconnected. */
  readonly unsentBytes: number;
  /** A client that takes nothing of an answer for so long is disconnected. */
  readonly stallSeconds: number;
  /** Messages in a row that are not JSON; then this is no JSON-RPC client, and it is disconnected. */
  readonly brokenFrames: number;
  /** How long a connection that we end is drained, so that the client sees our last answer and not a reset. */
  readonly lingerSeconds: number;
  /** How long one connection's messages may keep the event loop before the others have their turn. */
  readonly turnMilliseconds: number;
  /** After its deadline a verb may take so long to undo what it did before the caller is told Timeout regardless. */
  readonly graceSeconds: number;
  /** Values in a call's params, members of members included: thousands of issues are no answer. */
  readonly paramsValues: number;
  /** How deep params may nest. */
  readonly paramsDepth: number;
  /** Issues in one -32602 answer. */
  readonly issues: number;
}

export const edgeLimits: EdgeLimits = {
  outstanding: 32,
  guests: 16,
  guestSeconds: 10,
  handshakes: 128,
  handshakeSeconds: 10,
  unsentBytes: 32 * 1024 * 1024,
  stallSeconds: 60,
  brokenFrames: 100,
  lingerSeconds: 2,
  turnMilliseconds: 5,
  graceSeconds: 10,
  paramsValues: 10_000,
  paramsDepth: 32,
  issues: 20,
};
