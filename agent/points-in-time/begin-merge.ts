import { type DomainState, readDomain } from '../domains/lookup.js';
import { refuseSaved } from '../domains/managed-save.js';
import { refuseMovedAway } from '../domains/migration.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import type { FileId } from '../host/open-files.js';
import { withinVm } from './checkpoint-record.js';
import type { PointsCall, PointsContext } from './context.js';
import { refuseSharedBase } from './file-users.js';
import type { JobRecord } from './job-record.js';
import { disksOf, isMerge, mergedByLibvirt, planDiskMerge, refuseAstray } from './merge-plan.js';
import { refuseBusy } from './refuse-busy.js';
import {
  findSnapshot,
  SNAPSHOT_RECORD_VERSION,
  type SnapshotDiskRecord,
  type SnapshotRecord,
} from './snapshot-record.js';

/**
 * Begins to delete a snapshot, under the VM's lock: from here on it is `merging`. That is written down before the readers are looked for, as an export's record
 * is before it looks whether its layers are being merged: whichever comes second sees the first.
 * @throws AgentError; nothing has begun then
 */
export async function beginMerge(
  context: PointsContext,
  { uuid, name }: SnapshotRecord['vm'],
  snapshotId: string,
  job: JobRecord,
  { owner, signal }: PointsCall,
): Promise<SnapshotRecord> {
  const { libvirt, snapshots, jobs } = context;
  const state = await readDomain(libvirt, uuid, signal);
  await refuseMovedAway(libvirt, state.domain, signal);
  const doing = `delete the snapshot "${snapshotId}" of ${name}`;
  await refuseSaved(libvirt, state.domain, 'MergeFailed', doing, signal);
  const facts = await readSnapshot(libvirt, state.domain, snapshotId, signal);
  const before = findSnapshot(snapshots, uuid, snapshotId);
  const known = facts === undefined ? [] : await disksOf(facts);
  const wanted = mergedByLibvirt(mergeable(before?.disks ?? [], known), facts);
  const { disks, files } = await layersToMerge(context, state, wanted, signal);
  // Also a backup of other disks: the merge holds the VM's lock, and that backup could not be ended until it is done.
  await refuseBusy(context, state.domain, doing, signal);
  const record: SnapshotRecord = {
    ...(before ?? foreignRecord({ uuid, name }, snapshotId, owner, facts)),
    state: 'merging',
    disks,
    jobId: job.jobId,
  };
  await jobs.save(job);
  try {
    await snapshots.save(record);
    refuseReader(context, record, files);
    return record;
  } catch (error) {
    await undo(context, record, before);
    throw error;
  }
}

/**
 * Nobody has been told of the job. Its record goes also where the snapshot's cannot be written back (the disk is full):
 * then that stays `merging`, which another deleteSnapshot goes on with.
 */
async function undo(
  { snapshots, jobs, log }: PointsContext,
  { vm, snapshotId, jobId }: SnapshotRecord,
  before: SnapshotRecord | undefined,
): Promise<void> {
  const about = { vmId: vm.uuid, snapshotId };
  const restored =
    before === undefined ? snapshots.remove(withinVm(vm.uuid, snapshotId)) : snapshots.save(before);
  await restored.catch((err: unknown) =>
    log.error({ ...about, err }, 'a snapshot stays in merging although its merge has not begun'),
  );
  // Where this fails, too, the watch ends it.
  await jobs
    .remove(jobId ?? '')
    .catch((err: unknown) => log.error({ ...about, err }, 'the record of a job that has not begun stays'));
}

/**
 * The files that a merge will change, and the disks with which file each overlay is.
 * @throws AgentError `MergeFailed` for an overlay that cannot be merged, `SnapshotInUse` for a layer that another disk needs
 */
export async function layersToMerge(
  context: PointsContext,
  state: DomainState,
  wanted: readonly SnapshotDiskRecord[],
  signal: AbortSignal,
): Promise<{ disks: SnapshotDiskRecord[]; files: FileId[] }> {
  const files: FileId[] = [];
  const disks: SnapshotDiskRecord[] = [];
  for (const disk of wanted) {
    const plan = await planDiskMerge(state, disk, context.points.allowedRoots);
    refuseAstray(state.domain, disk, plan);
    if (isMerge(plan)) {
      await refuseSharedBase(context, state.domain, plan, signal);
      files.push(plan.base.file, plan.top.file);
    }
    disks.push(isMerge(plan) ? { ...disk, activeFile: plan.top.file } : disk);
  }
  return { disks, files };
}

/**
 * To be asked once the snapshot's own record says that it is being merged.
 * @throws AgentError `SnapshotInUse` where an export reads one of the files
 */
export function refuseReader(
  context: PointsContext,
  { vm, snapshotId }: Pick<SnapshotRecord, 'vm' | 'snapshotId'>,
  files: readonly FileId[],
): void {
  const reader = context.readerOf(files);
  if (reader === undefined) return;
  throw new AgentError(
    'SnapshotInUse',
    `The export "${reader}" reads an image that deleting the snapshot "${snapshotId}" of ${vm.name} would change; tear ` +
      'it down first.',
    { vmId: vm.uuid, exportId: reader },
  );
}

/**
 * The disks of a snapshot: as libvirt has them, since it follows what other merges do to the files; those that it has no
 * more (merged in a former run) as we wrote them down.
 */
function mergeable(
  ours: SnapshotRecord['disks'],
  libvirts: SnapshotRecord['disks'],
): SnapshotRecord['disks'] {
  const known = libvirts.map((disk) => {
    const noted = ours.find(({ target, active }) => target === disk.target && active === disk.active);
    return { ...noted, ...disk, activeFile: noted?.activeFile ?? null };
  });
  return [...known, ...ours.filter(({ target }) => !known.some((disk) => disk.target === target))];
}

/** The record of a snapshot that another program made, which this call deletes. */
function foreignRecord(
  vm: SnapshotRecord['vm'],
  snapshotId: string,
  owner: string,
  facts: SnapshotFacts | undefined,
): SnapshotRecord {
  return {
    version: SNAPSHOT_RECORD_VERSION,
    kind: 'snapshot',
    snapshotId,
    created: facts?.created ?? new Date().toISOString(),
    ended: null,
    request: null,
    owner,
    vm,
    state: 'merging',
    quiesce: 'no',
    quiesced: false,
    disks: [],
    domainXml: facts?.domainXml ?? null,
    checkpoint: null,
    jobId: null,
  };
}
