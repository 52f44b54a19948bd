import type { FileHandle } from 'node:fs/promises';

/**
 * The few facts of a qcow2 header that decide whether an image may be opened and what its bitmaps are worth,
 * read by ourselves so that nothing that an image names is opened while it is looked at.
 * Layout: QEMU, docs/interop/qcow2.txt ("Header", "Header extensions", "Bitmaps"). All numbers are big-endian.
 */
export interface Qcow2Header {
  version: 2 | 3;
  /** The guest's disk size in bytes. */
  capacity: number;
  clusterSize: number;
  backingFile: string | null;
  /** The format of the backing file as the header records it; null when it does not. */
  backingFormat: string | null;
  hasDataFile: boolean;
  encrypted: boolean;
  bitmaps: ImageBitmap[];
}

/** A persistent dirty bitmap in an image. */
export interface ImageBitmap {
  name: string;
  /** Bytes that one bit stands for. */
  granularity: number;
  /** False: it is disabled and does not record writes. */
  recording: boolean;
  /** True: it was not stored properly (a writer died, or still runs) and may lack changes. */
  inconsistent: boolean;
}

/** The header is not one of a qcow2 image, or breaks the format's own rules. `magic`: it is another format. */
export class Qcow2FormatError extends Error {
  constructor(
    message: string,
    readonly magic: boolean = false,
  ) {
    super(message);
    this.name = 'Qcow2FormatError';
  }
}

const MAGIC = 0x514649fb;
const EXTENSION = { end: 0, backingFormat: 0xe2792aca, encryption: 0x0537be77, bitmaps: 0x23852875 } as const;
const INCOMPATIBLE = { dataFile: 1n << 2n, compression: 1n << 3n, extendedL2: 1n << 4n } as const;
/** Those, and "dirty" and "corrupt", with which an image can be read all the same. */
const KNOWN_INCOMPATIBLE = 0b11111n;
const AUTOCLEAR_BITMAPS = 1n << 0n;
const BITMAP_IN_USE = 1 << 0;
const BITMAP_AUTO = 1 << 1;
/** The header and its extensions lie in the first cluster; with the smallest clusters (512 B) QEMU uses one too. */
const MAX_HEADER = 64 * 1024;
const MAX_BACKING_NAME = 1023;
/** QEMU allows 65,535 bitmaps; a directory of this size holds over 15,000 with names of ordinary length. */
const MAX_BITMAP_DIRECTORY = 1024 * 1024;
/** crypt_method: none, AES, LUKS. */
const MAX_CRYPT_METHOD = 2;
/** An entry of the snapshot table has at least these bytes; QEMU allows so many of them (block/qcow2.h). */
const SNAPSHOT_ENTRY = 40;
const MAX_SNAPSHOTS = 65536;

/**
 * @param length of the file in bytes; null where it cannot be told (a block device)
 * @throws Qcow2FormatError
 */
export async function readQcow2Header(file: FileHandle, length: number | null): Promise<Qcow2Header> {
  const head = await readUpTo(file, 0, MAX_HEADER);
  if (head.length < 72 || head.readUInt32BE(0) !== MAGIC) {
    throw new Qcow2FormatError('it does not begin with the qcow2 magic', true);
  }
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw new Qcow2FormatError(`its qcow2 version is ${version}`);
  if (version === 3 && head.length < 104) throw new Qcow2FormatError('its header is cut short');
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw new Qcow2FormatError(`its cluster_bits is ${clusterBits}`);
  const clusterSize = 2 ** clusterBits;
  const incompatible = version === 3 ? head.readBigUInt64BE(72) : 0n;
  const autoclear = version === 3 ? head.readBigUInt64BE(88) : 0n;
  checkFeatures(head, incompatible, clusterSize);
  const headerLength = version === 3 ? head.readUInt32BE(100) : 72;
  if (version === 3 && (headerLength < 104 || headerLength > clusterSize)) {
    throw new Qcow2FormatError(`its header_length is ${headerLength}`);
  }
  const capacity = toSize(head.readBigUInt64BE(24), 'size');
  checkTables(head, {
    version,
    clusterSize,
    capacity,
    extendedL2: (incompatible & INCOMPATIBLE.extendedL2) !== 0n,
    length,
  });
  const extensions = readExtensions(head, headerLength);
  const cryptMethod = head.readUInt32BE(32);
  if (cryptMethod > MAX_CRYPT_METHOD || (cryptMethod !== 2 && extensions.has(EXTENSION.encryption))) {
    throw new Qcow2FormatError(`its crypt_method is ${cryptMethod} beside what it says of its encryption`);
  }
  const bitmaps = extensions.get(EXTENSION.bitmaps);
  return {
    version,
    capacity,
    clusterSize,
    backingFile: readBackingName(head, clusterSize),
    backingFormat: extensions.get(EXTENSION.backingFormat)?.toString('utf8') ?? null,
    hasDataFile: (incompatible & INCOMPATIBLE.dataFile) !== 0n,
    encrypted: cryptMethod !== 0,
    bitmaps:
      bitmaps === undefined ? [] : await readBitmaps(file, bitmaps, (autoclear & AUTOCLEAR_BITMAPS) !== 0n),
  };
}

/** What a reader that does not know a feature must not open ("Incompatible features"), and what goes with those known. */
function checkFeatures(head: Buffer, incompatible: bigint, clusterSize: number): void {
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n)
    throw new Qcow2FormatError(`it has unknown incompatible features 0x${unknown.toString(16)}`);
  if ((incompatible & INCOMPATIBLE.extendedL2) !== 0n && clusterSize < 16384) {
    throw new Qcow2FormatError(`it has extended L2 entries with clusters of ${clusterSize} bytes`);
  }
  if ((incompatible & INCOMPATIBLE.compression) === 0n) return;
  // Zlib is 0 and goes without the feature; Zstandard is 1.
  const type = head.readUInt32BE(100) > 104 ? head.readUInt8(104) : 0;
  if (type !== 1) throw new Qcow2FormatError(`its compression_type is ${type}`);
}

/**
 * The tables that QEMU loads at the opening, or follows: within its own limits (block/qcow2.h), in place, and within the
 * file. (QEMU reads what lies beyond the end of a file as zeroes: a cut image would be an empty disk.)
 */
function checkTables(
  head: Buffer,
  image: {
    version: 2 | 3;
    clusterSize: number;
    capacity: number;
    extendedL2: boolean;
    length: number | null;
  },
): void {
  const { version, clusterSize, capacity, extendedL2, length } = image;
  const table = (name: string, at: number, bytes: number, limit: number): void => {
    const offset = toSize(head.readBigUInt64BE(at), `${name} offset`);
    if (bytes > limit) throw new Qcow2FormatError(`its ${name} has ${bytes} bytes`);
    if (offset % clusterSize !== 0) throw new Qcow2FormatError(`its ${name} lies askew at ${offset}`);
    if (length !== null && offset + bytes > length)
      throw new Qcow2FormatError(`it is cut short: its ${name} lies beyond its end`);
  };
  const l1Size = head.readUInt32BE(36);
  table('L1 table', 40, l1Size * 8, 32 * 2 ** 20);
  const entriesOfL2 = clusterSize / (extendedL2 ? 16 : 8);
  if (l1Size < Math.ceil(capacity / (clusterSize * entriesOfL2))) {
    throw new Qcow2FormatError(`its L1 table of ${l1Size} entries is too small for ${capacity} bytes`);
  }
  table('refcount table', 48, head.readUInt32BE(56) * clusterSize, 8 * 2 ** 20);
  const snapshots = head.readUInt32BE(60);
  if (snapshots > 0) table('snapshot table', 64, snapshots * SNAPSHOT_ENTRY, MAX_SNAPSHOTS * SNAPSHOT_ENTRY);
  const refcountOrder = version === 3 ? head.readUInt32BE(96) : 4;
  if (refcountOrder > 6) throw new Qcow2FormatError(`its refcount_order is ${refcountOrder}`);
}

function readBackingName(head: Buffer, clusterSize: number): string | null {
  const offset = toSize(head.readBigUInt64BE(8), 'backing_file_offset');
  const length = head.readUInt32BE(16);
  if (offset === 0 || length === 0) return null;
  if (length > MAX_BACKING_NAME || offset + length > Math.min(head.length, clusterSize)) {
    throw new Qcow2FormatError('the name of its backing file lies outside the header');
  }
  const bytes = head.subarray(offset, offset + length);
  const name = bytes.toString('utf8');
  // Node would put a character in the place of what it cannot read, and look for another file than the VM.
  if (!Buffer.from(name).equals(bytes) || name.includes('\0')) {
    throw new Qcow2FormatError('the name of its backing file is not text');
  }
  return name;
}

function readExtensions(head: Buffer, start: number): Map<number, Buffer> {
  const extensions = new Map<number, Buffer>();
  let at = start;
  while (at + 8 <= head.length) {
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === EXTENSION.end) return extensions;
    if (at + 8 + length > head.length) throw new Qcow2FormatError('a header extension is too long');
    extensions.set(type, head.subarray(at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  throw new Qcow2FormatError('its header extensions have no end');
}

/**
 * @param trusted the autoclear bit of the bitmaps extension: without it a program that knows no bitmaps has
 *   written to the image, and none of them can be relied upon
 */
async function readBitmaps(file: FileHandle, extension: Buffer, trusted: boolean): Promise<ImageBitmap[]> {
  if (extension.length < 24) throw new Qcow2FormatError('its bitmaps extension is cut short');
  const count = extension.readUInt32BE(0);
  const size = toSize(extension.readBigUInt64BE(8), 'bitmap_directory_size');
  const offset = toSize(extension.readBigUInt64BE(16), 'bitmap_directory_offset');
  if (size > MAX_BITMAP_DIRECTORY) throw new Qcow2FormatError('its bitmap directory is too large');
  const directory = await readUpTo(file, offset, size);
  if (directory.length < size) throw new Qcow2FormatError('its bitmap directory is cut short');
  const bitmaps: ImageBitmap[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 24 > size) throw new Qcow2FormatError('its bitmap directory holds fewer bitmaps than it says');
    const flags = directory.readUInt32BE(at + 12);
    const granularityBits = directory.readUInt8(at + 17);
    const nameStart = at + 24 + directory.readUInt32BE(at + 20);
    const nameEnd = nameStart + directory.readUInt16BE(at + 18);
    if (nameEnd > size || granularityBits < 9 || granularityBits > 31) {
      throw new Qcow2FormatError('an entry of its bitmap directory is broken');
    }
    bitmaps.push({
      name: directory.toString('utf8', nameStart, nameEnd),
      granularity: 2 ** granularityBits,
      recording: (flags & BITMAP_AUTO) !== 0,
      inconsistent: !trusted || (flags & BITMAP_IN_USE) !== 0,
    });
    at = Math.ceil(nameEnd / 8) * 8;
  }
  return bitmaps;
}

function toSize(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Qcow2FormatError(`its ${what} is ${value}`);
  return Number(value);
}

async function readUpTo(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}
