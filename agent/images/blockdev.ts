import type { ImageOptions } from '../nbd/image-options.js';
import type { Layer } from './chain.js';

type LayerFile = Pick<Layer, 'path' | 'format' | 'isBlockDevice'>;

/**
 * The block graph that reads exactly these layers, top first: every layer and its format is named, so that QEMU
 * follows no name in a header and probes nothing.
 */
export function readOnlyImage(layers: readonly LayerFile[]): ImageOptions {
  const [top, ...below] = layers;
  if (top === undefined) throw new RangeError('an image has at least one layer');
  if (top.format === 'raw') return guardedRaw(top);
  let backing: ImageOptions | null = null;
  for (const layer of below.toReversed()) backing = node(layer, backing);
  return node(top, backing);
}

function node(layer: LayerFile, backing: ImageOptions | null): ImageOptions {
  const { format } = layer;
  const file = fileNode(layer);
  return format === 'raw'
    ? { driver: 'raw', 'read-only': true, file }
    : { driver: 'qcow2', 'read-only': true, backing, file };
}

/**
 * A raw image under blkdebug, which takes the locks that keep a writer away: QEMU's raw driver would share its
 * file with one, and the disk of a running VM would open without a word.
 * Only for a raw image that is exported itself: QEMU (7.2, 10.0) takes a backing node for given only if its
 * options hold `file.filename`, which a file under a filter has not. A raw layer below an overlay is guarded by
 * what libvirt says, when the export begins, of the VMs that write to any of its layers, and by our own lock on merges.
 */
function guardedRaw(layer: LayerFile): ImageOptions {
  return {
    driver: 'raw',
    'read-only': true,
    file: {
      driver: 'blkdebug',
      'read-only': true,
      'unshare-child-perms': ['write', 'resize'],
      image: fileNode(layer),
    },
  };
}

/** QEMU's `file` takes regular files only, and `host_device` everything else (since 6.0). */
function fileNode({ path: filename, isBlockDevice }: LayerFile): ImageOptions {
  const driver = isBlockDevice ? 'host_device' : 'file';
  return { driver, filename, 'read-only': true, locking: 'on' };
}
