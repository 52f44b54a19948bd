/** Looks at a host until it is what its records say, or a deadline has passed. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../host/host.js';
import { hostFacts } from './host-facts.js';
import { type Expected, isEndedVm, judge, judgeEmpty } from './judge.js';

/** Recovery takes back a snapshot only when libvirt has had 10 s to make it after all. */
const SETTLE_MS = 30_000;
const LOOK_MS = 200;

/** The host is not what the records say. */
export class NotSettled extends Error {
  override readonly name = 'NotSettled';
  constructor(readonly problems: readonly string[]) {
    super(`after ${SETTLE_MS / 1000} s:\n  ${problems.join('\n  ')}`);
  }

  /** A VM that is expected to run does not. */
  get vmEnded(): boolean {
    return this.problems.some(isEndedVm);
  }
}

/**
 * @param kept absent: things may be there, as long as records and host agree; else nothing may, but for checkpoints of
 *   these names
 * @throws NotSettled
 */
export async function settle(
  host: Host,
  vms: readonly string[],
  expected: Expected,
  kept?: ReadonlySet<string>,
): Promise<void> {
  const deadline = Date.now() + SETTLE_MS;
  for (;;) {
    const problems = await look(host, vms, expected, kept).catch((error: Error) => [error.message]);
    if (problems.length === 0) return;
    if (Date.now() > deadline) throw new NotSettled(problems);
    await sleep(LOOK_MS);
  }
}

async function look(
  host: Host,
  vms: readonly string[],
  expected: Expected,
  kept?: ReadonlySet<string>,
): Promise<string[]> {
  const facts = await hostFacts(host, vms);
  return [...judge(facts, expected), ...(kept === undefined ? [] : judgeEmpty(facts, kept))];
}
