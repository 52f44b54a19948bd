import t from 'tap';
import { leftBehind, replayable, startRig } from './maps.golden.js';

/** Fixed, so that CI fails for what was changed and not by the day; `npm run test:golden` takes a new one each time. */
const SEED = 'ci';
const ROUNDS = 10;

/** Milliseconds: a round takes 14 s on two busy cores. */
t.setTimeout(900_000);

await t.test('base and changed blocks give the image, byte for byte', async (t) => {
  const rig = await startRig(t);
  t.comment(`seed ${SEED}`);
  for (let round = 0; round < ROUNDS; round++) {
    const counts = await replayable(rig, SEED, round);
    t.pass(`round ${round}: ${counts.disks.join(' | ')}: ${counts.extents} extents`);
  }
  t.same(await leftBehind(rig.host), [], 'nothing is left');
});
