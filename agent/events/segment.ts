import type { EventLine } from './event.js';

/** The newest version of the files that this program writes and reads. */
const VERSION = 1;

/** One file of the journal, as it was read. */
export interface Segment {
  journal: string;
  lines: EventLine[];
  /** Its last line says that no higher number was given. */
  closed: boolean;
  /** Up to the end of the last whole line, without that mark. */
  bytes: number;
}

const SUFFIX = '.jsonl';

/** The name of a segment whose events have numbers from `first` on; names are in the order of numbers. */
export function segmentName(first: number): string {
  return `${String(first).padStart(16, '0')}${SUFFIX}`;
}

/** The number in a segment's name; undefined for another file's. */
export function firstOf(name: string): number | undefined {
  return /^\d{16}\.jsonl$/.test(name) ? Number(name.slice(0, -SUFFIX.length)) : undefined;
}

/** What a file begins with. */
export function headerLine(journal: string): string {
  return JSON.stringify({ version: VERSION, kind: 'events', journal });
}

/** What it ends with when the daemon has written all and ends. */
export const closedLine = JSON.stringify({ closed: true });

/**
 * Reads a file of lines, each one JSON value: what it is, then events. Whatever follows the last newline was being
 * written when the daemon or the host died. A line that is no event is left out, and shows as a number that is missing.
 * @returns undefined where the first line does not say what it is, or names a newer version
 */
export function parseSegment(content: Buffer): Segment | undefined {
  const end = content.lastIndexOf('\n') + 1;
  const texts = content.toString('utf8', 0, end).split('\n').slice(0, -1);
  const header = parsed(texts[0] ?? '') as { version?: unknown; kind?: unknown; journal?: unknown } | null;
  if (header?.kind !== 'events' || header.version !== VERSION || typeof header.journal !== 'string') {
    return undefined;
  }
  const lines: EventLine[] = [];
  for (const text of texts.slice(1)) {
    const { seq, kind } = (parsed(text) ?? {}) as { seq?: unknown; kind?: unknown };
    if (Number.isSafeInteger(seq) && typeof kind === 'string') lines.push({ seq: Number(seq), text });
  }
  const closed = texts.at(-1) === closedLine && end === content.length;
  const mark = texts.at(-1) === closedLine ? closedLine.length + 1 : 0;
  return { journal: header.journal, lines, closed, bytes: end - mark };
}

function parsed(text: string): object | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
