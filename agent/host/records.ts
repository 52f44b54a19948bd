import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../errors.js';
import { readRegularFile } from './regular-file.js';

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

/** The longest record that is read, in bytes: the XML of a VM, its longest member, has at most 4 MiB. */
const MAX_BYTES = 32 * 1024 * 1024;
/** Levels of members within members: the params of a call have some ten at most. */
const MAX_DEPTH = 64;
/** Bytes of a file's name that are kept when it is set aside: with what is added it must stay below 255. */
const KEPT_NAME_BYTES = 200;

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
  readonly #faultOf: (record: unknown, id: string) => string | undefined;

  /**
   * @param dir the directory of this kind of record; made (0700) by `load`
   * @param version the newest version that this program writes and reads
   * @param faultOf what is wrong, in words, with a record of that kind that was read under that id: the file's name;
   *   undefined where the program can rely on it
   */
  constructor(
    dir: string,
    kind: T['kind'],
    version: T['version'],
    faultOf: (record: unknown, id: string) => string | undefined = () => undefined,
  ) {
    this.#dir = dir;
    this.#kind = kind;
    this.#version = version;
    this.#faultOf = faultOf;
  }

  /**
   * Reads all records, at start. What cannot be believed is set aside, whatever it is (a file, a directory, a link):
   * one bad record must not keep all exports of a host from being looked after.
   * @throws NewerRecordError when one is of a newer version: the daemon must not start
   */
  async load(): Promise<{ records: Map<string, T>; setAside: SetAside[] }> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await this.removeTorn();
    const records = new Map<string, T>();
    const setAside: SetAside[] = [];
    for (const name of (await readdir(this.#dir)).sort()) {
      if (!name.endsWith(SUFFIX)) continue;
      const path = join(this.#dir, name);
      const id = name.slice(0, -SUFFIX.length);
      const read = await this.#read(path, id);
      if ('record' in read) {
        records.set(id, read.record);
        continue;
      }
      const movedTo = await this.#setAside(path, name);
      if (movedTo !== undefined) setAside.push({ path, movedTo, reason: read.reason });
    }
    return { records, setAside };
  }

  /** Removes what writes have left that were cut short and never took effect. At start alone, while nothing is written. */
  async removeTorn(): Promise<void> {
    for (const name of await readdir(this.#dir).catch(() => [])) {
      if (name.endsWith('.tmp')) await unlink(join(this.#dir, name)).catch(() => {}); // a directory is none of ours
    }
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

  /** Removes the record, or what is in its place; one that is not there is no error. */
  async remove(id: string): Promise<void> {
    await rm(this.#path(id), { force: true, recursive: true });
    await this.#syncDirectory();
  }

  #path(id: string): string {
    return join(this.#dir, `${id}${SUFFIX}`);
  }

  async #read(path: string, id: string): Promise<{ record: T } | { reason: string }> {
    let text: string;
    try {
      text = readRegularFile(path, MAX_BYTES);
    } catch (cause) {
      return { reason: `cannot be read: ${cause instanceof Error ? cause.message : cause}` };
    }
    return this.#parse(path, id, text);
  }

  /** @returns where it lies now; undefined where there is nothing of that name, as of one that is not UTF-8 */
  async #setAside(path: string, name: string): Promise<string | undefined> {
    const kept = Buffer.from(name).subarray(0, KEPT_NAME_BYTES).toString();
    const movedTo = join(this.#dir, `${kept}.unreadable-${randomBytes(4).toString('hex')}`);
    try {
      await rename(path, movedTo);
      return movedTo;
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  #parse(path: string, id: string, text: string): { record: T } | { reason: string } {
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
    if (header.kind !== this.#kind) {
      const kind = typeof header.kind === 'string' ? header.kind.slice(0, 64) : typeof header.kind;
      return { reason: `is of kind ${kind}, not ${this.#kind}` };
    }
    // What nobody has given a shape to is written again and sent as it is, and JSON.stringify calls itself at each level.
    if (isDeeperThan(value, MAX_DEPTH)) return { reason: `has more than ${MAX_DEPTH} levels` };
    const fault = this.#faultOf(value, id);
    return fault === undefined ? { record: value as T } : { reason: fault };
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

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((member) => isDeeperThan(member, levels - 1));
}
