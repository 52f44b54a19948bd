import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** What is looked at for leaks. */
export interface Gauges {
  /** Descriptors, connections, timers, files: must come back to what they were. */
  counts: Record<string, number>;
  residentMiB: number;
}

/** What ends a moment after its last user: sockets that are closing, processes that are reaped. */
const SETTLE_MS = 10_000;
const LOOK_MS = 100;
const STEADY_LOOKS = 5;

/** The gauges once the counts stay as they are. */
export async function steadyGauges(gauges: () => Promise<Gauges>): Promise<Gauges> {
  let same = 0;
  let last = '';
  return gaugesOnce(gauges, ({ counts }) => {
    const now = JSON.stringify(counts);
    same = now === last ? same + 1 : 0;
    last = now;
    return same >= STEADY_LOOKS;
  });
}

/** The gauges once they are good, or whatever they are at the end of patience. */
export async function gaugesOnce(
  gauges: () => Promise<Gauges>,
  good: (now: Gauges) => boolean,
): Promise<Gauges> {
  const end = Date.now() + SETTLE_MS;
  for (;;) {
    const now = await gauges();
    if (good(now) || Date.now() > end) return now;
    await sleep(LOOK_MS);
  }
}

/** Of a process as /proc shows it: descriptors, and resident memory (proc(5), VmRSS). */
export function processGauges(proc: string): { descriptors: number; residentMiB: number } {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`${proc}/status`, 'utf8'))?.[1];
  return { descriptors: readdirSync(`${proc}/fd`).length, residentMiB: Number(kib) / 1024 };
}

/** Of this process, for what is fuzzed in it: also what Node's event loop holds (timers, sockets, requests). */
export async function ownGauges(): Promise<Gauges> {
  const { descriptors, residentMiB } = processGauges('/proc/self');
  const counts: Record<string, number> = { descriptors };
  for (const kind of process.getActiveResourcesInfo()) {
    // Of the file system calls that look at all this.
    if (kind !== 'FSReqPromise') counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return { counts, residentMiB };
}

/** What buffers of all inputs in play may hold together: a peer's word on a length is no reason to allocate it. */
const MOST_HELD = 256 * 2 ** 20;

/** @throws Error where buffers hold more than that */
export function checkHeld(): void {
  const { arrayBuffers } = process.memoryUsage();
  if (arrayBuffers > MOST_HELD) throw new Error(`buffers hold ${(arrayBuffers / 2 ** 20).toFixed(0)} MiB`);
}
