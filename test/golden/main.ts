/**
 * `npm run test:golden`: rounds of the golden test that maps are right. `ROUNDS=N` (default 50), `SEED=S` (default a
 * new one, printed), `ROUND=N` that one round alone. Ends with a line of totals; any failure is a non-zero exit.
 */
import { randomBytes } from 'node:crypto';
import { leftBehind, replayable, startRig } from './maps.golden.js';
import type { RoundCounts } from './round.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const seed = process.env.SEED ?? randomBytes(4).toString('hex');
const only = process.env.ROUND;
const rounds =
  only === undefined
    ? Array.from({ length: Number(process.env.ROUNDS ?? 50) }, (_, round) => round)
    : [Number(only)];
if (rounds.length === 0 || rounds.some((round) => !Number.isSafeInteger(round))) {
  say('ROUNDS and ROUND are numbers, and there is at least one round');
  process.exit(1);
}

const closers: (() => unknown)[] = [];
const total: RoundCounts = { disks: [], operations: 0, maps: 0, extents: 0, dirtyBytes: 0 };
const started = Date.now();
let passed = 0;
let failed = 0;
say(`${rounds.length} rounds, seed ${seed}`);
try {
  const rig = await startRig({ teardown: (close) => closers.push(close) });
  for (const round of rounds) {
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
      say(`FAILED ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  for (const left of await leftBehind(rig.host)) {
    failed += 1;
    say(`FAILED left behind: ${left}`);
  }
} finally {
  for (const close of closers.reverse()) await close();
}
const minutes = ((Date.now() - started) / 60_000).toFixed(1);
say(
  `seed ${seed}: ${total.operations} operations, ${total.maps} maps with ${total.extents} extents, ` +
    `${(total.dirtyBytes / 2 ** 20).toFixed(0)} MiB dirty, in ${minutes} minutes`,
);
say(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
