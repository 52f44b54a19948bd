import { AgentError } from '../errors.js';

/** How long a caller is ready to wait: a duration in milliseconds, and a signal that ends the wait before. */
export interface Wait {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs `work` under a deadline. The signal handed to it aborts with an `AgentError` `Timeout` at the deadline, or
 * with the caller's own reason before; `work` is expected to end soon after, with that reason.
 * (AbortSignal.any and AbortSignal.timeout are not used: on Node 20 both leave a listener on a long-lived parent, and the
 * one over the other is collected as garbage and never fires: https://github.com/nodejs/node/issues/57736.)
 */
export async function within<T>(
  what: string,
  wait: Wait,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { timeoutMs, signal: outer } = wait;
  const controller = new AbortController();
  const onAbort = () => controller.abort(outer?.reason);
  outer?.throwIfAborted();
  outer?.addEventListener('abort', onAbort, { once: true });
  const timer = setTimeout(() => {
    controller.abort(new AgentError('Timeout', `${what} took longer than ${timeoutMs} ms; try again.`));
  }, timeoutMs);
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener('abort', onAbort);
  }
}

/** Sleeps, or throws the signal's reason as soon as it aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/**
 * Asks `probe` again and again, at first every few milliseconds and then more slowly, until its answer is not
 * undefined. For what Linux lets Node only poll: the end of a process that is not a child (no pidfd in Node).
 */
export async function poll<T>(signal: AbortSignal, probe: () => Promise<T | undefined>): Promise<T> {
  for (let delay = 2; ; delay = Math.min(delay * 1.5, 100)) {
    const answer = await probe();
    if (answer !== undefined) return answer;
    await pause(delay, signal);
  }
}
