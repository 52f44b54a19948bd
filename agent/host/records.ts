import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../errors.js';

/** What every record on disk begins with. `version` grows when an older program could misread the record. */
export interface RecordHeader {
  version: number;
  kind: string;
}

/** A record was written by a newer program: starting over it would lose what it guards. */
export class NewerRecordError extends Error {
  constructor(path: string, found: number, known: number) {
    super(
      `${path} was written by a newer vmdiskd (record version ${found}, this program knows ${known}); ` +
        'start the newer program, or end its exports with it first.',
    );
    this.name = 'NewerRecordError';
  }
}

/** A record that could not be read and was set aside under another name, so that the daemon can start. */
export interface SetAside {
  path: string;
  movedTo: string;
  reason: string;
}

const SUFFIX = '.json';

/**
 * Records of one kind on disk, one JSON file each, under `<state>/<kind>/<id>.json`.
 *
 * A record is replaced atomically (write, fsync, rename, fsync of the directory): after a crash at any instant
 * it is there as it was before or as it is after, never torn. What is about to be made is written down first,
 * so whatever a record does not name does not exist.
 */
export class RecordStore<T extends RecordHeader> {
  readonly #dir: string;
  readonly #kind: T['kind'];
  readonly #version: T['version'];
  readonly #isWhole: (record: T) => boolean;

  /**
   * @param dir the directory of this kind of record; made (0700) by `load`
   * @param version the newest version that this program writes and reads
   * @param isWhole whether a record of that kind and version has the members that the program relies on
   */
  constructor(
    dir: string,
    kind: T['kind'],
    version: T['version'],
    isWhole: (record: T) => boolean = () => true,
  ) {
    this.#dir = dir;
    this.#kind = kind;
    this.#version = version;
    this.#isWhole = isWhole;
  }

  /**
   * Reads all records, at start. Ids must be safe as file names; the schema of the verbs sees to that.
   * @throws NewerRecordError when one is of a newer version: the daemon must not start
   */
  async load(): Promise<{ records: Map<string, T>; setAside: SetAside[] }> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const records = new Map<string, T>();
    const setAside: SetAside[] = [];
    for (const name of (await readdir(this.#dir)).sort()) {
      const path = join(this.#dir, name);
      if (name.endsWith('.tmp')) {
        await rm(path, { force: true }); // the write that it began never took effect
      } else if (name.endsWith(SUFFIX)) {
        const read = this.#parse(path, await readFile(path, 'utf8'));
        if ('record' in read) {
          records.set(name.slice(0, -SUFFIX.length), read.record);
        } else {
          const movedTo = `${path}.unreadable-${randomBytes(4).toString('hex')}`;
          await rename(path, movedTo);
          setAside.push({ path, movedTo, reason: read.reason });
        }
      }
    }
    return { records, setAside };
  }

  /**
   * Writes the record and returns once it would survive a power cut.
   * @throws AgentError `LimitReached`, retryable, where it cannot be written (no space, most often)
   */
  async put(id: string, record: T): Promise<void> {
    const temporary = join(this.#dir, `${id}.${randomBytes(4).toString('hex')}.tmp`);
    try {
      const file = await open(temporary, 'wx', 0o600);
      try {
        await file.writeFile(`${JSON.stringify(record, null, 2)}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, this.#path(id));
      await this.#syncDirectory();
    } catch (cause) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw new AgentError(
        'LimitReached',
        `The records in ${this.#dir} cannot be written (${cause instanceof Error ? cause.message : cause}), and without them nothing is begun or ended; make room there, then try again.`,
        { cause },
      );
    }
  }

  /** Removes the record; one that is not there is no error. */
  async remove(id: string): Promise<void> {
    await rm(this.#path(id), { force: true });
    await this.#syncDirectory();
  }

  #path(id: string): string {
    return join(this.#dir, `${id}${SUFFIX}`);
  }

  #parse(path: string, text: string): { record: T } | { reason: string } {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      return { reason: `not JSON: ${cause instanceof Error ? cause.message : cause}` };
    }
    const header = value as Partial<RecordHeader> | null;
    if (typeof header !== 'object' || header === null || !Number.isSafeInteger(header.version)) {
      return { reason: 'has no version' };
    }
    if (Number(header.version) > this.#version) {
      throw new NewerRecordError(path, Number(header.version), this.#version);
    }
    if (header.kind !== this.#kind) return { reason: `is of kind ${String(header.kind)}, not ${this.#kind}` };
    if (!this.#isWhole(value as T)) return { reason: 'lacks members that every such record has' };
    return { record: value as T };
  }

  async #syncDirectory(): Promise<void> {
    const directory = await open(this.#dir, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }
}
