/**
 * `npm run test:fuzz`: 100,000 inputs of all kinds, each decided by the seed and its number. `npm run test:fuzz -- edge`:
 * of these kinds only. `INPUTS=N` how many in all, `SEED=S` (default a new one, printed), `ONE=KIND:N` that input alone.
 * Ends with a line a kind; any failure is a non-zero exit.
 */
import { randomBytes } from 'node:crypto';
import { kinds } from './kinds.js';
import { fuzz } from './run.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const seed = process.env.SEED ?? randomBytes(4).toString('hex');
const [one, number] = process.env.ONE?.split(':') ?? [];
const inputs = Number(process.env.INPUTS ?? 100_000);
const names =
  one !== undefined ? [one] : process.argv.length > 2 ? process.argv.slice(2) : Object.keys(kinds);
const first = Number(number ?? 0);
if (names.some((name) => !Object.hasOwn(kinds, name)) || !(inputs > 0) || !Number.isSafeInteger(first)) {
  say(`usage: SEED=S INPUTS=N ONE=KIND:N npm run test:fuzz -- ${Object.keys(kinds).join('|')}`);
  process.exit(1);
}

say(`seed ${seed}`);
const parts = names.reduce((sum, name) => sum + (kinds[name]?.share ?? 0), 0);
for (const name of names) {
  const kind = kinds[name];
  if (kind === undefined) continue;
  const closers: (() => unknown)[] = [];
  try {
    const fuzzer = await kind.start({ teardown: (close) => closers.push(close) });
    const count = one === undefined ? Math.ceil((inputs * kind.share) / parts) : 1;
    const totals = await fuzz(fuzzer, { seed, first, count });
    for (const failure of totals.failures) say(`FAILED ${failure}\n`);
    const memory = totals.resident.map((MiB) => MiB.toFixed(0)).join(' to ');
    say(
      `${name}: seed ${seed}: ${totals.inputs} inputs, ${totals.failures.length} failures in ` +
        `${totals.seconds.toFixed(0)} s, memory ${memory} MiB`,
    );
    if (totals.failures.length > 0) process.exitCode = 1;
  } finally {
    for (const close of closers.reverse()) await close();
  }
}
