/**
 * `npm run test:faults`: kills the daemon, and what it works with, at points of every verb, and looks what becomes of it.
 * `KILLS=N` (default 500) so many faults, `SEED=S` (default a new one, printed), `SCENARIOS=NAME,NAME` in those walks alone,
 * `ONE=SCENARIO/VICTIM/POINT` that one alone, as a failure is reported (or several, a line each). A line of JSON a fault,
 * then a table; any failure is a non-zero exit.
 */
import { randomBytes } from 'node:crypto';
import { campaign, table } from './campaign.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const { KILLS = '500', SEED, ONE, SCENARIOS } = process.env;
const faults = Number(KILLS);
if (!Number.isSafeInteger(faults) || faults < 1) {
  say('usage: KILLS=N SEED=S ONE=SCENARIO/VICTIM/POINT SCENARIOS=NAME,NAME npm run test:faults');
  process.exit(1);
}
const seed = SEED ?? randomBytes(4).toString('hex');
say(JSON.stringify({ seed, faults }));
const begun = Date.now();
const totals = await campaign({
  ...{ seed, faults },
  ...(ONE !== undefined && { only: ONE.split('\n') }),
  ...(SCENARIOS !== undefined && { scenarios: SCENARIOS.split(',') }),
  onOutcome: (outcome) => say(JSON.stringify(outcome)),
});
say(JSON.stringify({ points: Object.fromEntries(totals.points) }));
for (const line of table(totals)) say(line);
const failed = totals.outcomes.filter(({ result }) => result === 'failed').length;
const minutes = ((Date.now() - begun) / 60_000).toFixed(1);
say(`seed ${seed}: ${totals.outcomes.length} faults, ${failed} failed, in ${minutes} minutes`);
if (failed > 0) process.exitCode = 1;
