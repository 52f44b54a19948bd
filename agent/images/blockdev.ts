import type { ImageOptions } from '../nbd/image-options.js';
import type { Layer } from './chain.js';

type LayerFile = Pick<Layer, 'path' | 'format' | 'isBlockDevice'>;

/**
 * The block graph that reads exactly these layers, top first: every layer and its format is named, so that QEMU
 * follows no name in a header and probes nothing.
 */
export function readOnlyImage(layers: readonly LayerFile[]): ImageOptions {
  return imageOf(layers, READ_ONLY);
}

/** The same with a top layer that is written to, trims included; those below it are read. */
export function writableImage(layers: readonly LayerFile[]): ImageOptions {
  return imageOf(layers, WRITABLE);
}

const READ_ONLY = { 'read-only': true } as const;
/** Trims make holes, so that a restored disk stays sparse. */
const WRITABLE = { 'read-only': false, discard: 'unmap' } as const;
type Access = typeof READ_ONLY | typeof WRITABLE;

function imageOf(layers: readonly LayerFile[], access: Access): ImageOptions {
  const [top, ...below] = layers;
  if (top === undefined) throw new RangeError('an image has at least one layer');
  if (top.format === 'raw') return guardedRaw(top, access);
  let backing: ImageOptions | null = null;
  for (const layer of below.toReversed()) backing = node(layer, backing, READ_ONLY);
  return node(top, backing, access);
}

function node(layer: LayerFile, backing: ImageOptions | null, access: Access): ImageOptions {
  const file = fileNode(layer, access);
  return layer.format === 'raw'
    ? { driver: 'raw', ...access, file }
    : { driver: 'qcow2', ...access, backing, file };
}

/**
 * A throw-away layer over what a server shows: reads come from there, writes stay in the file. Its flushes are not waited
 * for: what a crash of the host would lose is lost with the export anyway.
 */
export function overlayImage(filename: string, below: { socket: string; exportName: string }): ImageOptions {
  const cache = { 'no-flush': true };
  return {
    driver: 'qcow2',
    ...WRITABLE,
    cache,
    file: { driver: 'file', filename, ...WRITABLE, cache, locking: 'on' },
    backing: {
      driver: 'raw',
      ...READ_ONLY,
      file: {
        driver: 'nbd',
        server: { type: 'unix', path: below.socket },
        export: below.exportName,
        ...READ_ONLY,
      },
    },
  };
}

/**
 * A raw image under blkdebug, which takes the locks that keep a writer away: QEMU's raw driver would share its
 * file with one, and the disk of a running VM would open without a word.
 * Only for a raw image that is exported itself: QEMU (7.2, 10.0) takes a backing node for given only if its
 * options hold `file.filename`, which a file under a filter has not. A raw layer below an overlay is guarded by
 * what libvirt says, when the export begins, of the VMs that write to any of its layers, and by our own lock on merges.
 */
function guardedRaw(layer: LayerFile, access: Access): ImageOptions {
  return {
    driver: 'raw',
    ...access,
    file: {
      driver: 'blkdebug',
      ...access,
      'unshare-child-perms': ['write', 'resize'],
      image: fileNode(layer, access),
    },
  };
}

/** QEMU's `file` takes regular files only, and `host_device` everything else (since 6.0). */
function fileNode({ path: filename, isBlockDevice }: LayerFile, access: Access): ImageOptions {
  const driver = isBlockDevice ? 'host_device' : 'file';
  return { driver, filename, ...access, locking: 'on' };
}
