/** What a whole run came to, as tap itself counted it: one count an assertion, files and subtests not among them. */
export interface Totals {
  passed: number;
  failed: number;
  /** Skipped and todo. */
  skipped: number;
}

/** One test file, or whatever else stands at the top level of the run. */
export interface FileReport {
  name: string;
  ok: boolean;
  seconds: number | undefined;
  /** For a failure: its TAP, without the assertions that passed. */
  detail: string;
  /** Names of what was skipped or left to do in it. */
  skipped: string[];
}

const POINT = /^(not )?ok \d+(?: - (.*?))?(?: # time=([\d.]+)ms)?$/;
const TOTALS = /^# \{ total: \d+.*\}$/;

/**
 * Reads the TAP stream of `tap run --reporter=tap`, line by line: every file's block is indented and comes before
 * the file's own line, and a comment at the end has tap's totals. A stream that ends without that comment was cut
 * off: `totals` is then undefined.
 */
export class TapReport {
  totals: Totals | undefined;
  readonly #onFile: (file: FileReport) => void;
  #block: string[] = [];
  #failing: FileReport | undefined;

  constructor(onFile: (file: FileReport) => void) {
    this.#onFile = onFile;
  }

  /** Takes one line, without its newline. */
  line(line: string): void {
    const directive = /^(?:not )?ok \d+.* # (?:SKIP|TODO)\b.*$/i.test(line);
    const point = directive ? null : POINT.exec(line);
    if (directive || point !== null) {
      this.end();
      const report: FileReport = {
        name: point?.[2] ?? line,
        ok: directive || point?.[1] === undefined,
        seconds: point?.[3] === undefined ? undefined : Number(point[3]) / 1000,
        detail: this.#block.filter(tellsOfFailure).join('\n'),
        skipped: this.#block.filter((row) => SKIPPED.test(row)).map((row) => row.trim()),
      };
      if (directive) report.skipped.push(line);
      this.#block = [];
      // The diagnostics of a failed file follow its line.
      if (report.ok) this.#onFile(report);
      else this.#failing = report;
      return;
    }
    if (TOTALS.test(line)) {
      const count = (name: string): number => Number(new RegExp(`\\b${name}: (\\d+)`).exec(line)?.[1] ?? 0);
      this.totals = { passed: count('pass'), failed: count('fail'), skipped: count('skip') + count('todo') };
    } else if (line.startsWith('# Subtest: ')) this.end();
    else if (this.#failing !== undefined) this.#failing.detail += `\n${line}`;
    else if (line.startsWith(' ')) this.#block.push(line);
  }

  /** The stream has ended. */
  end(): void {
    const failing = this.#failing;
    this.#failing = undefined;
    if (failing !== undefined) this.#onFile({ ...failing, detail: failing.detail.trimEnd() });
  }
}

const SKIPPED = /^\s+(?:not )?ok \d+.* # (?:SKIP|TODO)\b/i;

function tellsOfFailure(row: string): boolean {
  return row.trim() !== '' && !/^\s+(?:ok \d+|1\.\.\d+|# time=)/.test(row);
}
