import { inspect } from 'node:util';
import { SeededRandom } from '../golden/random.js';
import { type Gauges, gaugesOnce, steadyGauges } from './gauges.js';

/** Where undoing is left to: a tap test, or a list that the caller works off. */
export interface Teardown {
  teardown(fn: () => unknown): unknown;
}

/** One kind of fuzzing: what inputs are made of, and what must hold of each. */
export interface Fuzzer {
  readonly name: string;
  /** Inputs in play at once. They must not get in each other's way. */
  readonly parallel: number;
  /** Milliseconds that one input may take: a hang is a failure. */
  readonly deadlineMs: number;
  /** Inputs after which caches and pools have the size that they keep. */
  readonly warmUp: number;
  /** MiB that the process under test may grow by after that, garbage included. */
  readonly growthMiB: number;
  /** Plays the input that `random` decides, and throws where something does not hold. `about` is told what it is. */
  play(random: SeededRandom, about: (what: string) => void): Promise<void>;
  /** What must not grow from input to input, and the memory of the process under test. */
  gauges(): Promise<Gauges>;
  /** What must hold once all inputs have been played. */
  finish?(): Promise<void>;
}

export interface FuzzPlan {
  readonly seed: string;
  /** The number of the first input, and of how many. */
  readonly first: number;
  readonly count: number;
}

export interface FuzzTotals {
  inputs: number;
  /** In words, each with how to replay it. */
  failures: string[];
  seconds: number;
  /** MiB, after the warm-up and at the end. */
  resident: [before: number, after: number];
}

/** Then there is no point in going on. */
const MOST_FAILURES = 10;

/** Plays inputs one after another, some at a time; each depends on nothing but the seed, the kind and its number. */
export async function fuzz(fuzzer: Fuzzer, { seed, first, count }: FuzzPlan): Promise<FuzzTotals> {
  const started = performance.now();
  const failures: string[] = [];
  const fail = (n: number, what: string, error: unknown): void => {
    failures.push(`SEED=${seed} ONE=${fuzzer.name}:${n} npm run test:fuzz\n${what}\n${inspect(error)}`);
  };
  let next = first;
  const stray = (error: unknown): void =>
    fail(next - 1, 'an error that nobody handled, at about this input', error);
  process.on('unhandledRejection', stray);
  process.on('uncaughtException', stray);

  const playUpTo = async (end: number): Promise<void> => {
    const worker = async (): Promise<void> => {
      while (next < end && failures.length < MOST_FAILURES) {
        const n = next++;
        let what = '';
        const random = new SeededRandom(seed, fuzzer.name, n);
        try {
          await inTime(
            fuzzer.deadlineMs,
            fuzzer.play(random, (words) => (what = words)),
          );
        } catch (error) {
          fail(n, what, error);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(fuzzer.parallel, end - next) }, worker));
  };

  try {
    const end = first + count;
    await playUpTo(Math.min(end, first + fuzzer.warmUp));
    const before = await steadyGauges(() => fuzzer.gauges());
    await playUpTo(end);
    const grown = (after: Gauges): string[] => leaks(before, after, fuzzer.growthMiB);
    const after = await gaugesOnce(
      () => fuzzer.gauges(),
      (now) => grown(now).length === 0,
    );
    for (const leak of grown(after)) fail(end - 1, 'after all inputs', new Error(leak));
    await fuzzer.finish?.().catch((error: unknown) => fail(end - 1, 'after all inputs', error));
    return {
      inputs: next - first,
      failures,
      seconds: (performance.now() - started) / 1000,
      resident: [before.residentMiB, after.residentMiB],
    };
  } finally {
    process.off('unhandledRejection', stray);
    process.off('uncaughtException', stray);
  }
}

function leaks(before: Gauges, after: Gauges, growthMiB: number): string[] {
  const found = Object.entries(after.counts)
    .filter(([name, count]) => count > (before.counts[name] ?? 0))
    .map(([name, count]) => `${name} grew from ${before.counts[name] ?? 0} to ${count}`);
  const grown = after.residentMiB - before.residentMiB;
  if (grown > growthMiB) found.push(`memory grew by ${grown.toFixed(0)} MiB, which is over ${growthMiB}`);
  return found;
}

/** Rejects at the deadline; what hangs is left to hang. */
async function inTime(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`a hang: not done in ${ms} ms`)), ms);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
