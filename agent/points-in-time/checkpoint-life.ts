import { deleteCheckpointOf, findCheckpoint } from '../domains/checkpoints.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { AgentError, InvalidParams } from '../errors.js';
import { removeBitmap } from '../images/bitmaps.js';
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

/** Keeps a pending checkpoint, or deletes it with its bitmaps. Repeated, it tells what the first call decided. */
export async function decideCheckpoint(
  context: PointsContext,
  uuid: string,
  name: string,
  outcome: Outcome,
  signal: AbortSignal,
): Promise<EndedCheckpoint> {
  const record = context.checkpoints.find(withinVm(uuid, name));
  if (record === undefined || record.ended !== null) return { id: name, state: 'deleted' };
  if (record.state === 'good') return { id: name, state: 'kept' };
  if (outcome === 'success' && record.state === 'pending') {
    await context.checkpoints.save({ ...record, state: 'good' });
    return { id: name, state: 'kept' };
  }
  await dropCheckpoint(context, record, signal);
  return { id: name, state: 'deleted' };
}

/** Deletes a checkpoint of ours: in libvirt, its bitmaps in QEMU or, of a VM that is off, in the images. */
export async function dropCheckpoint(
  context: PointsContext,
  record: CheckpointRecord,
  signal: AbortSignal,
): Promise<void> {
  const { libvirt, checkpoints, points } = context;
  const deleting = await checkpoints.save({ ...record, state: 'deleting' });
  const state = await readDomain(libvirt, record.vm.uuid, signal).catch((error: unknown) => {
    if (error instanceof AgentError && error.name === 'NoSuchVM') return null;
    throw error;
  });
  if (state !== null) {
    const { bitmapsLeft } = await deleteCheckpointOf(
      libvirt,
      state.domain,
      record.checkpoint,
      state.running,
      signal,
    );
    if (bitmapsLeft) await removeFromImages(state, deleting, points.allowedRoots, signal);
  }
  await checkpoints.save({ ...deleting, state: 'ended', ended: new Date().toISOString() });
}

/** A bitmap left behind in the image of a VM that is off would block its name for ever. */
async function removeFromImages(
  { config }: DomainState,
  { checkpoint, disks }: CheckpointRecord,
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  for (const { target } of disks) {
    const path = config.disks.find((disk) => disk.target === target)?.source.path;
    const format = config.disks.find((disk) => disk.target === target)?.source.format;
    if (path === undefined || path === null || format === undefined || format === null) continue;
    for (const layer of await readChain({ path, format: knownFormat(format, path) }, allowedRoots)) {
      if (layer.bitmaps.some(({ name }) => name === checkpoint))
        await removeBitmap(layer, checkpoint, signal);
    }
  }
}
