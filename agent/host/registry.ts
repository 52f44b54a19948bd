import { join } from 'node:path';
import { type RecordHeader, RecordStore, type SetAside } from './records.js';

/** An ended id is remembered so long that a late retry of its first call brings nothing back. */
const REMEMBER_MS = 60 * 60 * 1000;

/** A record of something with a life: it begins, and it ends. */
export interface LivingRecord extends RecordHeader {
  /** ISO 8601 UTC. */
  created: string;
  /** ISO 8601 UTC; null while it lives. */
  ended: string | null;
}

/** The records of one kind, in memory and on disk. A record is a value: it is replaced, never changed. */
export class Registry<T extends LivingRecord> {
  readonly #store: RecordStore<T>;
  readonly #idOf: (record: T) => string;
  #records = new Map<string, T>();

  /**
   * @param state the directory of records that outlive a reboot; they lie in `<folder>/` below it
   * @param idOf the id of a record, safe as a file name
   * @param isWhole whether a record that was read has the members that the program relies on
   */
  constructor(
    state: string,
    { folder, kind, version }: { folder: string; kind: T['kind']; version: T['version'] },
    idOf: (record: T) => string,
    isWhole?: (record: T) => boolean,
  ) {
    this.#store = new RecordStore(join(state, folder), kind, version, isWhole);
    this.#idOf = idOf;
  }

  /** Reads the records, at start. @throws NewerRecordError */
  async load(): Promise<SetAside[]> {
    const { records, setAside } = await this.#store.load();
    this.#records = records;
    return setAside;
  }

  /** The record of that id, ended ones included. */
  find(id: string): T | undefined {
    return this.#records.get(id);
  }

  all(): T[] {
    return [...this.#records.values()];
  }

  /** Every record that has not ended, the oldest first. */
  allLive(): T[] {
    return this.all()
      .filter(({ ended }) => ended === null)
      .sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  /** Returns once the record would survive a power cut; only then may what it says be done. */
  async save(record: T): Promise<T> {
    const id = this.#idOf(record);
    await this.#store.put(id, record);
    this.#records.set(id, record);
    return record;
  }

  async remove(id: string): Promise<void> {
    await this.#store.remove(id);
    this.#records.delete(id);
  }

  /**
   * Forgets the ids that ended long ago.
   * @param now milliseconds since 1970
   * @param rememberMs how long an ended one is kept; default an hour
   */
  async forgetEnded(now: number, rememberMs = REMEMBER_MS): Promise<void> {
    for (const record of this.all()) {
      if (record.ended !== null && now - Date.parse(record.ended) > rememberMs) {
        await this.remove(this.#idOf(record));
      }
    }
  }
}
