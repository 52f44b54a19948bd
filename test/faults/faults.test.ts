/**
 * The short form of `npm run test:faults`, with a seed that stays, so that CI fails for what was changed and not by the
 * day. Needs root.
 */
import t from 'tap';
import { campaign, table } from './campaign.js';

const { SEED = 'ci' } = process.env;
const FAULTS = Number(process.env.KILLS ?? 20);
/** A fault takes some seconds; a guest boots first. */
t.setTimeout(900_000);

t.test('the daemon and what it works with are killed in the middle of every walk', async (t) => {
  t.comment(`seed ${SEED}`);
  const totals = await campaign({
    seed: SEED,
    faults: FAULTS,
    onOutcome: ({ fault, result, problem }) => {
      if (result === 'failed') t.fail(`${fault}: ${problem}`);
      else if (result === 'passed') t.pass(fault);
    },
  });
  for (const line of table(totals)) t.comment(line);
  const kills = totals.outcomes.reduce((sum, outcome) => sum + outcome.kills, 0);
  t.ok(kills >= FAULTS / 2, `the daemon was killed ${kills} times`);
});
