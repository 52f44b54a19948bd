/** A small qcow2 image, byte by byte, and what may be wrong with one. Layout: QEMU, docs/interop/qcow2.txt. */

const CLUSTER = 65536;
/** Byte and width in bits of each field of the header. */
const FIELDS = {
  magic: [0, 32],
  version: [4, 32],
  backingOffset: [8, 64],
  backingLength: [16, 32],
  clusterBits: [20, 32],
  size: [24, 64],
  cryptMethod: [32, 32],
  l1Size: [36, 32],
  l1Offset: [40, 64],
  refcountOffset: [48, 64],
  refcountClusters: [56, 32],
  snapshots: [60, 32],
  snapshotsOffset: [64, 64],
  incompatible: [72, 64],
  compatible: [80, 64],
  autoclear: [88, 64],
  refcountOrder: [96, 32],
  headerLength: [100, 32],
} as const satisfies Record<string, readonly [at: number, bits: 32 | 64]>;

export type Field = keyof typeof FIELDS;

export interface Extension {
  type: number;
  data: Buffer | string;
  /** What it says of its length; absent: the truth. */
  length?: number;
}

export const EXTENSION = {
  backingFormat: 0xe2792aca,
  encryption: 0x0537be77,
  bitmaps: 0x23852875,
  dataFile: 0x44415441,
  featureNames: 0x6803f857,
} as const;

export interface Qcow2Parts {
  /** Bytes of the disk; 1 MiB where absent. */
  size?: number;
  backing?: string | Buffer;
  backingFormat?: string;
  extensions?: Extension[];
  /** What follows the last extension instead of the end: 8 bytes of zeroes where absent. */
  end?: Buffer;
  /** Fields that are not as they should be. */
  fields?: Partial<Record<Field, number | bigint>>;
  /** The bytes that the file ends after. */
  cut?: number;
}

/**
 * Header, refcount table, refcount block and L1 table, a cluster each; no data. It is whole unless parts are broken on
 * purpose: `qemu-img check` finds nothing.
 */
export function qcow2Image(parts: Qcow2Parts = {}): Buffer {
  const {
    size = 1 << 20,
    backing,
    backingFormat,
    extensions = [],
    end = Buffer.alloc(8),
    fields = {},
  } = parts;
  const image = Buffer.alloc(4 * CLUSTER);
  const set = (field: Field, value: number | bigint): void => {
    const [at, bits] = FIELDS[field];
    if (bits === 64) image.writeBigUInt64BE(BigInt(value), at);
    else image.writeUInt32BE(Number(value), at);
  };
  const whole: [Field, number][] = [
    ['magic', 0x514649fb],
    ['version', 3],
    ['clusterBits', 16],
    ['size', size],
    ['l1Size', 1],
    ['l1Offset', 3 * CLUSTER],
    ['refcountOffset', CLUSTER],
    ['refcountClusters', 1],
    ['refcountOrder', 4],
    ['headerLength', 104],
  ];
  for (const [field, value] of whole) set(field, value);
  image.writeBigUInt64BE(BigInt(2 * CLUSTER), CLUSTER);
  for (let cluster = 0; cluster < 4; cluster++) image.writeUInt16BE(1, 2 * CLUSTER + cluster * 2);

  let at = 104;
  const all = [...extensions];
  if (backingFormat !== undefined) all.unshift({ type: EXTENSION.backingFormat, data: backingFormat });
  for (const { type, data, length } of all) {
    const bytes = Buffer.from(data);
    image.writeUInt32BE(type, at);
    image.writeUInt32BE(length ?? bytes.length, at + 4);
    bytes.copy(image, at + 8);
    at += 8 + Math.ceil(bytes.length / 8) * 8;
  }
  end.copy(image, at);
  at += end.length;
  if (backing !== undefined) {
    const name = Buffer.from(backing);
    set('backingOffset', at);
    set('backingLength', name.length);
    name.copy(image, at);
  }
  for (const [field, value] of Object.entries(fields)) set(field as Field, value);
  return image.subarray(0, parts.cut ?? image.length);
}

/** The bitmaps extension: so many bitmaps in a directory of that size at that offset. */
export function bitmapsExtension(count: number, size: number | bigint, offset: number | bigint): Extension {
  const data = Buffer.alloc(24);
  data.writeUInt32BE(count, 0);
  data.writeBigUInt64BE(BigInt(size), 8);
  data.writeBigUInt64BE(BigInt(offset), 16);
  return { type: EXTENSION.bitmaps, data };
}
