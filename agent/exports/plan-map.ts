import { realpath } from 'node:fs/promises';
import type { PrepareBackupDiskParams } from '../api/generated.js';
import { bitmapPlan, depthPlan, fullPlan, type MapPlan } from '../changed-blocks/plan.js';
import { frozenSource } from '../domains/snapshots.js';
import { AgentError, type Cause } from '../errors.js';
import type { Layer } from '../images/chain.js';
import { trustCheckpoint } from '../points-in-time/checkpoint-trust.js';
import { knownFiles } from '../points-in-time/disk-now.js';
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
  { since, ifUntracked }: PrepareBackupDiskParams,
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
  { layers, of }: ImagePoint,
  signal: AbortSignal,
): Promise<MapPlan<Layer>> {
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
  const frozen = await frozenSource(context.libvirt, of.state, of.disk, since.snapshot, signal);
  const path = frozen.path === null ? null : await realpath(frozen.path).catch(() => null);
  const above = layers.findIndex((layer) => layer.path === path);
  if (above >= 0) return depthPlan(above);
  throw new AgentError(
    'NotTracked',
    `What the snapshot "${since.snapshot}" froze (${frozen.path ?? frozen.type}) is not below the state that is exported, so what was written above it cannot be told. Take a full backup, or set ifUntracked to "full".`,
    { vmId: of.state.domain.uuid, disk: of.disk.target },
  );
}
