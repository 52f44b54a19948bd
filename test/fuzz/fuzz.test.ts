import t from 'tap';
import { kinds } from './kinds.js';
import { fuzz } from './run.js';

/** Fixed, so that CI fails for what was changed and not by the day; `npm run test:fuzz` takes a new one each time. */
const SEED = 'ci';

t.setTimeout(600_000);

for (const [name, { inCi, start }] of Object.entries(kinds)) {
  await t.test(`${name}: whatever comes, no crash, no hang, no leak`, async (t) => {
    const { failures, inputs, seconds } = await fuzz(await start(t), { seed: SEED, first: 0, count: inCi });
    t.comment(`seed ${SEED}: ${inputs} inputs in ${seconds.toFixed(1)} s`);
    t.equal(inputs, inCi);
    t.same(failures, []);
  });
}
