import { AgentError } from '../errors.js';
import { runTool, ToolError } from '../host/process-tool.js';
import { imageFileName } from '../nbd/image-options.js';
import type { Layer } from './chain.js';

/** qemu-img works on the header and the bitmaps alone; an image on slow storage may take a while to open. */
const limits = { timeoutMs: 60_000, maxOutput: 64 * 1024 };

type LayerPath = Pick<Layer, 'path'>;

/** Adds a persistent bitmap that records from now on to an image that nobody writes to. */
export async function addBitmap(layer: LayerPath, name: string, signal: AbortSignal): Promise<void> {
  await changeBitmap('--add', layer, name, signal);
}

/** Removes a bitmap, also one that was not stored properly. */
export async function removeBitmap(layer: LayerPath, name: string, signal: AbortSignal): Promise<void> {
  await changeBitmap('--remove', layer, name, signal);
}

async function changeBitmap(
  change: '--add' | '--remove',
  { path }: LayerPath,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  // The layer alone: what backs it has no part in this and is not opened.
  const image = imageFileName({ driver: 'qcow2', backing: null, file: { driver: 'file', filename: path } });
  try {
    await runTool('qemu-img', ['bitmap', change, '--', image, name], { ...limits, signal });
  } catch (cause) {
    if (!(cause instanceof ToolError)) throw cause;
    throw new AgentError(
      'CheckpointError',
      `qemu-img could not ${change === '--add' ? 'add' : 'remove'} the bitmap "${name}" in ${path}; see that nobody has the image open.`,
      { stderr: cause.stderr, cause },
    );
  }
}
