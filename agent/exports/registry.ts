import { join } from 'node:path';
import { AgentError } from '../errors.js';
import { RecordStore, type SetAside } from '../host/records.js';
import { EXPORT_RECORD_VERSION, type ExportRecord, isWholeExport } from './record.js';

/** An ended id is remembered so long that a late retry of its first call brings nothing back. */
const REMEMBER_MS = 60 * 60 * 1000;

/** The records of all exports, in memory and on disk. A record is a value: it is replaced, never changed. */
export class ExportRegistry {
  readonly #store: RecordStore<ExportRecord>;
  #records = new Map<string, ExportRecord>();

  /** @param state the directory of records that outlive a reboot */
  constructor(state: string) {
    this.#store = new RecordStore(join(state, 'exports'), 'export', EXPORT_RECORD_VERSION, isWholeExport);
  }

  /** Reads the records, at start. @throws NewerRecordError */
  async load(): Promise<SetAside[]> {
    const { records, setAside } = await this.#store.load();
    this.#records = records;
    return setAside;
  }

  /** The record of that id, ended ones included. */
  find(exportId: string): ExportRecord | undefined {
    return this.#records.get(exportId);
  }

  /** @throws AgentError `NoSuchExport` for an id that is unknown or has ended */
  live(exportId: string): ExportRecord {
    const record = this.#records.get(exportId);
    if (record !== undefined && record.state !== 'ended') return record;
    throw new AgentError(
      'NoSuchExport',
      `There is no export "${exportId}"${record === undefined ? '' : ' any more: it was torn down'}; listExports shows those there are.`,
      { exportId },
    );
  }

  /** Every export that has not ended, the oldest first. */
  allLive(): ExportRecord[] {
    return [...this.#records.values()]
      .filter(({ state }) => state !== 'ended')
      .sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  all(): ExportRecord[] {
    return [...this.#records.values()];
  }

  /** Returns once the record would survive a power cut; only then may what it says be done. */
  async save(record: ExportRecord): Promise<ExportRecord> {
    await this.#store.put(record.exportId, record);
    this.#records.set(record.exportId, record);
    return record;
  }

  async remove(exportId: string): Promise<void> {
    await this.#store.remove(exportId);
    this.#records.delete(exportId);
  }

  /** Forgets the ids that ended more than an hour ago. */
  async forgetEnded(now: number): Promise<void> {
    for (const { exportId, ended } of this.#records.values()) {
      if (ended !== null && now - Date.parse(ended) > REMEMBER_MS) await this.remove(exportId);
    }
  }
}
