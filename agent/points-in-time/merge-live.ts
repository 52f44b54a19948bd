import { realpath } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { abandonCommit, beginCommit, type CommitJob, commitJob, pivot } from '../domains/block-commit.js';
import type { DomainDisk } from '../domains/config.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { BlockJobStatus } from '../libvirt/index.js';
import type { PointsContext } from './context.js';
import { type DiskMerge, isMerge, planDiskMerge, refuseAstray } from './merge-plan.js';
import type { StopReason } from './running-jobs.js';
import type { SnapshotDiskRecord, SnapshotRecord } from './snapshot-record.js';

const LOOK_MS = 200;
/** Milliseconds for a question to libvirt; an answer to a hung QEMU's events never comes. */
const ASK_MS = 60_000;
/** Milliseconds after a job's end in which libvirt takes the layer out of the chain, or can begin another. */
const SETTLE_MS = 20_000;

/** A merge was cut short: `cancelled` in libvirt too, or only let go of because the daemon ends. */
export class MergeStopped extends Error {
  override readonly name = 'MergeStopped';
}

export interface MergeHooks {
  /** Its reason is a `StopReason`, or that of a verb. */
  signal: AbortSignal;
  /** How far this disk's merge is, from 0 to 1. */
  progress(part: number): void;
  /** Writes down what is about to be done to the disk, or is done. @returns the disk's record from then on */
  note(change: MergeNote): Promise<SnapshotDiskRecord>;
}

/** What a merge writes down of a disk before its deeds, and after the last. */
export type MergeNote = Pick<SnapshotDiskRecord, 'goingOver' | 'above' | 'byLibvirt' | 'merged'> & {
  frozen?: string;
};

/**
 * Merges one disk of a running VM, with `virDomainBlockCommit`: bitmaps go down with the data. Goes on with a merge that
 * is under way already. Returns when the layer is out of the chain, and that is on record; its file is still there.
 * @throws MergeStopped; AgentError `MergeFailed` also where the VM stops meanwhile
 */
export async function mergeLive(
  context: PointsContext,
  vm: SnapshotRecord['vm'],
  given: SnapshotDiskRecord,
  hooks: MergeHooks,
): Promise<void> {
  const { libvirt, points } = context;
  let disk = given;
  const note = async (change: MergeNote) => {
    disk = await hooks.note(change);
  };
  let begun = false;
  /** Since when there is no job, and none could be begun: libvirt may not have dealt with the end of the last one yet. */
  let idle: number | undefined;
  let ended: number | undefined;
  const subscription = libvirt.subscribe('blockJob', ({ domain, disk: target, status }) => {
    if (domain.uuid === vm.uuid && target === disk.target) ended = status;
  });
  try {
    for (;;) {
      const state = await readDomain(libvirt, vm.uuid, AbortSignal.timeout(ASK_MS));
      if (!state.running) throw stopped(state);
      const plan = await planDiskMerge(state, disk, points.allowedRoots);
      refuseAstray(state.domain, disk, plan);
      if (plan === 'merged') await note({ merged: true });
      if (!isMerge(plan)) return;
      const job = await commitJob(libvirt, state.domain, disk.target, AbortSignal.timeout(ASK_MS));
      if (hooks.signal.aborted) {
        // Ended before a pivot, it leaves the VM on the overlay.
        if (job !== null && (await abandoned(context, state, disk.target, hooks.signal)))
          await note({ goingOver: false });
        throw new MergeStopped(`the merge on ${disk.target} of ${vm.name} was cut short`);
      }
      const mirror = mirrorOf(state, disk.target);
      if (job !== null) {
        await refuseForeignJob(state, plan, job, mirror);
        begun = true;
        idle = undefined;
        hooks.progress(job.end === 0 ? 0 : job.current / job.end);
        // libvirt that died while it began the job does not show the mirror any more, and pivots all the same.
        const ready = plan.active && (mirror?.ready ?? job.caughtUp);
        if (ready) {
          await note({ goingOver: true, frozen: await realpath(plan.base.path) });
          if (await pivot(libvirt, state.domain, disk.target, AbortSignal.timeout(ASK_MS))) continue;
        }
      } else if (begun || mirror !== null) {
        if (ended === BlockJobStatus.failed || ended === BlockJobStatus.canceled) throw failed(state, plan);
        idle ??= Date.now();
        if (Date.now() - idle > SETTLE_MS) {
          if (mirror === null) throw failed(state, plan);
          if (plan.active) await note({ goingOver: true });
          throw lost(state, plan);
        }
      } else {
        const layers = { top: plan.top.path, base: plan.base.path, active: plan.active };
        const request = { ...layers, bytesPerSecond: points.mergeRate };
        if (!plan.active) await note({ above: plan.above, frozen: await realpath(plan.base.path) });
        begun = await beginCommit(libvirt, state.domain, disk.target, request, AbortSignal.timeout(ASK_MS));
        if (begun) {
          await note({ goingOver: false }); // it was on the overlay, or there would be no such job
          continue;
        }
        idle ??= Date.now();
        if (Date.now() - idle > SETTLE_MS) throw failed(state, plan);
      }
      await sleep(LOOK_MS);
    }
  } finally {
    subscription.close();
  }
}

function mirrorOf({ config }: DomainState, target: string): DomainDisk['mirror'] {
  return config.disks.find((one) => one.target === target)?.mirror ?? null;
}

/** After a restart a job may be there that is not ours. The base of an active merge stands in the configuration. */
async function refuseForeignJob(
  { domain }: DomainState,
  { target, active, base }: DiskMerge,
  { commits }: CommitJob,
  mirror: DomainDisk['mirror'],
): Promise<void> {
  if (commits && (!active || mirror === null)) return;
  const into = mirror?.path == null ? undefined : await fileAt(mirror.path);
  if (commits && into !== undefined && isSameFile(into, base.file)) return;
  throw new AgentError(
    'BackupBusy',
    `Another block job runs on ${target} of ${domain.name} (\`virsh blockjob ${domain.name} ${target}\`); try again ` +
      'when it has ended.',
    { vmId: domain.uuid, disk: target },
  );
}

/** Ends the job, unless only the daemon ends. @returns whether it has ended so */
async function abandoned(
  { libvirt }: PointsContext,
  { domain }: DomainState,
  target: string,
  signal: AbortSignal,
): Promise<boolean> {
  if ((signal.reason as StopReason) === 'daemon ends') return false;
  return abandonCommit(libvirt, domain, target, AbortSignal.timeout(ASK_MS));
}

function stopped({ domain }: DomainState): AgentError {
  return new AgentError(
    'MergeFailed',
    `${domain.name} stopped in the middle of the merge; nothing is lost: call deleteSnapshot again to finish it.`,
    { vmId: domain.uuid, retryable: true },
  );
}

function failed({ domain }: DomainState, { target, top, base }: DiskMerge): AgentError {
  return new AgentError(
    'MergeFailed',
    `QEMU gave up merging ${top.path} into ${base.path} (its log, /var/log/libvirt/qemu/${domain.name}.log, may say ` +
      'why: a full or failing file system, or somebody has cancelled it); nothing is lost: call deleteSnapshot again.',
    { vmId: domain.uuid, disk: target, retryable: true },
  );
}

/**
 * libvirtd died between QEMU's end of the job and its own: it does not look at the job any more when it comes back, so the
 * mirror stays in the configuration and the overlay on top (libvirt, src/qemu/qemu_blockjob.c, qemuBlockJobRefreshJobs,
 * "dropping blockjob untracked by qemu"). Nothing but a restart of the VM clears that.
 */
function lost({ domain: { name, uuid } }: DomainState, { target, top, base }: DiskMerge): AgentError {
  return new AgentError(
    'MergeFailed',
    `libvirtd ended in the same moment as its merge on ${target} of ${name}, and has lost it. See which file QEMU ` +
      `writes to (\`virsh qemu-monitor-command ${name} --hmp info block\`): if it is ${base.path} and not ${top.path}, ` +
      `make that the disk's source (\`virsh edit ${name}\`). Then shut the VM down, start it and call deleteSnapshot again.`,
    { vmId: uuid, disk: target },
  );
}
