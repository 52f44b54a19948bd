import type { FileHandle } from 'node:fs/promises';
import { dirname, isAbsolute } from 'node:path';
import { AgentError } from '../errors.js';
import { type FileId, isSameFile } from '../host/open-files.js';
import { type AllowedFile, holdAllowed } from './allowed-path.js';
import { openHeld } from './chain.js';
import { Qcow2FormatError, readQcow2Header } from './qcow2.js';

/** The local files that an image leads to. */
export interface ChainFiles {
  files: FileId[];
  /** False: a layer names what lies below it in a way that is not read here, so that there may be more. */
  whole: boolean;
}

interface Named {
  path: string;
  /** Null: nobody has said. */
  format: string | null;
}

const MAX_LAYERS = 64;
/** Formats of QEMU whose images name no backing file. */
const WITHOUT_BACKING = new Set(['raw', 'luks', 'vdi', 'vpc', 'vhdx', 'dmg', 'bochs', 'cloop', 'iso', 'dir']);

/**
 * The files of a chain, for the question whether an image depends on a file, and not for opening it: also of chains that
 * `readChain` refuses (encrypted, with a data file, with `json:` names). Reads qcow2 headers. A file that is gone ends it.
 * What a header names is held to the allowed roots, as everywhere: outside them nothing is opened or compared.
 * @param top as the VM's configuration has it, whose author may name any file
 */
export async function filesOfChain(top: Named, roots: readonly string[]): Promise<ChainFiles> {
  const files: FileId[] = [];
  let whole = true;
  const named = [top];
  for (let image = named.shift(); image !== undefined; image = named.shift()) {
    try {
      const held = await hold(image, image === top ? ['/'] : roots);
      if (held === undefined) continue;
      try {
        const { dev, ino } = await held.handle.stat();
        if (files.some((known) => isSameFile(known, { dev, ino }))) continue;
        files.push({ dev, ino });
        const below = files.length < MAX_LAYERS ? await namedBy(image, held) : null;
        if (below === null) whole = false;
        else named.push(...below);
      } finally {
        await held.handle.close();
      }
    } catch {
      whole = false; // an I/O error, or no permission
    }
  }
  return { files, whole };
}

/**
 * Undefined where nothing that counts lies there: no file, or one outside the roots that names no other (those that are
 * asked about lie under them).
 */
async function hold({ path, format }: Named, roots: readonly string[]): Promise<AllowedFile | undefined> {
  try {
    return await holdAllowed(path, roots);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    if (error.name === 'PathNotAllowed' && endsChain(format)) return undefined;
    const cause = error.cause as NodeJS.ErrnoException | undefined;
    const isGone = cause === undefined || cause.code === 'ENOENT' || cause.code === 'ENOTDIR';
    if (error.name === 'NoSuchImage' && isGone) return undefined;
    throw error;
  }
}

const endsChain = (format: string | null): boolean => format !== null && WITHOUT_BACKING.has(format);

/** What lies below an image; null where that cannot be told. */
async function namedBy({ path, format }: Named, { handle }: { handle: FileHandle }): Promise<Named[] | null> {
  if (endsChain(format)) return [];
  if (format !== null && format !== 'qcow2') return null;
  const stats = await handle.stat();
  if (!stats.isFile() && !stats.isBlockDevice()) return [];
  const file = await openHeld(path, handle);
  try {
    const { backingFile, backingFormat } = await readQcow2Header(file, null);
    return backingFile === null ? [] : pathsIn(backingFile, dirname(path), backingFormat);
  } catch (error) {
    if (!(error instanceof Qcow2FormatError)) throw error;
    return error.magic && format === null ? [] : null;
  } finally {
    await file.close();
  }
}

/** The local files in a backing file's name (QEMU, block.c, bdrv_parse_filename; docs: "JSON pseudo-protocol"). */
function pathsIn(name: string, folder: string, format: string | null): Named[] | null {
  if (name.startsWith('json:')) {
    try {
      return filenames(JSON.parse(name.slice('json:'.length))).map((one) => ({
        path: under(folder, one.replace(/^file:/, '')),
        format: null,
      }));
    } catch {
      return null;
    }
  }
  const local = name.replace(/^(file|host_device):/, '');
  // Another protocol than those two: what it leads to is no file, or is open in the process that serves it.
  return /^[^/]*:/.test(local) ? [] : [{ path: under(folder, local), format }];
}

/** What `..` means behind a link is for the kernel to say. */
const under = (folder: string, name: string): string => (isAbsolute(name) ? name : `${folder}/${name}`);

/** Values of `filename`, nested (`file: {filename}`) or with dots (`file.filename`). */
function filenames(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) =>
    typeof member === 'string' ? (/(^|\.)filename$/.test(key) ? [member] : []) : filenames(member),
  );
}
