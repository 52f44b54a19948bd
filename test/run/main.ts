/**
 * `npm test`: runs the test files through tap, two at a time, prints a line a file and the whole story of a failure,
 * and ends with the line `N passed, N failed`. Arguments are paths or their beginnings (`test/nbd`); without any,
 * every test runs. A skipped or unfinished test fails the run.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { TapReport } from './tap-report.js';

const JOBS = 2;
/** A file boots guests on an emulated CPU that it shares with another file's. */
const FILE_DEADLINE_S = 900;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const files = testFiles(process.argv.slice(2));
if (files.length === 0) {
  say(`No test file begins with ${process.argv.slice(2).join(' or ')}`);
  say('0 passed, 0 failed');
  process.exit(1);
}

const started = Date.now();
const skipped: string[] = [];
let failedFiles = 0;
const report = new TapReport((file) => {
  const seconds = file.seconds === undefined ? '' : `  (${file.seconds.toFixed(1)} s)`;
  say(`${file.ok ? 'ok    ' : 'FAILED'} ${file.name}${seconds}`);
  if (!file.ok) {
    failedFiles += 1;
    say(file.detail);
  }
  skipped.push(...file.skipped);
});

const tap = spawn(
  'tap',
  ['run', '--disable-coverage', '--reporter=tap', `--jobs=${JOBS}`, `--timeout=${FILE_DEADLINE_S}`, ...files],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
// An interrupt reaches tap by itself (same process group); what it has to say then should still be read.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => tap.kill(signal));
createInterface({ input: tap.stdout }).on('line', (line) => report.line(line));
const code = await new Promise<number>((resolve) => {
  tap.once('error', (error) => {
    say(`tap could not be started: ${error.message}`);
    resolve(1);
  });
  tap.once('close', (exit, signal) =>
    resolve(exit ?? 128 + (signal === null ? 0 : constants.signals[signal])),
  );
});
report.end();

for (const line of skipped) say(`skipped: ${line}`);
if (report.totals === undefined) say('The run was cut off: tap has not counted it');
const { passed, failed, skipped: left } = report.totals ?? { passed: 0, failed: 1, skipped: 0 };
if (left > 0) say(`${left} skipped: nothing may be skipped`);
say(`${files.length} files in ${((Date.now() - started) / 1000).toFixed(0)} s`);
const good = code === 0 && failed === 0 && failedFiles === 0 && left === 0 && passed > 0;
say(`${passed} passed, ${failed} failed`);
process.exitCode = good ? 0 : 1;

/** The test files whose paths begin with one of these. */
function testFiles(beginnings: readonly string[]): string[] {
  const wanted = beginnings.map((path) => path.replace(/^\.\//, ''));
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .map((file) => `test/${file}`)
    .filter((file) => file.endsWith('.test.ts'))
    .filter((file) => wanted.length === 0 || wanted.some((beginning) => file.startsWith(beginning)))
    .sort();
}
