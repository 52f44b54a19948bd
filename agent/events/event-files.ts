import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.js';
import type { EventLine } from './event.js';
import { type ReadSegment, readSegments, removeSegments } from './read-segments.js';
import { type EventBounds, RecentEvents } from './recent-events.js';
import { closedLine, headerLine, segmentName } from './segment.js';

/**
 * Numbers that a start leaves out unless the last end was orderly: then some may have been given whose events never came
 * to the disk. It is more than can be given between two writes, or be lost in a power cut; and 2^53 numbers suffice for
 * 9 thousand million such starts.
 */
const LEFT_OUT = 1_000_000;
/** A segment is begun anew at that part of the bounds, so that what makes room is that part too. */
const PARTS = 4;
/** Segments at most: a daemon that is killed over and over begins many. */
const SEGMENTS = 64;

/** What a journal begins with. */
export interface EventStart {
  journal: string;
  lines: EventLine[];
  /** The highest number that was given or left out. */
  newest: number;
}

interface OnDisk {
  path: string;
  events: number;
  bytes: number;
}

/**
 * The journal's files: appended to in order, the oldest removed when the others reach the bounds. A fault of the disk is
 * logged and the write tried again with the next event; what does not fit into the bounds meanwhile is missing on disk.
 */
export class EventFiles {
  readonly #dir: string;
  readonly #bounds: EventBounds;
  readonly #log: Log;
  readonly #queue: RecentEvents;
  #segments: OnDisk[] = [];
  #current: { file: FileHandle; on: OnDisk } | undefined;
  #journal = '';
  /** The directory holds files of a journal that this one could not go on with. */
  #supersedes = false;
  #writing: Promise<void> | undefined;
  #failing = false;
  #closed = false;

  constructor(dir: string, bounds: EventBounds, log: Log) {
    this.#dir = dir;
    this.#bounds = bounds;
    this.#log = log;
    this.#queue = new RecentEvents(bounds);
  }

  /**
   * Reads what there is, and sees to it before a number is given that the next start will not give that again: the mark of
   * an orderly end is taken off, or numbers are left out and a segment begun beyond them. Where the disk does not allow
   * that, a new journal begins.
   */
  async start(): Promise<EventStart> {
    try {
      const history = await readSegments(this.#dir, this.#log);
      if (history === undefined) return await this.#startAt({ journal: randomUUID(), lines: [], newest: 0 });
      const { journal, segments, lines, newest, whole } = history;
      this.#segments = segments.map(onDisk);
      const last = segments.at(-1);
      if (!whole || last === undefined) {
        return await this.#startAt({ journal, lines, newest: newest + LEFT_OUT });
      }
      this.#journal = journal;
      await this.#goOnWith(last);
      return { journal, lines, newest };
    } catch (err) {
      this.#fault(err);
      await this.#current?.file.close().catch(() => undefined);
      this.#current = undefined;
      this.#segments = [];
      this.#journal = randomUUID();
      this.#supersedes = true;
      return { journal: this.#journal, lines: [], newest: 0 };
    }
  }

  append(line: EventLine): void {
    if (this.#closed) return;
    this.#queue.push(line);
    this.#writing ??= this.#writeQueue().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Writes what is left and that this is all. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
    if (this.#queue.count > 0) await this.#writeQueue();
    const current = this.#current;
    this.#current = undefined;
    if (current === undefined) return;
    try {
      if (this.#queue.count === 0) await current.file.appendFile(`${closedLine}\n`);
      await current.file.datasync();
    } catch (err) {
      this.#fault(err);
    } finally {
      await current.file.close();
    }
  }

  async #startAt(start: EventStart): Promise<EventStart> {
    this.#journal = start.journal;
    this.#current = await this.#beginSegment(start.newest + 1);
    await this.#current.file.datasync();
    const directory = await open(this.#dir, 'r');
    await directory.sync().finally(() => directory.close());
    return start;
  }

  /** Cuts off the mark of an orderly end for good. */
  async #goOnWith({ path, segment }: ReadSegment): Promise<void> {
    const on = this.#segments.at(-1);
    const file = await open(path, 'a');
    try {
      await file.truncate(segment.bytes);
      await file.datasync();
    } catch (error) {
      await file.close();
      throw error;
    }
    if (on !== undefined) this.#current = { file, on };
  }

  async #writeQueue(): Promise<void> {
    while (this.#queue.count > 0) {
      const lines = this.#queue.takeAll();
      try {
        await this.#write(lines);
        this.#failing = false;
      } catch (err) {
        this.#fault(err);
        for (const line of [...lines, ...this.#queue.takeAll()]) this.#queue.push(line);
        return;
      }
    }
  }

  async #write(lines: readonly EventLine[]): Promise<void> {
    await this.#endFullSegment();
    this.#current ??= await this.#beginSegment(lines[0]?.seq ?? 0);
    const { file, on } = this.#current;
    const text = lines.map((line) => `${line.text}\n`).join('');
    try {
      await file.appendFile(text);
    } catch (error) {
      // A new segment next time, so that a half-written line stays the last of its own.
      this.#current = undefined;
      await file.truncate(on.bytes).catch(() => undefined);
      await file.close().catch(() => undefined);
      throw error;
    }
    on.events += lines.length;
    on.bytes += Buffer.byteLength(text);
    await this.#makeRoom();
  }

  async #endFullSegment(): Promise<void> {
    if (this.#current === undefined) return;
    const { file, on } = this.#current;
    const { events, bytes } = this.#bounds;
    if (on.events < events / PARTS && on.bytes < bytes / PARTS) return;
    this.#current = undefined;
    await file.datasync().finally(() => file.close());
  }

  async #beginSegment(first: number): Promise<{ file: FileHandle; on: OnDisk }> {
    const path = join(this.#dir, segmentName(first));
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    if (this.#supersedes) await removeSegments(this.#dir);
    this.#supersedes = false;
    const file = await open(path, 'w', 0o600);
    const header = `${headerLine(this.#journal)}\n`;
    try {
      await file.appendFile(header);
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(path, { force: true });
      throw error;
    }
    const on = { path, events: 0, bytes: Buffer.byteLength(header) };
    this.#segments.push(on);
    return { file, on };
  }

  async #makeRoom(): Promise<void> {
    for (;;) {
      const [oldest, ...others] = this.#segments;
      if (oldest === undefined || others.length === 0) return;
      const events = others.reduce((sum, one) => sum + one.events, 0);
      const bytes = others.reduce((sum, one) => sum + one.bytes, 0);
      const room = events < this.#bounds.events && bytes < this.#bounds.bytes && others.length < SEGMENTS;
      if (room) return;
      await rm(oldest.path, { force: true });
      this.#segments.shift();
    }
  }

  #fault(err: unknown): void {
    if (!this.#failing) {
      this.#log.error({ err, dir: this.#dir }, 'events are told but cannot be kept on disk; will try again');
    }
    this.#failing = true;
  }
}

function onDisk({ path, segment }: ReadSegment): OnDisk {
  return { path, events: segment.lines.length, bytes: segment.bytes };
}
