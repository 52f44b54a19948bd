import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { dirname, isAbsolute } from 'node:path';
import { AgentError } from '../errors.js';
import { holdAllowed, originText, rootsText } from './allowed-path.js';
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
  /** Size of the disk that the layer presents, in bytes: whole sectors. */
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

/** Bytes; QEMU's unit (include/block/block-common.h, BDRV_SECTOR_SIZE) and the kernel's. */
const SECTOR = 512;

/** More layers than any product builds; QEMU itself refuses only when it runs out of stack. */
const MAX_DEPTH = 64;

/** A layer whose file is held, unopened (`O_PATH`), so that its inode cannot become another file's. */
export interface HeldLayer extends Layer {
  handle: FileHandle;
  /** `DEV:INO` in decimal, exact also where an inode number does not fit into a number of JavaScript. */
  id: string;
}

/** A checked chain, top layer first, and the files themselves. */
export interface HeldChain {
  layers: HeldLayer[];
  /** Lets the files go. Idempotent. */
  close(): Promise<void>;
}

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
  const chain = await holdChain(top, roots);
  await chain.close();
  return chain.layers.map(({ handle: _, id: __, ...layer }) => layer);
}

/**
 * The same, and keeps hold of the files, for whoever has them opened next: a name may lead to another file by then,
 * the handles do not.
 * @throws AgentError as `readChain`
 */
export async function holdChain(
  top: { path: string; format: ImageFormat },
  roots: readonly string[],
): Promise<HeldChain> {
  const layers: HeldLayer[] = [];
  const close = async () => {
    for (const { handle } of layers) await handle.close();
  };
  try {
    let next: NamedImage | null = top;
    while (next !== null) {
      if (layers.length === MAX_DEPTH) {
        throw unsafe(
          top.path,
          `has a backing chain of more than ${MAX_DEPTH} layers`,
          'merge snapshots first',
        );
      }
      const { layer, header } = await holdLayer(next, roots);
      layers.push(layer);
      if (layers.some(({ id }, i) => id === layer.id && i < layers.length - 1)) {
        throw unsafe(top.path, `has a backing chain that leads back to ${layer.path}`, 'repair its headers');
      }
      next = header === null ? null : backingOf(next.path, header);
    }
    return { layers, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function holdLayer(
  image: NamedImage,
  roots: readonly string[],
): Promise<{ layer: HeldLayer; header: Qcow2Header | null }> {
  const { path, handle } = await holdAllowed(image.path, roots, image.namedBy);
  try {
    const stats = await handle.stat({ bigint: true });
    // Not opened up to here: a FIFO would block, a tape would be rewound.
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw new AgentError(
        'UnsafeImage',
        `The path ${path}${originText(image.namedBy)} is ${kindOf(stats)} and no image; give the path of an image file ` +
          `or a block device under an allowed root (${rootsText(roots)}).`,
      );
    }
    if (stats.size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw unsafe(path, `is ${stats.size} bytes long`, 'truncate it to the size of its disk');
    }
    const size = stats.isFile() ? Number(stats.size) : await blockDeviceSize(Number(stats.rdev));
    const header =
      image.format === 'qcow2' ? await readHeader(path, handle, stats.isFile() ? size : null) : null;
    return {
      header,
      layer: {
        path,
        format: image.format,
        file: { dev: Number(stats.dev), ino: Number(stats.ino) },
        isBlockDevice: stats.isBlockDevice(),
        capacity: wholeSectors(header?.capacity ?? null, size),
        holdsBitmaps: header?.version === 3,
        bitmaps: header?.bitmaps ?? [],
        handle,
        id: `${stats.dev}:${stats.ino}`,
      },
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFIFO()) return 'a FIFO';
  return stats.isSocket() ? 'a socket' : 'a character device';
}

async function readHeader(path: string, held: FileHandle, length: number | null): Promise<Qcow2Header> {
  const file = await openHeld(path, held);
  try {
    return await checkHeader(path, file, length);
  } finally {
    await file.close();
  }
}

/** Opens for reading the very file that is held, by whatever name it goes now: proc(5), /proc/PID/fd. */
export async function openHeld(path: string, { fd }: FileHandle): Promise<FileHandle> {
  try {
    return await open(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new AgentError(
      'NoSuchImage',
      `The image ${path} cannot be opened (${cause instanceof Error ? cause.message : cause}); ` +
        "check its permissions and its file system's health.",
      { cause },
    );
  }
}

async function checkHeader(path: string, file: FileHandle, length: number | null): Promise<Qcow2Header> {
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
  // As QEMU reads it, relative to the directory of the image that bears it; what `..` means behind a link is for the
  // kernel to say.
  const named = isAbsolute(name) ? name : `${dirname(path)}/${name}`;
  return { path: named, format: knownFormat(format, path), namedBy: path };
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

/**
 * The size that QEMU gives a disk, which counts in sectors: it fills a raw file's last one up (block.c,
 * bdrv_refresh_total_sectors) and leaves out the rest of what a qcow2 header says (block/qcow2.c, qcow2_do_open).
 */
function wholeSectors(ofHeader: number | null, ofFile: number): number {
  return ofHeader === null ? Math.ceil(ofFile / SECTOR) * SECTOR : Math.floor(ofHeader / SECTOR) * SECTOR;
}

/** The kernel gives a block device's size in sectors of 512 bytes, whatever the device's own sector size. */
async function blockDeviceSize(rdev: number): Promise<number> {
  const major = ((rdev >>> 8) & 0xfff) | 0;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return Number((await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8')).trim()) * SECTOR;
}

function unsafe(path: string, fact: string, remedy: string): AgentError {
  return new AgentError('UnsafeImage', `The image ${path} ${fact} and is not opened; ${remedy}.`);
}
