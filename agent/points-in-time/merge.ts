import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { libvirtFault } from '../domains/faults.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { refuseSaved } from '../domains/managed-save.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import {
  type Domain,
  isNoSnapshot,
  isOperationInvalid,
  isStateLockTimeout,
  JobOperation,
  JobStat,
  JobType,
  SnapshotDeleteFlag,
} from '../libvirt/index.js';
import type { PointsContext } from './context.js';
import { type MergeNote, MergeStopped, mergeLive } from './merge-live.js';
import { mergeOffline } from './merge-offline.js';
import { type DiskMerge, isMerge, mergedByLibvirt, planDiskMerge, refuseAstray } from './merge-plan.js';
import { removeOverlay } from './overlay.js';
import { refuseUnlessOff } from './refuse-unless-off.js';
import type { StopReason } from './running-jobs.js';
import { findSnapshot, type SnapshotDiskRecord, type SnapshotRecord } from './snapshot-record.js';

const ASK_MS = 60_000;
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
  /** Since when libvirt has been away without a step forward in between. */
  let away: number | undefined;
  const progress = (current: number, total: number) => {
    if (current > 0) away = undefined;
    hooks.progress(current, total);
  };
  for (;;) {
    try {
      await mergeDisks(context, record, { ...hooks, progress });
      return await forget(context, record);
    } catch (error) {
      away ??= Date.now();
      if (!isAway(error) || Date.now() - away > context.points.stateMs.libvirtAway) throw error;
      context.log.warn({ err: error, snapshotId: record.snapshotId }, 'libvirt went away during a merge');
      await untilBack(context, error, hooks.signal);
    }
  }
}

/** It is away, or back and still holds the VM's lock while it finds its QEMU again. */
function isAway(error: unknown): error is AgentError {
  return (
    error instanceof AgentError && (error.name === 'LibvirtUnavailable' || isStateLockTimeout(error.cause))
  );
}

async function untilBack(
  { libvirt, points }: PointsContext,
  error: AgentError,
  signal: AbortSignal,
): Promise<void> {
  try {
    await sleep(LOOK_MS, undefined, { signal });
    await libvirt.ready({ timeoutMs: points.stateMs.libvirtAway, signal });
  } catch {
    if (signal.aborted) throw new MergeStopped('stopped while libvirt was away');
    throw error;
  }
}

async function mergeDisks(
  context: PointsContext,
  record: SnapshotRecord,
  hooks: SnapshotMergeHooks,
): Promise<void> {
  const { libvirt, points } = context;
  const { vm, snapshotId } = record;
  await untilLibvirtIsDone(context, vm.uuid, hooks.signal);
  const state = await readDomain(libvirt, vm.uuid, AbortSignal.timeout(ASK_MS));
  const facts = await readSnapshot(libvirt, state.domain, snapshotId, AbortSignal.timeout(ASK_MS));
  const plans = [];
  for (const disk of mergedByLibvirt(latest(context, record).disks, facts)) {
    const plan = await planDiskMerge(state, disk, points.allowedRoots);
    refuseAstray(vm, disk, plan);
    if (plan === 'merged') await note(context, record, disk.target, { merged: true });
    if (isMerge(plan)) plans.push({ disk, plan });
  }
  const total = plans.reduce((sum, { plan }) => sum + plan.bytes, 0) || 1;
  if (!state.running) {
    hooks.progress(0, total);
    if (plans.length > 0)
      await mergeOff(
        context,
        state,
        record,
        plans.map(({ plan }) => plan),
        hooks,
      );
    return;
  }
  let before = 0;
  for (const { disk, plan } of plans) {
    await mergeLive(context, vm, disk, {
      signal: hooks.signal,
      progress: (part) => hooks.progress(before + Math.round(plan.bytes * part), total),
      note: (change) => note(context, record, disk.target, change),
    });
    before += plan.bytes;
    hooks.progress(before, total);
  }
}

/** Has libvirt merge the disks of a VM that is off. */
async function mergeOff(
  context: PointsContext,
  state: DomainState,
  record: SnapshotRecord,
  plans: readonly DiskMerge[],
  hooks: SnapshotMergeHooks,
): Promise<void> {
  const { vm, snapshotId } = record;
  const targets = plans.map(({ target }) => target);
  const noteAll = async (change: MergeNote) => {
    for (const target of targets) await note(context, record, target, change);
  };
  const doing = `delete the snapshot "${snapshotId}" of ${vm.name}`;
  await refuseSaved(context.libvirt, state.domain, 'MergeFailed', doing, AbortSignal.timeout(ASK_MS));
  await refuseUnlessOff(state, plans, latest(context, record).disks, {
    signal: hooks.signal,
    noteGoingOver: (target) => note(context, record, target, { goingOver: true }),
  });
  await noteAll({ byLibvirt: true });
  // From here to the pin nothing is waited for: whoever comes later is told that it is too late.
  if (hooks.signal.aborted) {
    await noteAll({ byLibvirt: false });
    throw new MergeStopped('stopped before the merge began');
  }
  hooks.pin(
    `libvirt merges the snapshot "${snapshotId}" of ${vm.name}, which is off, in one go that cannot be cut short; ` +
      'wait for the job to end.',
  );
  try {
    await Promise.race([mergeOffline(context, state, { snapshotId }, targets), daemonEnds(hooks.signal)]);
    await noteAll({ merged: true });
  } catch (error) {
    // What libvirt has answered no to it will not do later.
    if (error instanceof AgentError && error.name === 'MergeFailed') await noteAll({ byLibvirt: false });
    throw error;
  } finally {
    hooks.pin(null);
  }
}

/** The record as it was written last. */
function latest({ snapshots }: PointsContext, record: SnapshotRecord): SnapshotRecord {
  return findSnapshot(snapshots, record.vm.uuid, record.snapshotId) ?? record;
}

async function note(
  context: PointsContext,
  of: SnapshotRecord,
  target: string,
  change: MergeNote,
): Promise<SnapshotDiskRecord> {
  const record = latest(context, of);
  const disk = record.disks.find((one) => one.target === target);
  if (disk === undefined) throw new Error(`the record of ${of.snapshotId} has no disk ${target}`);
  const noted = { ...disk, ...change };
  if (!isDeepStrictEqual(noted, disk)) {
    await context.snapshots.save({
      ...record,
      disks: record.disks.map((one) => (one === disk ? noted : one)),
    });
  }
  return noted;
}

/** Rejects when the daemon ends: libvirt goes on with what it does, and the next start waits for it. */
function daemonEnds(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = () => {
      if ((signal.reason as StopReason) === 'daemon ends') reject(new MergeStopped('the daemon ends'));
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
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

/** After the merge: libvirt's metadata, what our other records say of the files, and the files that were merged away. */
async function forget(context: PointsContext, record: SnapshotRecord): Promise<void> {
  const { libvirt } = context;
  const { vm, snapshotId } = record;
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
  const merged = latest(context, record).disks.filter((disk) => disk.merged);
  for (const disk of merged) await followFile(context, vm.uuid, disk);
  for (const { active, activeFile } of merged) {
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
