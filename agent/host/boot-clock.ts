import { uptime } from 'node:os';
import { currentBootId } from './identity.js';

/**
 * Time since the host booted, sleep included. Nobody can set it, it is the same for all processes, and so it goes on over
 * a restart of the daemon; within one boot it is what durations are measured by. (/proc/uptime, CLOCK_BOOTTIME)
 */
export interface BootClock {
  readonly bootId: string;
  /** Milliseconds since that boot. */
  now(): number;
}

export async function bootClock(): Promise<BootClock> {
  return { bootId: await currentBootId(), now: () => uptime() * 1000 };
}
