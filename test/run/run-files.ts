/** Runs test files through tap and tells of each as it ends. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { type FileReport, TapReport, type Totals } from './tap-report.js';

/** A file boots guests on an emulated CPU that it shares with another file's. */
const FILE_DEADLINE_S = 900;

/** What became of them. */
export interface Run {
  /** Those that failed, and whatever else did at the top level of the run. */
  failed: FileReport[];
  /** Names of what was skipped or left to do. */
  skipped: string[];
  /** Undefined where the run was cut off. */
  totals: Totals | undefined;
  /** Everything ran and nothing failed, as tap says it. */
  good: boolean;
}

export async function runFiles(
  files: readonly string[],
  { jobs, say }: { jobs: number; say: (line: string) => void },
): Promise<Run> {
  const skipped: string[] = [];
  const failed: FileReport[] = [];
  const report = new TapReport((file) => {
    const seconds = file.seconds === undefined ? '' : `  (${file.seconds.toFixed(1)} s)`;
    say(`${file.ok ? 'ok    ' : 'FAILED'} ${file.name}${seconds}`);
    if (!file.ok) {
      failed.push(file);
      say(file.detail);
    }
    skipped.push(...file.skipped);
  });
  const tap = spawn(
    'tap',
    [
      'run',
      '--disable-coverage',
      '--reporter=tap',
      `--jobs=${jobs}`,
      `--timeout=${FILE_DEADLINE_S}`,
      ...files,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  // An interrupt reaches tap by itself (same process group); what it has to say then should still be read.
  const pass = (signal: NodeJS.Signals): boolean => tap.kill(signal);
  process.on('SIGINT', pass).on('SIGTERM', pass);
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
  process.off('SIGINT', pass).off('SIGTERM', pass);
  report.end();
  const { totals } = report;
  if (totals === undefined) say('The run was cut off: tap has not counted it');
  const good =
    code === 0 && failed.length === 0 && totals !== undefined && totals.failed === 0 && totals.passed > 0;
  return { failed, skipped, totals, good };
}
