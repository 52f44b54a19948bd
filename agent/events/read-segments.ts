import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.js';
import type { EventLine } from './event.js';
import { firstOf, parseSegment, type Segment } from './segment.js';

export interface ReadSegment {
  path: string;
  /** The number in its name: none below it is in it, and all below it were given or left out. */
  first: number;
  segment: Segment;
}

/** What the files tell at the start. */
export interface EventHistory {
  journal: string;
  /** Those of one journal, in order; at least one. */
  segments: ReadSegment[];
  lines: EventLine[];
  /** The highest number that is known to have been given or left out. */
  newest: number;
  /** The last daemon has written all its events and said so: no higher number was given. */
  whole: boolean;
}

/**
 * Reads the journal in a directory, made where it is missing; what is no part of it is set aside, with a message, or was
 * never more than begun.
 * @returns undefined: there is none
 */
export async function readSegments(dir: string, log: Log): Promise<EventHistory | undefined> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const all: ReadSegment[] = [];
  let damaged = false;
  for (const name of (await readdir(dir)).sort()) {
    const first = firstOf(name);
    if (first === undefined) continue;
    const path = join(dir, name);
    const content = await readFile(path).catch(() => undefined);
    const segment = content === undefined ? undefined : parseSegment(content);
    if (segment !== undefined) all.push({ path, first, segment });
    else if (content?.length === 0) await rm(path);
    else {
      damaged = true;
      await setAside(path, log);
    }
  }
  const last = all.at(-1);
  if (last === undefined) return undefined;
  const { journal, closed } = last.segment;
  const segments: ReadSegment[] = [];
  for (const one of all) {
    // One of another journal is older; one without an event is of a daemon that was killed before the first.
    const counts = one.segment.journal === journal && (one.segment.lines.length > 0 || one === last);
    if (counts) segments.push(one);
    else await rm(one.path);
  }
  const lines = ascending(segments.flatMap(({ segment }) => segment.lines));
  const newest = Math.max(last.first - 1, lines.at(-1)?.seq ?? 0);
  return { journal, segments, lines, newest, whole: closed && !damaged };
}

/**
 * Removes the files of a journal whose place another one takes. Their names may be later ones: left beside it they would be
 * taken for the newer journal at the next start.
 */
export async function removeSegments(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (firstOf(name) !== undefined) await rm(join(dir, name), { force: true });
  }
}

async function setAside(path: string, log: Log): Promise<void> {
  const movedTo = `${path}.unreadable-${randomBytes(4).toString('hex')}`;
  log.error({ path, movedTo }, 'set a file of the event journal aside that cannot be read');
  await rename(path, movedTo);
}

/** Without those that a write that failed half-way has put there twice. */
function ascending(lines: readonly EventLine[]): EventLine[] {
  let newest = 0;
  return lines.filter(({ seq }) => {
    if (seq <= newest) return false;
    newest = seq;
    return true;
  });
}
