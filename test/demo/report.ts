/** What the demo prints: steps, what each did, and how long it took. Colours on a terminal only. */
import type { Writable } from 'node:stream';

/** Where the times stand. */
const WIDTH = 100;
const INDENT = '   ';

export interface Report {
  /** What all of it is about. */
  title(title: string, ...lines: string[]): void;
  /** Begins a step; printed before the work, so that one sees what is waited for. */
  step(what: string): void;
  /** What was done. `ms`: how long it took. */
  done(text: string, ms?: number): void;
  /** Lines that belong to what stands above: a dict, a drawing. */
  detail(lines: readonly string[]): void;
  /** A JSON-RPC call that was answered. */
  call(method: string, params: string, ms: number): void;
  /** Something that has to hold. @throws Error where it does not */
  check(ok: boolean, text: string, ms?: number): void;
  /** The last word: nothing is printed after it. */
  end(ok: boolean, text: string): void;
}

export function createReport(out: Writable & { isTTY?: boolean }): Report {
  const colours = out.isTTY === true && process.env.NO_COLOR === undefined;
  const paint = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text);
  const [bold, dim, red, green, cyan] = [1, 2, 31, 32, 36].map(paint) as [Paint, Paint, Paint, Paint, Paint];
  let steps = 0;
  let ended = false;
  const print = (text = ''): void => {
    if (!ended) out.write(`${text}\n`);
  };
  const timed = (text: string, painted: string, ms: number | undefined): string =>
    ms === undefined
      ? painted
      : `${painted}${' '.repeat(Math.max(2, WIDTH - text.length))}${dim(duration(ms))}`;
  const line = (sign: string, text: string, ms: number | undefined, colour: Paint): void => {
    const plain = `${INDENT}${sign} ${text}`;
    print(timed(plain, `${INDENT}${colour(sign)} ${text}`, ms));
  };
  return {
    title(title, ...lines) {
      print(bold(title));
      for (const text of lines) print(dim(text));
    },
    step(what) {
      steps += 1;
      print();
      print(bold(`${steps}. ${what}`));
    },
    done: (text, ms) => line('-', text, ms, dim),
    detail: (lines) => {
      for (const text of lines) print(`${INDENT}  ${text}`);
    },
    call(method, params, ms) {
      const room = WIDTH - INDENT.length - method.length - 6;
      const short = params.length > room ? `${params.slice(0, room - 3)}...` : params;
      const plain = `${INDENT}> ${method} ${short}`;
      print(timed(plain, `${INDENT}${cyan(`> ${bold(method)}`)} ${short}`, ms));
    },
    check(ok, text, ms) {
      line(ok ? 'ok:' : 'WRONG:', text, ms, ok ? green : red);
      if (!ok) throw new Error(`this does not hold: ${text.replace(/ +/g, ' ')}`);
    },
    end(ok, text) {
      print();
      print(bold(ok ? green(text) : red(text)));
      ended = true;
    },
  };
}

type Paint = (text: string) => string;

/** `41 ms`, `3.2 s`; right-aligned. */
function duration(ms: number): string {
  return (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`).padStart(6);
}

/** The members of an object as JSON text, as many on a line as fit. */
export function jsonLines(value: object, width = WIDTH - 2 * INDENT.length): string[] {
  const lines = ['{'];
  const members = Object.entries(value);
  for (const [index, [name, member]] of members.entries()) {
    const text = `${JSON.stringify(name)}: ${JSON.stringify(member)}${index < members.length - 1 ? ',' : ' }'}`;
    const last = lines.at(-1) ?? '';
    if (last.length + 1 + text.length <= width) lines[lines.length - 1] = `${last} ${text}`;
    else lines.push(`  ${text}`);
  }
  return lines;
}
