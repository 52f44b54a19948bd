/** The image that `mountDisk` makes first, from its record to its removal. */
import { randomBytes } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InvalidParams } from '../errors.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { makeImage } from '../images/new-image.js';
import { CLAIMS, type ExportCall, type ExportsContext, STEP_MS } from './context.js';
import type { ExportRecord } from './record.js';

/**
 * Makes the image of `create`, after it is on record that it is made; nothing without.
 * @param starting not yet saved
 * @throws AgentError as `makeImage`; InvalidParams
 */
export async function createImage(
  { registry, settings }: ExportsContext,
  starting: ExportRecord,
  { signal }: ExportCall,
): Promise<ExportRecord> {
  const { create, path, format } = starting.params;
  if (create === undefined || path === undefined || format === undefined) return starting;
  if (create.format !== undefined && create.format !== format) {
    const message = `is ${create.format}, and format is ${format}`;
    throw new InvalidParams(`Invalid params: /create/format ${message}.`, [
      { path: '/create/format', message },
    ]);
  }
  const temporary = join(dirname(path), `.vmdiskd-${randomBytes(8).toString('hex')}.new`);
  const record = await registry.save({ ...starting, newImage: { temporary, file: null } });
  const file = await makeImage(
    { path, temporary, format, capacity: create.capacity },
    settings.allowedRoots,
    signal,
  );
  const made = await registry.save({ ...record, newImage: { temporary, file } });
  await unlink(temporary);
  return made;
}

/**
 * Removes an image that nobody has been told of. It is ours where it is the very file that was made: by its record, or,
 * where that was not written any more, by the first name, which it then still bears. Idempotent.
 */
export async function removeNewImage(
  { registry, locks }: ExportsContext,
  { exportId, image, newImage }: ExportRecord,
): Promise<void> {
  if (newImage === null) return;
  const made = newImage.file ?? (await fileAt(newImage.temporary));
  await locks.run(CLAIMS, `the removal of ${image.path}`, AbortSignal.timeout(STEP_MS), async () => {
    const there = await fileAt(image.path);
    if (made === undefined || there === undefined || !isSameFile(made, there)) return;
    // Somebody may have found it meanwhile, and write to it.
    const others = registry.allLive().filter((one) => one.exportId !== exportId);
    const claimed = others.some(({ layers }) => layers.some(({ file }) => isSameFile(file, made)));
    if (!claimed) await unlink(image.path);
  });
  await unlink(newImage.temporary).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
  });
}
