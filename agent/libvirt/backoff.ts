/** How long to wait before the next attempt. */
export interface BackoffOptions {
  /** Upper bound of the first wait, in milliseconds; it doubles with every attempt. */
  readonly minMs: number;
  /** Where the doubling ends. */
  readonly maxMs: number;
}

/**
 * The wait before attempt `attempt` (0 is the first), in milliseconds: a random half to whole of the doubling bound, so
 * that the clients of one daemon do not all come back in the same instant.
 * @param random 0 to 1, as Math.random.
 */
export function backoffMs(attempt: number, { minMs, maxMs }: BackoffOptions, random = Math.random): number {
  const bound = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 50));
  return bound * (0.5 + random() / 2);
}
