import t from 'tap';
import { playSeries, SERIES, startBackupRig } from './backups.golden.js';

/** Fixed, so that CI fails for what was changed and not by the day; `npm run test:golden` takes a new one each time. */
const SEED = process.env.SEED ?? 'ci';
const ROUNDS = Number(process.env.ROUNDS ?? SERIES);

/** Milliseconds: a round takes 10 s on two busy cores. */
t.setTimeout(900_000);

await t.test('what is held and the changed blocks give each point in time, byte for byte', async (t) => {
  const rig = await startBackupRig(t);
  t.comment(`seed ${SEED}`);
  for (let series = 0; series * SERIES < ROUNDS; series++) {
    const rounds = Math.min(SERIES, ROUNDS - series * SERIES);
    const counts = await playSeries(rig, SEED, { series, rounds }, (round, act) =>
      t.pass(`round ${round}: ${act}`),
    );
    t.comment(JSON.stringify(counts));
  }
});
