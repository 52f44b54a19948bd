import { deleteCheckpointOf, findCheckpoint, forgetCheckpoint } from '../domains/checkpoints.js';
import { type DomainState, readDomainIfAny } from '../domains/lookup.js';
import { hasMovedAway, refuseMigrating } from '../domains/migration.js';
import { AgentError, type ErrorName, InvalidParams } from '../errors.js';
import { fileAt } from '../host/open-files.js';
import { type ImageSafety, removeBitmap } from '../images/bitmaps.js';
import { knownFormat, readChain } from '../images/chain.js';
import {
  CHECKPOINT_RECORD_VERSION,
  type CheckpointDiskRecord,
  type CheckpointRecord,
  withinVm,
} from './checkpoint-record.js';
import type { PointsContext } from './context.js';

export type Outcome = 'success' | 'failed';

/** What became of a checkpoint. */
export interface EndedCheckpoint {
  id: string;
  state: 'kept' | 'deleted';
}

/** @throws AgentError `AlreadyExists` for a checkpoint's name that libvirt or a record of ours bears */
export async function refuseTakenName(
  { libvirt, checkpoints }: PointsContext,
  { domain }: DomainState,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const known = checkpoints.find(withinVm(domain.uuid, name));
  if (
    (known !== undefined && known.ended === null) ||
    (await findCheckpoint(libvirt, domain, name, signal)) !== null
  ) {
    throw new AgentError(
      'AlreadyExists',
      `${domain.name} has a checkpoint "${name}" already; use a new name.`,
      {
        vmId: domain.uuid,
      },
    );
  }
}

/**
 * Writes a checkpoint down before libvirt makes it.
 * @throws AgentError `AlreadyExists` for a name that libvirt or a record of ours bears
 */
export async function planCheckpoint(
  context: PointsContext,
  state: DomainState,
  name: string,
  madeBy: CheckpointRecord['madeBy'],
  disks: CheckpointDiskRecord[],
  signal: AbortSignal,
): Promise<CheckpointRecord> {
  const { domain } = state;
  await refuseTakenName(context, state, name, signal);
  return context.checkpoints.save({
    version: CHECKPOINT_RECORD_VERSION,
    kind: 'checkpoint',
    created: new Date().toISOString(),
    ended: null,
    vm: { uuid: domain.uuid, name: domain.name },
    checkpoint: name,
    parent: null,
    state: 'making',
    madeBy,
    disks,
    creationTime: null,
    xml: null,
  });
}

/** Writes down what libvirt has made: from now on the checkpoint is pending. */
export async function rememberCheckpoint(
  { libvirt, checkpoints }: PointsContext,
  { domain }: DomainState,
  record: CheckpointRecord,
  signal: AbortSignal,
): Promise<CheckpointRecord> {
  const facts = await findCheckpoint(libvirt, domain, record.checkpoint, signal);
  if (facts === null) {
    throw new AgentError(
      'CheckpointError',
      `libvirt made no checkpoint "${record.checkpoint}" of ${domain.name}; see its log.`,
      {
        vmId: domain.uuid,
      },
    );
  }
  const { parent, creationTime, xml } = facts;
  return checkpoints.save({ ...record, state: 'pending', parent, creationTime, xml });
}

/** @throws InvalidParams where a pending checkpoint waits for an outcome and none is given */
export function requireOutcome(checkpoint: string | null, outcome: Outcome | undefined): void {
  if (checkpoint === null || outcome !== undefined) return;
  throw new InvalidParams(
    `Invalid params: /outcome is required, since the checkpoint "${checkpoint}" waits for it: "success" keeps it, "failed" deletes it.`,
    [{ path: '/outcome', message: 'is required: a pending checkpoint depends on it' }],
  );
}

/**
 * Keeps a pending checkpoint, or deletes it with its bitmaps. Repeated, it tells what the first call decided.
 * @param by what decides: of a checkpoint that was made with something else it leaves its hands
 */
export async function decideCheckpoint(
  context: PointsContext,
  uuid: string,
  name: string,
  outcome: Outcome,
  by: CheckpointRecord['madeBy'],
  signal: AbortSignal,
): Promise<EndedCheckpoint> {
  const record = context.checkpoints.find(withinVm(uuid, name));
  const its = record?.madeBy.kind === by.kind && record.madeBy.id === by.id;
  if (record === undefined || record.ended !== null || !its) return { id: name, state: 'deleted' };
  if (record.state === 'good') return { id: name, state: 'kept' };
  if (outcome === 'success' && record.state === 'pending') {
    await context.checkpoints.save({ ...record, state: 'good' });
    return { id: name, state: 'kept' };
  }
  await dropNowOrLater(context, record, signal);
  return { id: name, state: 'deleted' };
}

/** What keeps bitmaps from being removed for as long as the image, or who has it open, is as it is. */
const LASTING: readonly ErrorName[] = [
  'CheckpointError',
  'NoSuchImage',
  'PathNotAllowed',
  'UnsafeImage',
  'UnsupportedDisk',
  'WrongFormat',
];

/**
 * As `dropCheckpoint`, for the end of what the checkpoint was made with, which must not wait for an image that cannot be
 * changed now (a live backup never looks into it): the deletion stays on record, and `finishDeletions` goes on with it.
 */
export async function dropNowOrLater(
  context: PointsContext,
  record: CheckpointRecord,
  signal: AbortSignal,
): Promise<void> {
  try {
    await dropCheckpoint(context, record, signal);
  } catch (error) {
    if (!(error instanceof AgentError && LASTING.includes(error.name))) throw error;
    const { checkpoint, vm } = record;
    context.log.warn({ checkpoint, vmId: vm.uuid, err: error }, 'a checkpoint cannot be deleted yet');
  }
}

/**
 * Deletes a checkpoint of ours: in libvirt, its bitmaps in QEMU or, of a VM that is off, in the images. A VM that has
 * migrated away took its bitmaps along, and has the images open where it runs: they stay.
 * @throws AgentError `MigrationInProgress`, `CheckpointError`; as `readChain` for an image that cannot be looked at
 */
export async function dropCheckpoint(
  context: PointsContext,
  record: CheckpointRecord,
  signal: AbortSignal,
): Promise<void> {
  const { libvirt, checkpoints, events } = context;
  const state = await readDomainIfAny(libvirt, record.vm.uuid, signal);
  if (state !== null) await refuseMigrating(libvirt, state.domain, signal);
  const deleting = await checkpoints.save({ ...record, state: 'deleting' });
  if (state?.running === true) await deleteCheckpointOf(libvirt, state.domain, record.checkpoint, signal);
  else if (state !== null) await deleteOff(context, state, deleting, signal);
  await checkpoints.save({ ...deleting, state: 'ended', ended: new Date().toISOString() });
  // One that libvirt never had is nothing that callers know of.
  if (record.creationTime !== null) {
    const { checkpoint, vm, madeBy } = record;
    events.emit({ kind: 'checkpointDeleted', checkpoint, vmId: vm.uuid, madeBy });
  }
}

/**
 * libvirt deletes no bitmap of a VM that is off, so its knowledge goes last: a deletion that is cut short after it would
 * find nothing to be deleted in a VM that has been started since, and leave the bitmap, which blocks its name, for ever.
 */
async function deleteOff(
  { libvirt, points, log }: PointsContext,
  state: DomainState,
  record: CheckpointRecord,
  signal: AbortSignal,
): Promise<void> {
  const { checkpoint, vm } = record;
  if (await hasMovedAway(libvirt, state.domain, signal)) {
    const about = { vmId: vm.uuid, checkpoint };
    log.warn(about, 'forgets a checkpoint of a VM that has migrated away; its bitmaps went with the VM');
  } else {
    await removeFromImages(state, record, points, signal);
  }
  await forgetCheckpoint(libvirt, state.domain, checkpoint, signal);
}

async function removeFromImages(
  { config }: DomainState,
  { checkpoint, disks }: CheckpointRecord,
  safety: ImageSafety,
  signal: AbortSignal,
): Promise<void> {
  for (const { target } of disks) {
    const path = config.disks.find((disk) => disk.target === target)?.source.path;
    const format = config.disks.find((disk) => disk.target === target)?.source.format;
    if (path === undefined || path === null || format === undefined || format === null) continue;
    if ((await fileAt(path)) === undefined) continue; // and its bitmaps are gone with it
    for (const layer of await readChain({ path, format: knownFormat(format, path) }, safety.allowedRoots)) {
      if (layer.bitmaps.some(({ name }) => name === checkpoint))
        await removeBitmap(layer, checkpoint, safety, signal);
    }
  }
}
