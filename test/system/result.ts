/** The last result, as a section of docs/system.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Outcome } from './steps.js';

const HEADING = '## Last result\n';

export interface Result {
  release: string;
  outcomes: readonly Outcome[];
  figures: ReadonlyMap<string, string>;
}

/** Replaces what stands under the heading, to the page's end. @param when a date, a commit and the like */
export function writeResult(page: string, when: string, results: readonly Result[]): void {
  const text = readFileSync(page, 'utf8');
  const at = text.indexOf(HEADING);
  if (at === -1) throw new Error(`${page} has no heading "${HEADING.trim()}"`);
  writeFileSync(page, `${text.slice(0, at)}${HEADING}\n${section(when, results)}`);
}

function section(when: string, results: readonly Result[]): string {
  const names = [...new Set(results.flatMap(({ outcomes }) => outcomes.map(({ name }) => name)))];
  const cell = ({ outcomes }: Result, name: string): string => {
    const outcome = outcomes.find((one) => one.name === name);
    return outcome === undefined ? '' : `${outcome.result}, ${outcome.seconds.toFixed(1)} s`;
  };
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`;
  const figures = [...new Set(results.flatMap(({ figures }) => [...figures.keys()]))];
  const failures = results.flatMap(({ release, outcomes }) =>
    outcomes
      .filter(({ result }) => result === 'FAILED')
      .map(({ name, words }) => `- ${release}, ${name}: ${words.replace(/\s+/g, ' ').slice(0, 300)}\n`),
  );
  return [
    `${when}\n\n`,
    row(['', ...results.map(({ release }) => release)]),
    row(['---', ...results.map(() => '---')]),
    ...figures.map((name) => row([name, ...results.map(({ figures }) => figures.get(name) ?? '')])),
    ...names.map((name) => row([name, ...results.map((result) => cell(result, name))])),
    ...(failures.length > 0 ? ['\nWhat failed:\n\n', ...failures] : []),
  ].join('');
}
