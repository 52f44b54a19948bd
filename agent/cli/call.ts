/** A call of a verb: its deadline, and going on trying where that was asked for. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint } from './answer.js';
import { NoAnswer, RpcFailure } from './failure.js';

/** Seconds between two attempts. */
const BETWEEN_ATTEMPTS = 2;
/** How long a daemon that takes stock is waited for in any case, in seconds: a call to its socket is what starts it. */
const RECOVERY = 60;
const BETWEEN_LOOKS = 0.5;

export interface Patience {
  /** How long to wait for one answer, in seconds. */
  readonly timeoutSeconds: number;
  /** How long to go on trying where the same call may succeed later, in seconds; 0: not at all. */
  readonly retrySeconds: number;
}

/**
 * Calls a verb. The same call may always be made again: that is the API's promise, also where the answer was lost.
 * @throws RpcFailure, NoAnswer
 */
export async function call(
  endpoint: Endpoint,
  method: string,
  params: object,
  { timeoutSeconds, retrySeconds }: Patience,
): Promise<unknown> {
  const begun = performance.now();
  for (;;) {
    try {
      return await endpoint.call(method, params, timeoutSeconds);
    } catch (error) {
      const mayBeTransient = error instanceof NoAnswer || (error instanceof RpcFailure && error.retryable);
      const recovers = error instanceof RpcFailure && error.data.name === 'RecoveryInProgress';
      const pause = (recovers ? BETWEEN_LOOKS : BETWEEN_ATTEMPTS) * 1000;
      const patience = (recovers ? Math.max(RECOVERY, retrySeconds) : retrySeconds) * 1000;
      if (!mayBeTransient || performance.now() + pause > begun + patience) throw error;
      await sleep(pause);
    }
  }
}
