/** Named steps, each timed and told in one line. One that fails hides none but those that build upon it. */

export interface Outcome {
  name: string;
  result: 'ok' | 'FAILED' | 'left out';
  seconds: number;
  /** What was seen, or why it failed. */
  words: string;
}

export interface Step<On> {
  name: string;
  /** Names of steps that have to have passed. */
  needs?: readonly string[];
  /** @returns what was seen, in a few words. @throws Error where something is not as it should be */
  play(on: On): Promise<string>;
}

/** Plays them in order. `onFailure` may add what helps to understand it. */
export async function playSteps<On>(
  steps: readonly Step<On>[],
  on: On,
  tell: (outcome: Outcome) => void,
  onFailure: () => Promise<string>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const passed = new Set<string>();
  for (const { name, needs = [], play } of steps) {
    const begun = Date.now();
    const missing = needs.find((need) => !passed.has(need));
    const outcome: Outcome = { name, result: 'left out', seconds: 0, words: `it builds upon "${missing}"` };
    if (missing === undefined) {
      try {
        outcome.words = await play(on);
        outcome.result = 'ok';
        passed.add(name);
      } catch (error) {
        outcome.words = error instanceof Error ? error.message : String(error);
        outcome.result = 'FAILED';
      }
      outcome.seconds = (Date.now() - begun) / 1000;
    }
    outcomes.push(outcome);
    tell(outcome);
    if (outcome.result === 'FAILED') process.stdout.write(await onFailure().catch((error) => `${error}\n`));
  }
  return outcomes;
}

/** @throws Error with these words where it does not hold */
export function expect(holds: boolean, words: string): asserts holds {
  if (!holds) throw new Error(words);
}
