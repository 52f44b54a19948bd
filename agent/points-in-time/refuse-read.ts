import type { DomainDisk } from '../domains/config.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile } from '../host/open-files.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { CheckpointDiskRecord, CheckpointRecord } from './checkpoint-record.js';
import type { PointsContext } from './context.js';

/**
 * Refuses to delete a checkpoint while an export reads a file that has its bitmap: the map may count from it, and to
 * remove it QEMU (or qemu-img) would have to open the file read-write, which the export's server rules out.
 * @throws AgentError `ExportInUse`
 */
export async function refuseRead(
  { points, readerOf }: Pick<PointsContext, 'points' | 'readerOf'>,
  state: DomainState,
  { checkpoint, vm, disks }: CheckpointRecord,
): Promise<void> {
  for (const then of disks) {
    const disk = state.config.disks.find(({ target }) => target === then.target);
    if (disk === undefined) continue;
    const reader = readerOf(withBitmap(await chainOf(disk, state, points.allowedRoots), then));
    if (reader === undefined) continue;
    throw new AgentError(
      'ExportInUse',
      `The export "${reader}" reads a file of ${then.target} of ${vm.name} that has the bitmap of the checkpoint "${checkpoint}"; tear it down first.`,
      { vmId: vm.uuid, disk: then.target, exportId: reader },
    );
  }
}

/** The files of a disk now, top first; none where they cannot be looked at, for then no export reads them either. */
async function chainOf(
  { source, backing }: DomainDisk,
  { running }: DomainState,
  allowedRoots: readonly string[],
): Promise<FileId[]> {
  const { path, format } = source;
  if (path === null) return [];
  if (running) {
    const paths = [source, ...backing].flatMap((one) => one.path ?? []);
    return (await Promise.all(paths.map(fileAt))).filter((file) => file !== undefined);
  }
  try {
    const layers = await readChain({ path, format: knownFormat(format ?? '', path) }, allowedRoots);
    return layers.map(({ file }) => file);
  } catch (error) {
    if (error instanceof AgentError) return [];
    throw error;
  }
}

/** Those down to the file that the VM wrote to when the checkpoint was made; where that was merged away, all. */
function withBitmap(files: readonly FileId[], { files: [top] }: CheckpointDiskRecord): readonly FileId[] {
  const lowest = top === undefined ? -1 : files.findIndex((file) => isSameFile(file, top));
  return lowest === -1 ? files : files.slice(0, lowest + 1);
}
