import { setTimeout as sleep } from 'node:timers/promises';

/** Asks until the answer is yes; a deadline that passes names what was waited for. */
export async function poll(
  what: string,
  deadlineMs: number,
  ask: () => boolean | Promise<boolean>,
  intervalMs = 50,
): Promise<void> {
  const end = Date.now() + deadlineMs;
  while (!(await ask())) {
    if (Date.now() > end) throw new Error(`Waited ${deadlineMs / 1000} s for ${what}`);
    await sleep(intervalMs);
  }
}
