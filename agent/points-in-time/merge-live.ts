import { setTimeout as sleep } from 'node:timers/promises';
import { abandonCommit, beginCommit, commitJob, pivot } from '../domains/block-commit.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { BlockJobStatus } from '../libvirt/index.js';
import type { PointsContext } from './context.js';
import { type DiskMerge, planDiskMerge } from './merge-plan.js';
import type { StopReason } from './running-jobs.js';
import type { SnapshotDiskRecord, SnapshotRecord } from './snapshot-record.js';

const LOOK_MS = 200;
/** Milliseconds for a question to libvirt; an answer to a hung QEMU's events never comes. */
const ASK_MS = 60_000;
/** Milliseconds after a job's end in which libvirt takes the layer out of the chain. */
const SETTLE_MS = 60_000;

/** A merge was cut short: `cancelled` in libvirt too, or only let go of because the daemon ends. */
export class MergeStopped extends Error {
  override readonly name = 'MergeStopped';
}

export interface MergeHooks {
  /** Its reason is a `StopReason`, or that of a verb. */
  signal: AbortSignal;
  /** How far this disk's merge is, from 0 to 1. */
  progress(part: number): void;
}

/**
 * Merges one disk of a running VM, with `virDomainBlockCommit`: bitmaps go down with the data. Goes on with a merge that
 * is under way already. Returns when the layer is out of the chain; its file is still there.
 * @throws MergeStopped; AgentError `MergeFailed` also where the VM stops meanwhile
 */
export async function mergeLive(
  context: PointsContext,
  vm: SnapshotRecord['vm'],
  disk: SnapshotDiskRecord,
  hooks: MergeHooks,
): Promise<void> {
  const { libvirt, points } = context;
  let begun = false;
  /** When there was no job any more: the chain follows a little later, when libvirt has dealt with the bitmaps. */
  let gone: number | undefined;
  let ended: number | undefined;
  const subscription = libvirt.subscribe('blockJob', ({ domain, disk: target, status }) => {
    if (domain.uuid === vm.uuid && target === disk.target) ended = status;
  });
  try {
    for (;;) {
      const state = await readDomain(libvirt, vm.uuid, AbortSignal.timeout(ASK_MS));
      if (!state.running) throw stopped(state);
      const plan = await planDiskMerge(state, disk, points.allowedRoots);
      if (plan === null) return;
      const job = await commitJob(libvirt, state.domain, disk.target, AbortSignal.timeout(ASK_MS));
      if (hooks.signal.aborted) await stop(context, state, disk.target, job !== null, hooks.signal);
      if (job !== null) {
        await refuseForeignJob(state, plan, job.commits);
        begun = true;
        hooks.progress(job.end === 0 ? 0 : job.current / job.end);
        if (isReady(state, plan))
          await pivot(libvirt, state.domain, disk.target, AbortSignal.timeout(ASK_MS));
        else await sleep(LOOK_MS);
      } else if (begun) {
        gone ??= Date.now();
        const gaveUp = ended === BlockJobStatus.failed || ended === BlockJobStatus.canceled;
        if (gaveUp || Date.now() - gone > SETTLE_MS) throw failed(state, plan);
        await sleep(LOOK_MS);
      } else {
        const layers = { top: plan.top.path, base: plan.base.path, active: plan.active };
        const request = { ...layers, bytesPerSecond: points.mergeRate };
        begun = await beginCommit(libvirt, state.domain, disk.target, request, AbortSignal.timeout(ASK_MS));
        if (!begun) await sleep(LOOK_MS);
      }
    }
  } finally {
    subscription.close();
  }
}

/** The merge of an active layer waits to be told; QEMU says when it may. */
function isReady({ config }: DomainState, { target, active }: DiskMerge): boolean {
  return active && (config.disks.find((one) => one.target === target)?.mirror?.ready ?? false);
}

/** After a restart a job may be there that is not ours. The base of an active merge stands in the configuration. */
async function refuseForeignJob(
  { domain, config }: DomainState,
  { target, active, base }: DiskMerge,
  commits: boolean,
): Promise<void> {
  const mirror = config.disks.find((one) => one.target === target)?.mirror?.path ?? null;
  const into = mirror === null ? undefined : await fileAt(mirror);
  if (commits && (!active || (into !== undefined && isSameFile(into, base.file)))) return;
  throw new AgentError(
    'BackupBusy',
    `Another block job runs on ${target} of ${domain.name} (\`virsh blockjob ${domain.name} ${target}\`); try again ` +
      'when it has ended.',
    { vmId: domain.uuid, disk: target },
  );
}

async function stop(
  { libvirt }: PointsContext,
  { domain }: DomainState,
  target: string,
  runs: boolean,
  signal: AbortSignal,
): Promise<never> {
  const reason = signal.reason as StopReason;
  if (runs && reason !== 'daemon ends')
    await abandonCommit(libvirt, domain, target, AbortSignal.timeout(ASK_MS));
  throw new MergeStopped(`the merge on ${target} of ${domain.name} was cut short`);
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
