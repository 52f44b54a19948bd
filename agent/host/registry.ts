import { join } from 'node:path';
import type { Shape } from './record-shape.js';
import { type RecordHeader, RecordStore, type SetAside } from './records.js';

/** An ended id is remembered so long that a late retry of its first call brings nothing back. */
const REMEMBER_MS = 60 * 60 * 1000;
/** Ended ones of a kind that are remembered at most, the latest ones: a client in a loop must not fill memory or disk. */
const REMEMBER_MOST = 10_000;

/** A record of something with a life: it begins, and it ends. */
export interface LivingRecord extends RecordHeader {
  /** ISO 8601 UTC. */
  created: string;
  /** ISO 8601 UTC; null while it lives. */
  ended: string | null;
}

/** The rule of records that have a state `ended`: with it, and only with it, goes the time of their end. */
export function endsInState({ state, ended }: { state: string; ended: string | null }): string | undefined {
  return (state === 'ended') === (ended !== null) ? undefined : `is ${state}, and ended ${ended ?? 'never'}`;
}

/** What is particular to the records of one kind. */
export interface RegistryKind<T extends LivingRecord> {
  /** They lie in `<folder>/` below the directory of records. */
  folder: string;
  kind: T['kind'];
  version: T['version'];
  /** The id of a record, safe as a file name. */
  idOf(record: T): string;
  /** What a record that was read must look like to be believed. */
  shape: Shape<T>;
  /** What is kept of one that has ended: no more than a late retry needs to be told. */
  remains(record: T): T;
}

/**
 * The records of one kind, in memory and on disk. A record is a value: it is replaced, never changed. The ended ones are
 * kept as text, oldest first: a busy host has thousands, and an object with members takes several times the room.
 */
export class Registry<T extends LivingRecord> {
  readonly #store: RecordStore<T>;
  readonly #kind: RegistryKind<T>;
  readonly #live = new Map<string, T>();
  readonly #ended = new Map<string, string>();

  /** @param state the directory of records that outlive a reboot */
  constructor(state: string, kind: RegistryKind<T>) {
    const { idOf, shape } = kind;
    // A record under another's name would be saved beside itself, and never removed.
    const faultOf = (record: unknown, id: string) =>
      shape(record, '') ?? (idOf(record as T) === id ? undefined : `is the record of ${idOf(record as T)}`);
    this.#store = new RecordStore(join(state, kind.folder), kind.kind, kind.version, faultOf);
    this.#kind = kind;
  }

  /** Reads the records, at start. @throws NewerRecordError */
  async load(): Promise<SetAside[]> {
    const { records, setAside } = await this.#store.load();
    const inOrder = [...records].sort(([, a], [, b]) => ((a.ended ?? '') < (b.ended ?? '') ? -1 : 1));
    for (const [id, record] of inOrder) this.#keep(id, record);
    return setAside;
  }

  /** The record of that id, ended ones included. */
  find(id: string): T | undefined {
    const ended = this.#ended.get(id);
    return ended === undefined ? this.#live.get(id) : (JSON.parse(ended) as T);
  }

  /** Ended ones included. */
  all(): T[] {
    return [...this.#live.values(), ...[...this.#ended.values()].map((text) => JSON.parse(text) as T)];
  }

  /** Every record that has not ended, the oldest first. */
  allLive(): T[] {
    return [...this.#live.values()].sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  /**
   * Returns once the record would survive a power cut; only then may what it says be done.
   * @throws AgentError `LimitReached`, retryable, where it cannot be written
   */
  async save(record: T): Promise<T> {
    const id = this.#kind.idOf(record);
    const kept = record.ended === null ? record : this.#kind.remains(record);
    await this.#store.put(id, kept);
    this.#keep(id, kept);
    return record;
  }

  async remove(id: string): Promise<void> {
    await this.#store.remove(id);
    this.#live.delete(id);
    this.#ended.delete(id);
  }

  /**
   * Forgets the ids that ended long ago, and the oldest of too many.
   * @param now milliseconds since 1970
   * @param rememberMs how long an ended one is kept; default an hour
   */
  async forgetEnded(now: number, rememberMs = REMEMBER_MS): Promise<void> {
    let tooMany = this.#ended.size - REMEMBER_MOST;
    for (const [id, text] of [...this.#ended]) {
      const { ended } = JSON.parse(text) as T;
      const goes = tooMany-- > 0 || now - Date.parse(ended ?? '') > rememberMs;
      // Another sweep may have been there meanwhile: the id may be that of a new thing by now.
      if (goes && this.#ended.get(id) === text) await this.remove(id);
    }
  }

  #keep(id: string, record: T): void {
    this.#live.delete(id);
    this.#ended.delete(id);
    if (record.ended === null) this.#live.set(id, record);
    else this.#ended.set(id, JSON.stringify(record));
  }
}
