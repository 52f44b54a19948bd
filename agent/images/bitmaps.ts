import { AgentError } from '../errors.js';
import type { Confinement } from '../host/confine.js';
import { runConfined } from '../host/confined-tool.js';
import { isSameFile } from '../host/open-files.js';
import { ToolError } from '../host/process-tool.js';
import { imageFileName } from '../nbd/image-options.js';
import { holdChain, type Layer } from './chain.js';
import { openedAs, withOwnNames } from './opened-as.js';

/**
 * qemu-img works on the header and the bitmaps alone; an image on slow storage may take a while to open. It maps some 300 MB
 * of libraries and stacks, and loads 40 MiB of tables at most (block/qcow2.h).
 */
const limits = { timeoutMs: 60_000, maxOutput: 64 * 1024, memory: 1024 ** 3 };

type LayerFile = Pick<Layer, 'path' | 'file'>;

/** What an image is judged by when it is opened, and how who opens it is confined. */
export interface ImageSafety {
  allowedRoots: readonly string[];
  /** Null where the daemon can confine nothing. */
  confinement: Confinement | null;
}

/** Adds a persistent bitmap that records from now on to an image that nobody writes to. */
export async function addBitmap(
  layer: LayerFile,
  name: string,
  safety: ImageSafety,
  signal: AbortSignal,
): Promise<void> {
  await changeBitmap('--add', layer, name, safety, signal);
}

/** Removes a bitmap, also one that was not stored properly. */
export async function removeBitmap(
  layer: LayerFile,
  name: string,
  safety: ImageSafety,
  signal: AbortSignal,
): Promise<void> {
  await changeBitmap('--remove', layer, name, safety, signal);
}

async function changeBitmap(
  change: '--add' | '--remove',
  { path, file }: LayerFile,
  name: string,
  { allowedRoots, confinement }: ImageSafety,
  signal: AbortSignal,
): Promise<void> {
  const chain = await holdChain({ path, format: 'qcow2' }, allowedRoots);
  try {
    const [top] = chain.layers;
    if (top === undefined || !isSameFile(top.file, file)) {
      throw new AgentError('CheckpointError', `${path} is another file than a moment ago; try again.`);
    }
    const { layers, confined } = openedAs([top], confinement, { write: true });
    // The layer alone: what backs it has no part in this and is not opened.
    const filename = layers[0]?.path ?? '';
    const driver = top.isBlockDevice ? 'host_device' : 'file';
    const image = imageFileName({ driver: 'qcow2', backing: null, file: { driver, filename } });
    const args = ['bitmap', change, '--', image, name];
    await runConfined(confined, 'qemu-img', args, { ...limits, signal });
  } catch (cause) {
    if (!(cause instanceof ToolError)) throw cause;
    throw new AgentError(
      'CheckpointError',
      `qemu-img could not ${change === '--add' ? 'add' : 'remove'} the bitmap "${name}" in ${path}; see that nobody has the image open.`,
      { stderr: withOwnNames(cause.stderr, chain.layers), cause },
    );
  } finally {
    await chain.close();
  }
}
