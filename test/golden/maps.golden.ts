import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { poll } from '../host/poll.js';
import type { Rig } from './map-checks.js';
import { type RoundCounts, runRound } from './round.js';

/** One host and one daemon for all rounds. Both are gone after the test's teardown. */
export async function startRig(t: Teardown): Promise<Rig> {
  const host: Host = await startHost(t);
  const daemon: DaemonHandle = await host.startDaemon();
  return { host, daemon };
}

/** What no teardown has removed. A process that has ended stays in the list until its parent has looked. */
export async function leftBehind(host: Host): Promise<string[]> {
  let left: string[] = [];
  const gone = async (): Promise<boolean> => {
    left = await host.leftovers();
    return left.length === 0;
  };
  await poll('nothing to be left', 5000, gone).catch(() => undefined); // what is left says more
  return left;
}

/** A round whose failure says how to make it again. */
export async function replayable(rig: Rig, seed: string, round: number): Promise<RoundCounts> {
  try {
    return await runRound(rig, seed, round);
  } catch (cause) {
    const again = `SEED=${seed} ROUND=${round} npm run test:golden`;
    throw new Error(`Round ${round} has failed; once more: ${again}\n${messageOf(cause)}`, { cause });
  }
}

const messageOf = (cause: unknown): string =>
  cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
