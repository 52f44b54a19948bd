import { realpath } from 'node:fs/promises';
import type { PrepareBackupDiskParams } from '../api/generated.js';
import { bitmapPlan, depthPlan, fullPlan, type MapPlan } from '../changed-blocks/plan.js';
import { AgentError, type Cause } from '../errors.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import type { Layer } from '../images/chain.js';
import { trustCheckpoint } from '../points-in-time/checkpoint-trust.js';
import { knownFiles } from '../points-in-time/disk-now.js';
import { findFrozen } from '../points-in-time/frozen-disk.js';
import type { ExportsContext } from './context.js';
import type { ImagePoint } from './point-in-time.js';

/** How the map of files is to be had, and why it is full although less was asked for. */
export interface PlannedMap {
  plan: MapPlan<Layer>;
  reason: Cause | null;
}

/**
 * Plans the map of an export of files. Where none can be trusted it is the named error, or, with `ifUntracked: "full"`,
 * the full map with the cause.
 * @throws AgentError; `CheckpointPending` whatever `ifUntracked` says
 */
export async function planMap(
  context: ExportsContext,
  { since, ifUntracked }: Pick<PrepareBackupDiskParams, 'since' | 'ifUntracked'>,
  point: ImagePoint,
  signal: AbortSignal,
): Promise<PlannedMap> {
  if (since === undefined) return { plan: fullPlan(), reason: null };
  try {
    return { plan: await planSince(context, since, point, signal), reason: null };
  } catch (cause) {
    const overridable = cause instanceof AgentError && cause.name !== 'CheckpointPending';
    if (!overridable || ifUntracked !== 'full') throw cause;
    return { plan: fullPlan(), reason: { name: cause.name, message: cause.message } };
  }
}

async function planSince(
  context: ExportsContext,
  since: NonNullable<PrepareBackupDiskParams['since']>,
  point: ImagePoint,
  signal: AbortSignal,
): Promise<MapPlan<Layer>> {
  const { layers, of } = point;
  if ('bitmap' in since) return bitmapPlan(layers, since.bitmap);
  if (of === null) throw new Error('checkpoints and snapshots are of a VM, by the schema');
  if ('checkpoint' in since) {
    const now = {
      capacity: layers[0]?.capacity ?? 0,
      files: await knownFiles(layers.map((layer) => layer.path)),
      format: layers[0]?.format ?? null,
    };
    await trustCheckpoint(context, of.state, of.disk, now, since.checkpoint, signal);
    return bitmapPlan(layers, since.checkpoint);
  }
  return depthSince(context, since.snapshot, point, of, signal);
}

/**
 * What lies above the file that a snapshot froze was written since, if nothing was written to that file itself. That shows
 * in what lies right above it: the snapshot's own overlay, or nothing, where it is that snapshot which is exported. Under
 * another overlay, or as the VM's own file again, it may have been written to.
 * @throws AgentError `NotTracked`
 */
async function depthSince(
  context: ExportsContext,
  snapshotId: string,
  { at, layers }: ImagePoint,
  of: NonNullable<ImagePoint['of']>,
  signal: AbortSignal,
): Promise<MapPlan<Layer>> {
  const { source, overlay } = await findFrozen(context, of.state, of.disk, snapshotId, signal);
  const path = source.path === null ? null : await realpath(source.path).catch(() => null);
  const above = layers.findIndex((layer) => layer.path === path);
  if (above === 0 && at.kind === 'snapshot' && at.snapshotId === snapshotId) return depthPlan(0);
  const over = layers[above - 1];
  const own = overlay === null ? undefined : await fileAt(overlay);
  if (over !== undefined && own !== undefined && isSameFile(over.file, own)) return depthPlan(above);
  const fact =
    above < 0
      ? 'is not below the state that is exported'
      : "is not below the snapshot's own overlay there, and may have been written to";
  throw new AgentError(
    'NotTracked',
    `What the snapshot "${snapshotId}" froze (${source.path ?? source.type}) ${fact}, so what has changed since cannot be told. Take a full backup, or set ifUntracked to "full".`,
    { vmId: of.state.domain.uuid, disk: of.disk.target },
  );
}
