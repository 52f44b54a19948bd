import { setTimeout as sleep } from 'node:timers/promises';
import { thawGuest } from '../domains/freeze.js';
import { findDomain, readDomain } from '../domains/lookup.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import type { Domain } from '../libvirt/index.js';
import { layersToMerge, refuseReader } from './begin-merge.js';
import { withinVm } from './checkpoint-record.js';
import type { PointsContext } from './context.js';
import { mergeAway } from './merge.js';
import { removeOverlay } from './overlay.js';
import { dropCheckpointOf } from './snapshot-checkpoint.js';
import type { SnapshotRecord } from './snapshot-record.js';

/** Milliseconds that libvirt may still take to do what it was asked for before its answer was given up. */
const LATE_MS = 10_000;

/**
 * Takes a snapshot back that was not completed: one that libvirt has made all the same is merged away, overlays that
 * never came into use are removed. To be called under the VM's lock.
 * @param late whether libvirt may still be at work on it
 */
export async function rollBackSnapshot(
  context: PointsContext,
  record: SnapshotRecord,
  { late, signal }: { late: boolean; signal: AbortSignal },
): Promise<void> {
  const { libvirt, snapshots, log } = context;
  const { snapshotId, vm } = record;
  const domain = await findDomain(libvirt, vm.uuid, signal).catch((error: unknown) => {
    if (error instanceof AgentError && error.name === 'NoSuchVM') return null;
    throw error;
  });
  if (domain !== null && (await isMade(context, domain, record, late, signal))) {
    // An export that began before may read what it froze: the image of a VM that was off.
    const state = await readDomain(libvirt, vm.uuid, signal);
    refuseReader(context, record, (await layersToMerge(context, state, record.disks, signal)).files);
    // Without a deadline of its own: cut short and begun again, a merge of much data would never end.
    const hooks = { signal: new AbortController().signal, progress: () => {}, pin: () => {} };
    await mergeAway(context, record, hooks);
  }
  for (const { active } of record.disks) await removeOverlay(context, active, null, signal);
  await dropCheckpointOf(context, record, signal);
  await snapshots.remove(withinVm(vm.uuid, snapshotId));
  log.info({ snapshotId, vmId: vm.uuid }, 'took back a snapshot that was half-way');
}

/** Takes back one that the daemon's end interrupted: the guest may be frozen since. */
export async function rollBackInterrupted(
  context: PointsContext,
  record: SnapshotRecord,
  signal: AbortSignal,
): Promise<void> {
  if (record.quiesce !== 'no') {
    const domain = await findDomain(context.libvirt, record.vm.uuid, signal).catch(() => null);
    if (domain !== null && domain.id !== -1) await thawGuest(context, domain);
  }
  await rollBackSnapshot(context, record, { late: true, signal });
}

/** Whether libvirt has made it. An overlay that is there although libvirt knows of no snapshot may be one in the making. */
async function isMade(
  { libvirt }: PointsContext,
  domain: Domain,
  { snapshotId }: SnapshotRecord,
  late: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  const limit = Date.now() + (late ? LATE_MS : 0);
  for (;;) {
    if ((await readSnapshot(libvirt, domain, snapshotId, signal)) !== undefined) return true;
    if (Date.now() >= limit) return false;
    await sleep(500, undefined, { signal });
  }
}
