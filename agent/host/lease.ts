import type { BootClock } from './boot-clock.js';

/** How long something lives unless its lease is renewed; plain data, for records. */
export interface LeaseRecord {
  /** What was asked for. */
  readonly seconds: number;
  /** The boot during which it was given, and when it ends on that boot's own clock, in milliseconds. */
  readonly bootId: string;
  readonly endsAt: number;
  /** The same in ISO 8601 UTC: what is left to go by after a reboot. */
  readonly expires: string;
}

/** A lease from now on. */
export function beginLease(clock: BootClock, seconds: number): LeaseRecord {
  const ms = seconds * 1000;
  return {
    seconds,
    bootId: clock.bootId,
    endsAt: clock.now() + ms,
    expires: new Date(Date.now() + ms).toISOString(),
  };
}

/**
 * Milliseconds until it ends; 0 when it has. A change of the wall clock counts only over a reboot, where there is no
 * other clock to go by: then no more is left than was asked for, however far the clock was set back.
 */
export function leaseLeft(clock: BootClock, { seconds, bootId, endsAt, expires }: LeaseRecord): number {
  const left = bootId === clock.bootId ? endsAt - clock.now() : Date.parse(expires) - Date.now();
  return Math.min(Math.max(left, 0), seconds * 1000);
}

/** The wall clock and the boot clock differ by so much where nobody has set the former. */
const DRIFT_MS = 2000;

/** A lease as the API has it. */
interface ShownLease {
  seconds: number;
  expires: string;
}

/** What callers are shown: `expires` as it was first told, unless the wall clock has been set since. */
export function shownLease(clock: BootClock, lease: LeaseRecord): ShownLease;
export function shownLease(clock: BootClock, lease: LeaseRecord | null): ShownLease | null;
export function shownLease(clock: BootClock, lease: LeaseRecord | null): ShownLease | null {
  if (lease === null) return null;
  const ends = Date.now() + leaseLeft(clock, lease);
  const asTold = Math.abs(ends - Date.parse(lease.expires)) < DRIFT_MS || ends <= Date.now();
  return { seconds: lease.seconds, expires: asTold ? lease.expires : new Date(ends).toISOString() };
}
