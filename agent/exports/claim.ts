import { AgentError } from '../errors.js';
import { isSameFile } from '../host/open-files.js';
import { within } from '../host/process-wait.js';
import { refuseOtherUser } from '../points-in-time/file-users.js';
import { refuseMerging } from '../points-in-time/refuse-merging.js';
import { CLAIMS, type ExportsContext, STEP_MS } from './context.js';
import type { ExportRecord } from './record.js';
import { isWriter } from './registry.js';

/**
 * Writes down which files an export opens, unless another's claim stands against it: who writes to an image is alone with
 * it. QEMU's locks tell too late, with its own words, and of raw images not at all; these records are the lock. One that
 * comes after sees the first.
 * @throws AgentError `DiskInUse`, `SnapshotInUse`
 */
export async function claimFiles(
  context: ExportsContext,
  claim: ExportRecord,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const { registry, locks } = context;
  const [top] = claim.layers;
  if (isWriter(claim) && top !== undefined) await refuseOtherUser(context, top, claim.vm, signal);
  const holder = `the claim of the export "${claim.exportId}"`;
  const write = async () => {
    const others = registry.allLive().filter(({ exportId }) => exportId !== claim.exportId);
    const other = others.find((one) => excludes(one, claim) || excludes(claim, one));
    if (other !== undefined) throw inUse(claim, other);
    return registry.save(claim);
  };
  const record = await within(holder, { timeoutMs: STEP_MS, signal }, (limit) =>
    locks.run(CLAIMS, holder, limit, write),
  );
  // After the record: a merge that begins now finds it.
  await refuseMerging(context, record.layers);
  return record;
}

/** Whether the first writes to a file that the second has in whichever layer. */
function excludes(writer: ExportRecord, other: ExportRecord): boolean {
  const [top] = writer.layers;
  return isWriter(writer) && top !== undefined && other.layers.some(({ file }) => isSameFile(file, top.file));
}

function inUse(claim: ExportRecord, other: ExportRecord): AgentError {
  const { exportId, vm, disk, image } = claim;
  const does = isWriter(other) ? 'writes to' : 'reads';
  return new AgentError(
    'DiskInUse',
    `The export "${other.exportId}" ${does} ${image.path}, and who writes to an image has to be alone with it; tear that export down first.`,
    { exportId, ...(vm !== null && { vmId: vm.uuid }), ...(disk !== null && { disk }) },
  );
}
