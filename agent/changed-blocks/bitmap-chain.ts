import { AgentError } from '../errors.js';
import type { ImageBitmap } from '../images/qcow2.js';

/** What the rules look at in a layer of a backing chain. */
export interface BitmapLayer {
  path: string;
  capacity: number;
  bitmaps: readonly ImageBitmap[];
}

/**
 * The layers over which a named bitmap spans, top first: what changed since the bitmap was made is what any of
 * them recorded. qemu-nbd looks for a bitmap anywhere in the chain and then reports the overlay's own writes as
 * clean, so the whole chain is checked here, before it may be asked.
 *
 * The bitmap must be on the top layer and on every layer down to the one where tracking began, without a gap;
 * each must have been recording and stored properly; and no layer may present a smaller disk than the one below,
 * for what was cut off and grown back has changed without a trace.
 * @throws AgentError `BitmapDoesNotExist`, `InvalidBitmapChain`, `InconsistentCheckpoint`
 */
export function bitmapLayers<L extends BitmapLayer>(chain: readonly L[], name: string): L[] {
  const has = chain.map((layer) => layer.bitmaps.some((bitmap) => bitmap.name === name));
  const lowest = has.lastIndexOf(true);
  const top = chain[0];
  if (top === undefined || lowest === -1) {
    throw new AgentError(
      'BitmapDoesNotExist',
      `No bitmap is named "${name}" in ${top?.path ?? 'an empty chain'} or a layer below it; ` +
        'listDisks shows those there are. Take a full backup, or set ifUntracked to "full".',
    );
  }
  const gap = has.indexOf(false);
  const missing = chain[gap];
  if (gap !== -1 && gap < lowest && missing !== undefined) {
    throw new AgentError(
      'InvalidBitmapChain',
      `${missing.path} lacks the bitmap "${name}" that a layer below it has, so what was written to it is ` +
        'unknown. Take a full backup, or set ifUntracked to "full".',
    );
  }
  const spanned = chain.slice(0, lowest + 1);
  for (const [depth, layer] of spanned.entries()) {
    const above = spanned[depth - 1];
    if (above !== undefined && above.capacity < layer.capacity) {
      throw new AgentError(
        'InvalidBitmapChain',
        `${above.path} presents a smaller disk than ${layer.path} below it, so the bitmap "${name}" cannot ` +
          'tell what was cut off. Take a full backup, or set ifUntracked to "full".',
      );
    }
    checkBitmap(layer, name);
  }
  return spanned;
}

function checkBitmap(layer: BitmapLayer, name: string): void {
  const bitmap = layer.bitmaps.find((candidate) => candidate.name === name);
  if (bitmap?.inconsistent !== false) {
    throw new AgentError(
      'InconsistentCheckpoint',
      `The bitmap "${name}" in ${layer.path} is in use or was not stored properly and may lack changes. Where a merge of ` +
        'a snapshot was cut short, deleteSnapshot again mends that; else, if no program has the image open, remove it ' +
        '(qemu-img bitmap --remove) and take a full backup.',
    );
  }
  if (!bitmap.recording) {
    throw new AgentError(
      'InconsistentCheckpoint',
      `The bitmap "${name}" in ${layer.path} is disabled and may lack changes. Remove it (qemu-img bitmap ` +
        '--remove), take a full backup, and start a new one.',
    );
  }
}
