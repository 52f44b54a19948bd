import { InvalidParams } from '../errors.js';

/**
 * The length of the lease that a call gets, in seconds: what it asks for, or the longest there is; null: none.
 * @param maxLease `[limits] maxLease`; 0: leases have no limit
 * @throws InvalidParams for one that is longer
 */
export function leaseWanted(asked: number | undefined, maxLease: number): number | null {
  if (maxLease === 0) return asked ?? null;
  if (asked === undefined || asked <= maxLease) return asked ?? maxLease;
  const message = `must be at most ${maxLease}, which is [limits] maxLease here`;
  throw new InvalidParams(`Invalid params: /leaseSeconds ${message}.`, [{ path: '/leaseSeconds', message }]);
}
