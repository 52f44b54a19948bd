import { setTimeout as sleep } from 'node:timers/promises';
import { libvirtFault } from '../domains/faults.js';
import { readDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import {
  type Domain,
  isNoSnapshot,
  isOperationInvalid,
  JobOperation,
  JobStat,
  JobType,
  SnapshotDeleteFlag,
} from '../libvirt/index.js';
import type { PointsContext } from './context.js';
import { MergeStopped, mergeLive } from './merge-live.js';
import { mergeOffline } from './merge-offline.js';
import { planDiskMerge } from './merge-plan.js';
import { removeOverlay } from './overlay.js';
import type { StopReason } from './running-jobs.js';
import type { SnapshotDiskRecord, SnapshotRecord } from './snapshot-record.js';

const ASK_MS = 60_000;
/** Milliseconds that libvirt may be away in the middle of a merge, which goes on in QEMU meanwhile. */
const AWAY_MS = 600_000;
const LOOK_MS = 500;

export interface SnapshotMergeHooks {
  signal: AbortSignal;
  progress(current: number, total: number): void;
  /** See `JobHandle`. */
  pin(sentence: string | null): void;
}

/**
 * Makes a snapshot undone: on each disk, one after another, its overlay goes into the layer below; then what libvirt
 * knows of the snapshot is dropped, and the files that were merged away are removed. Every step can be repeated, so whatever cut the
 * last run short, this one goes on from what it finds: a job under way, a disk that is done, a VM that is off by now.
 * To be called under the VM's lock.
 * @throws MergeStopped when the signal fired; AgentError `MergeFailed`, `BackupBusy`, `LibvirtUnavailable`
 */
export async function mergeAway(
  context: PointsContext,
  record: SnapshotRecord,
  hooks: SnapshotMergeHooks,
): Promise<void> {
  for (;;) {
    try {
      await mergeDisks(context, record, hooks);
      return await forget(context, record);
    } catch (error) {
      if (!(error instanceof AgentError) || error.name !== 'LibvirtUnavailable') throw error;
      context.log.warn({ err: error, snapshotId: record.snapshotId }, 'libvirt went away during a merge');
      await untilBack(context, error, hooks.signal);
    }
  }
}

async function untilBack({ libvirt }: PointsContext, error: AgentError, signal: AbortSignal): Promise<void> {
  try {
    await sleep(LOOK_MS, undefined, { signal });
    await libvirt.ready({ timeoutMs: AWAY_MS, signal });
  } catch {
    if (signal.aborted) throw new MergeStopped('stopped while libvirt was away');
    throw error;
  }
}

async function mergeDisks(
  context: PointsContext,
  { vm, disks, snapshotId }: SnapshotRecord,
  hooks: SnapshotMergeHooks,
): Promise<void> {
  const { libvirt, points } = context;
  await untilLibvirtIsDone(context, vm.uuid, hooks.signal);
  const state = await readDomain(libvirt, vm.uuid, AbortSignal.timeout(ASK_MS));
  const plans = [];
  for (const disk of disks) {
    const plan = await planDiskMerge(state, disk, points.allowedRoots);
    if (plan !== null) plans.push({ disk, plan });
  }
  const total = plans.reduce((sum, { plan }) => sum + plan.bytes, 0) || 1;
  if (!state.running) {
    if (plans.length === 0) return;
    hooks.progress(0, total);
    if (hooks.signal.aborted) throw new MergeStopped('stopped before the merge began');
    hooks.pin(
      `libvirt merges the snapshot "${snapshotId}" of ${vm.name}, which is off, in one go that cannot be cut short; ` +
        'wait for the job to end.',
    );
    try {
      const targets = plans.map(({ plan }) => plan.target);
      await Promise.race([mergeOffline(context, state, { snapshotId }, targets), daemonEnds(hooks.signal)]);
    } finally {
      hooks.pin(null);
    }
    return;
  }
  let before = 0;
  for (const { disk, plan } of plans) {
    await mergeLive(context, vm, disk, {
      signal: hooks.signal,
      progress: (part) => hooks.progress(before + Math.round(plan.bytes * part), total),
    });
    before += plan.bytes;
    hooks.progress(before, total);
  }
}

/** Rejects when the daemon ends: libvirt goes on with what it does, and the next start waits for it. */
function daemonEnds(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = () => {
      if ((signal.reason as StopReason) === 'daemon ends') reject(new MergeStopped('the daemon ends'));
    };
    signal.addEventListener('abort', end, { once: true });
  });
}

/** A merge by libvirt itself, which a former run of the daemon began, holds the VM to its end. */
async function untilLibvirtIsDone(
  { libvirt }: PointsContext,
  uuid: string,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { domain, running } = await readDomain(libvirt, uuid, AbortSignal.timeout(ASK_MS));
    if (!running || !(await libvirtDeletes(libvirt, domain))) return;
    if (signal.aborted) throw new MergeStopped('stopped while libvirt merges');
    await sleep(LOOK_MS);
  }
}

async function libvirtDeletes(libvirt: PointsContext['libvirt'], domain: Domain): Promise<boolean> {
  try {
    if ((await libvirt.jobs.getInfo(domain, { timeoutMs: ASK_MS })).type === JobType.none) return false;
    const { params } = await libvirt.jobs.getStats(domain, 0, { timeoutMs: ASK_MS });
    return params[JobStat.operation] === JobOperation.snapshotDelete;
  } catch (cause) {
    if (isOperationInvalid(cause)) return false;
    throw libvirtFault(cause, 'MergeFailed', `ask for the job of ${domain.name}`, { vmId: domain.uuid });
  }
}

/** After the merge: libvirt's metadata, what our other records say of the files, and the files. */
async function forget(context: PointsContext, record: SnapshotRecord): Promise<void> {
  const { libvirt } = context;
  const { vm, snapshotId, disks } = record;
  const { domain } = await readDomain(libvirt, vm.uuid, AbortSignal.timeout(ASK_MS));
  try {
    const snapshot = await libvirt.snapshots.lookupByName(domain, snapshotId, { timeoutMs: ASK_MS });
    await libvirt.snapshots.delete(snapshot, SnapshotDeleteFlag.metadataOnly, { timeoutMs: ASK_MS });
  } catch (cause) {
    if (!isNoSnapshot(cause)) {
      throw libvirtFault(cause, 'MergeFailed', `forget the snapshot "${snapshotId}" of ${domain.name}`, {
        vmId: vm.uuid,
      });
    }
  }
  for (const disk of disks) await followFile(context, vm.uuid, disk);
  for (const { active, activeFile } of disks) {
    await removeOverlay(context, active, activeFile, AbortSignal.timeout(ASK_MS));
  }
}

/** What a later snapshot froze lies in the lower file from now on. */
async function followFile(
  { snapshots }: PointsContext,
  uuid: string,
  { target, frozen, frozenFormat, active }: SnapshotDiskRecord,
): Promise<void> {
  for (const other of snapshots.allLive()) {
    if (other.vm.uuid !== uuid) continue;
    const has = other.disks.some((disk) => disk.target === target && disk.frozen === active);
    if (!has) continue;
    const disks = other.disks.map((disk) =>
      disk.target === target && disk.frozen === active ? { ...disk, frozen, frozenFormat } : disk,
    );
    await snapshots.save({ ...other, disks });
  }
}
