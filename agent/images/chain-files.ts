import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type FileId, fileAt, isSameFile } from '../host/open-files.js';
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
 * `readChain` refuses (encrypted, with a data file, with `json:` names, outside the allowed roots). Reads qcow2 headers.
 * A file that is gone ends it.
 */
export async function filesOfChain(top: Named): Promise<ChainFiles> {
  const files: FileId[] = [];
  let whole = true;
  const named = [top];
  for (let image = named.shift(); image !== undefined; image = named.shift()) {
    try {
      const file = await fileAt(image.path);
      if (file === undefined || files.some((known) => isSameFile(known, file))) continue;
      files.push(file);
      const below = files.length < MAX_LAYERS ? await namedBy(image) : null;
      if (below === null) whole = false;
      else named.push(...below);
    } catch {
      whole = false; // an I/O error, or no permission
    }
  }
  return { files, whole };
}

/** What lies below an image; null where that cannot be told. */
async function namedBy({ path, format }: Named): Promise<Named[] | null> {
  if (format !== null && WITHOUT_BACKING.has(format)) return [];
  if (format !== null && format !== 'qcow2') return null;
  const stats = await stat(path);
  if (!stats.isFile() && !stats.isBlockDevice()) return [];
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
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
        path: resolve(folder, one.replace(/^file:/, '')),
        format: null,
      }));
    } catch {
      return null;
    }
  }
  const local = name.replace(/^(file|host_device):/, '');
  // Another protocol than those two: what it leads to is no file, or is open in the process that serves it.
  return /^[^/]*:/.test(local) ? [] : [{ path: resolve(folder, local), format }];
}

/** Values of `filename`, nested (`file: {filename}`) or with dots (`file.filename`). */
function filenames(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) =>
    typeof member === 'string' ? (/(^|\.)filename$/.test(key) ? [member] : []) : filenames(member),
  );
}
