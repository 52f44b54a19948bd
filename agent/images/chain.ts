import { constants } from 'node:fs';
import { type FileHandle, open, readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { AgentError } from '../errors.js';
import { allowedRealPath } from './allowed-path.js';
import { type ImageBitmap, Qcow2FormatError, type Qcow2Header, readQcow2Header } from './qcow2.js';

/** The formats that are exported. A format is given or recorded, never guessed from the content. */
export type ImageFormat = 'qcow2' | 'raw';

/** One image of a backing chain, checked: where it really lies, which file that is, and what its header says. */
export interface Layer {
  /** The real path: absolute, no links. */
  path: string;
  format: ImageFormat;
  /** Which file was looked at, to be compared with the file that a server then opens. */
  file: { dev: number; ino: number };
  isBlockDevice: boolean;
  /** Size of the disk that the layer presents, in bytes. */
  capacity: number;
  /** Whether dirty bitmaps can be kept in it: qcow2 from version 3 on. */
  holdsBitmaps: boolean;
  bitmaps: ImageBitmap[];
}

/** An image, and the one whose header names it: a caller has to know where a name comes from. */
interface NamedImage {
  path: string;
  format: ImageFormat;
  namedBy?: string;
}

/** More layers than any product builds; QEMU itself refuses only when it runs out of stack. */
const MAX_DEPTH = 64;

/**
 * Reads the whole backing chain of an image, top layer first, and refuses one that is not safe to open:
 * outside the allowed roots after resolving links, with protocol or `json:` names, with an external data file,
 * in a circle, or with a layer whose format nobody has recorded. Opens only what it has allowed.
 * @throws AgentError `NoSuchImage`, `PathNotAllowed`, `UnsafeImage`, `WrongFormat`, `UnsupportedDisk`
 */
export async function readChain(
  top: { path: string; format: ImageFormat },
  roots: readonly string[],
): Promise<Layer[]> {
  const layers: Layer[] = [];
  let next: NamedImage | null = top;
  while (next !== null) {
    if (layers.length === MAX_DEPTH) {
      throw unsafe(top.path, `has a backing chain of more than ${MAX_DEPTH} layers`, 'merge snapshots first');
    }
    const { layer, header } = await readLayer(next, roots);
    if (layers.some(({ file }) => file.dev === layer.file.dev && file.ino === layer.file.ino)) {
      throw unsafe(top.path, `has a backing chain that leads back to ${layer.path}`, 'repair its headers');
    }
    layers.push(layer);
    next = header === null ? null : backingOf(next.path, header);
  }
  return layers;
}

async function readLayer(
  image: NamedImage,
  roots: readonly string[],
): Promise<{ layer: Layer; header: Qcow2Header | null }> {
  const path = await allowedRealPath(image.path, roots, image.namedBy);
  const file = await openImage(path);
  try {
    const stats = await file.stat();
    const header =
      image.format === 'qcow2' ? await readHeader(path, file, stats.isFile() ? stats.size : null) : null;
    return {
      header,
      layer: {
        path,
        format: image.format,
        file: { dev: stats.dev, ino: stats.ino },
        isBlockDevice: stats.isBlockDevice(),
        capacity:
          header?.capacity ?? (stats.isBlockDevice() ? await blockDeviceSize(stats.rdev) : stats.size),
        holdsBitmaps: header?.version === 3,
        bitmaps: header?.bitmaps ?? [],
      },
    };
  } finally {
    await file.close();
  }
}

/** Opens a regular file or block device; anything else (a FIFO would block the open) is refused unopened. */
async function openImage(path: string): Promise<FileHandle> {
  try {
    const stats = await stat(path);
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw unsafe(path, 'is neither a regular file nor a block device', 'give the path of a disk image');
    }
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (cause instanceof AgentError) throw cause;
    throw new AgentError(
      'NoSuchImage',
      `The image ${path} cannot be opened (${cause instanceof Error ? cause.message : cause}); ` +
        "check its permissions and its file system's health.",
      { cause },
    );
  }
}

async function readHeader(path: string, file: FileHandle, length: number | null): Promise<Qcow2Header> {
  let header: Qcow2Header;
  try {
    header = await readQcow2Header(file, length);
  } catch (cause) {
    if (!(cause instanceof Qcow2FormatError)) throw cause;
    if (!cause.magic) throw unsafe(path, `has a broken qcow2 header: ${cause.message}`, 'run qemu-img check');
    throw new AgentError(
      'WrongFormat',
      `${path} is not a qcow2 image: ${cause.message}; give the format that it really has.`,
      { cause },
    );
  }
  if (header.hasDataFile) {
    throw unsafe(
      path,
      'keeps its data in an external data file',
      'convert it to an image without one (qemu-img convert -O qcow2)',
    );
  }
  if (header.encrypted) {
    throw new AgentError(
      'UnsupportedDisk',
      `${path} is encrypted and only its VM's QEMU holds the key; back it up while the VM runs.`,
    );
  }
  return header;
}

function backingOf(path: string, header: Qcow2Header): NamedImage | null {
  const name = header.backingFile;
  if (name === null) return null;
  // QEMU takes whatever stands before a colon that comes before the first slash for a protocol.
  if (/^[^/]*:/.test(name)) {
    throw unsafe(
      path,
      `names its backing file "${name}" by protocol`,
      'rebase it onto a plain file (qemu-img rebase -u)',
    );
  }
  const format = header.backingFormat;
  if (format === null) {
    throw new AgentError(
      'WrongFormat',
      `${path} does not record the format of its backing file ${name}, and formats are never guessed; ` +
        'record it with `qemu-img rebase -u -F FORMAT -b BACKING IMAGE`.',
    );
  }
  // A relative name is relative to the directory of the image that bears it, as QEMU reads it.
  return { path: resolve(dirname(path), name), format: knownFormat(format, path), namedBy: path };
}

/**
 * @throws AgentError `WrongFormat` for a format that is not exported
 */
export function knownFormat(format: string, path: string): ImageFormat {
  if (format === 'qcow2' || format === 'raw') return format;
  throw new AgentError(
    'WrongFormat',
    `The format "${format}" of ${path} (or of its backing file) cannot be exported; qcow2 and raw can: ` +
      'convert the image (qemu-img convert).',
  );
}

/** The kernel gives a block device's size in sectors of 512 bytes, whatever the device's own sector size. */
async function blockDeviceSize(rdev: number): Promise<number> {
  const major = ((rdev >>> 8) & 0xfff) | 0;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return Number((await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8')).trim()) * 512;
}

function unsafe(path: string, fact: string, remedy: string): AgentError {
  return new AgentError('UnsafeImage', `The image ${path} ${fact} and is not opened; ${remedy}.`);
}
