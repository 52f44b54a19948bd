import { readChain } from '../images/chain.js';
import type { ExportRecord } from './record.js';

/**
 * In which state an image is whose writer was cut off, as sentences: what was flushed is there, the rest may be. qcow2's own
 * tables are written in an order that a cut leaves sound but for space that nobody uses (QEMU, docs/interop/qcow2.rst); its
 * bitmaps are marked while they are in use, and stay so.
 */
export async function whatIsLeft(
  { image }: Pick<ExportRecord, 'image'>,
  allowedRoots: readonly string[],
): Promise<string> {
  const { path, format } = image;
  const flushed = `${path} has what was flushed, and of what was written after that any part`;
  const layers = await readChain(image, allowedRoots).catch(() => undefined);
  const [top] = layers ?? [];
  if (top === undefined) return `${flushed}, if it can still be read.`;
  const lost = top.bitmaps.filter(({ inconsistent }) => inconsistent).map(({ name }) => `"${name}"`);
  const bitmaps =
    lost.length === 0
      ? ''
      : ` Its bitmaps ${lost.join(', ')} were left in use, so that backups since those checkpoints are refused or full.`;
  const space = format === 'qcow2' ? ` \`qemu-img check -r leaks ${path}\` gives space back.` : '';
  return `${flushed}.${bitmaps}${space} Write it again from the start.`;
}
