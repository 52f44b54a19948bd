import { stat } from 'node:fs/promises';
import { AgentError } from '../errors.js';
import { filesOf, isSameFile } from '../host/open-files.js';
import { type HeldChain, type HeldLayer, holdChain, type Layer } from '../images/chain.js';
import type { QemuNbdServer } from '../nbd/qemu-nbd.js';

/**
 * The chain, checked once more, and held from here until its server has opened it: from now on no name leads elsewhere. What
 * was planned for the files that were found first is not done to others.
 */
export async function holdAgain(planned: readonly Layer[], roots: readonly string[]): Promise<HeldChain> {
  const [top] = planned;
  if (top === undefined) throw new RangeError('an image has at least one layer');
  const chain = await holdChain(top, roots);
  const same = (layer: HeldLayer, i: number): boolean => {
    const before = planned[i];
    return (
      before !== undefined &&
      isSameFile(layer.file, before.file) &&
      layer.format === before.format &&
      layer.capacity === before.capacity
    );
  };
  if (chain.layers.length === planned.length && chain.layers.every(same)) return chain;
  await chain.close();
  throw new AgentError(
    'UnsafeImage',
    `The files of ${top.path} were exchanged while its export was prepared, so it is not exported; see who writes there.`,
  );
}

/**
 * A header may have been changed in place after it was read, to name a data file, which QEMU then opens. In its confinement
 * there is none to be found; without, it shows here, before anybody is let in.
 * @throws AgentError `UnsafeImage`
 */
export async function refuseOtherFiles(
  server: QemuNbdServer,
  layers: readonly HeldLayer[],
  stderrFile: string,
): Promise<void> {
  const { pid } = server.process.identity;
  const log = await stat(stderrFile);
  for (const opened of await filesOf(pid)) {
    if (isSameFile(opened, log) || layers.some(({ file }) => isSameFile(file, opened))) continue;
    throw new AgentError(
      'UnsafeImage',
      `qemu-nbd has opened ${opened.path} beside the files of ${layers[0]?.path}, which its headers did not name when they ` +
        'were checked, so it is not exported; see who writes there.',
    );
  }
}
