/**
 * `npm run test:golden`: rounds of both golden tests. `npm run test:golden -- maps`, or `backups`: of one of them.
 * `ROUNDS=N` (default 50 and 100), `SEED=S` (default a new one, printed), `ROUND=N` that one round alone (of `backups`
 * with those before it in its series). Ends with a line of totals a test; any failure is a non-zero exit.
 */
import { randomBytes } from 'node:crypto';
import { addTotals, noTotals, playSeries, SERIES, startBackupRig } from './backups.golden.js';
import { leftBehind, replayable, startRig } from './maps.golden.js';
import type { RoundCounts } from './round.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const MiB = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

interface Run {
  seed: string;
  /** Rounds that are wanted; undefined: as many as is usual. */
  rounds: number | undefined;
  /** The one round that is wanted. */
  only: number | undefined;
  closers: (() => unknown)[];
}

interface Verdict {
  passed: number;
  failed: number;
  /** What was gone through, in words. */
  went: string;
}

async function maps({ seed, rounds = 50, only, closers }: Run): Promise<Verdict> {
  const numbers = only === undefined ? Array.from({ length: rounds }, (_, round) => round) : [only];
  const total: RoundCounts = { disks: [], operations: 0, maps: 0, extents: 0, dirtyBytes: 0 };
  let [passed, failed] = [0, 0];
  const rig = await startRig({ teardown: (close) => closers.push(close) });
  for (const round of numbers) {
    const begun = Date.now();
    try {
      const counts = await replayable(rig, seed, round);
      passed += 1;
      total.operations += counts.operations;
      total.maps += counts.maps;
      total.extents += counts.extents;
      total.dirtyBytes += counts.dirtyBytes;
      const seconds = ((Date.now() - begun) / 1000).toFixed(1);
      say(
        `ok     round ${round} (${seconds} s): ${counts.disks.join(' | ')}: ` +
          `${counts.operations} operations, ${counts.extents} extents`,
      );
    } catch (error) {
      failed += 1;
      say(`FAILED ${wordsOf(error)}`);
    }
  }
  for (const left of await leftBehind(rig.host)) {
    failed += 1;
    say(`FAILED left behind: ${left}`);
  }
  const went =
    `${total.operations} operations, ${total.maps} maps with ${total.extents} extents, ` +
    `${MiB(total.dirtyBytes)} dirty`;
  return { passed, failed, went };
}

/** A series ends at its first failure, since the rounds build on one another; the next one begins anew. */
async function backups({ seed, rounds = 100, only, closers }: Run): Promise<Verdict> {
  const first = only === undefined ? 0 : Math.floor(only / SERIES);
  const end = only === undefined ? rounds : only + 1;
  let total = noTotals();
  let [passed, failed] = [0, 0];
  const rig = await startBackupRig({ teardown: (close) => closers.push(close) });
  for (let series = first; series * SERIES < end; series++) {
    let begun = Date.now();
    try {
      const part = { series, rounds: Math.min(SERIES, end - series * SERIES) };
      const counts = await playSeries(rig, seed, part, (round, act) => {
        passed += 1;
        say(`ok     round ${round} (${((Date.now() - begun) / 1000).toFixed(1)} s): ${act}`);
        begun = Date.now();
      });
      total = addTotals(total, counts);
    } catch (error) {
      failed += 1;
      say(`FAILED ${wordsOf(error)}`);
    }
  }
  const went =
    `${total.operations} operations; ${total.exports} exports held against the point in time, of them ` +
    `${total.bitmap} incremental by bitmap and ${total.depth} by depth, which had ${MiB(total.dirty)} ` +
    `of ${MiB(total.capacity)} to read`;
  return { passed, failed, went };
}

const TESTS = { maps, backups };

const number = (name: string): number | undefined =>
  process.env[name] === undefined ? undefined : Number(process.env[name]);
const [rounds, only] = [number('ROUNDS'), number('ROUND')];
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(TESTS);
const sound = (value: number | undefined, least: number): boolean =>
  value === undefined || (Number.isSafeInteger(value) && value >= least);
if (!sound(rounds, 1) || !sound(only, 0) || names.some((name) => !Object.hasOwn(TESTS, name))) {
  say(`usage: ROUNDS=N ROUND=N SEED=S npm run test:golden -- ${Object.keys(TESTS).join('|')}`);
  process.exit(1);
}

const seed = process.env.SEED ?? randomBytes(4).toString('hex');
say(`seed ${seed}`);
for (const name of names) {
  const closers: (() => unknown)[] = [];
  const started = Date.now();
  try {
    const { passed, failed, went } = await TESTS[name as keyof typeof TESTS]({
      ...{ seed, rounds, only, closers },
    });
    const minutes = ((Date.now() - started) / 60_000).toFixed(1);
    say(`${name}: seed ${seed}: ${passed} passed, ${failed} failed in ${minutes} minutes: ${went}`);
    if (failed > 0) process.exitCode = 1;
  } finally {
    for (const close of closers.reverse()) await close();
  }
}
