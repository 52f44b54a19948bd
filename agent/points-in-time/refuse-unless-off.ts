import { setTimeout as sleep } from 'node:timers/promises';
import { type ChainFile, chainFiles } from '../domains/block-commit.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { writersOf } from '../host/open-files.js';
import { MergeStopped } from './merge-live.js';
import type { DiskMerge } from './merge-plan.js';
import type { SnapshotDiskRecord } from './snapshot-record.js';

/** Milliseconds that a QEMU which libvirt has seen end has to close its files. */
const CLOSE_MS = 5000;

interface OffHooks {
  signal: AbortSignal;
  /** Writes down that the VM may have gone over to the base of that disk. */
  noteGoingOver(target: string): Promise<unknown>;
}

/**
 * libvirt calls a VM off that it has lost while its QEMU runs on: libvirtd that is killed between the end of a pivot and
 * its own last note of it leaves a status that it cannot read when it is back ("unknown mirror job type ''", libvirt 9.0;
 * src/qemu/qemu_blockjob.c clears the mirror's job, then saves the status, then removes the mirror). To merge the overlay
 * then, or once that QEMU has ended, might put old data over new.
 * @param disks as their records say
 * @throws AgentError `MergeFailed`; MergeStopped
 */
export async function refuseUnlessOff(
  state: DomainState,
  plans: readonly DiskMerge[],
  disks: readonly SnapshotDiskRecord[],
  hooks: OffHooks,
): Promise<void> {
  for (const plan of plans) await refuseWhileWritten(state, plan, hooks);
  for (const plan of plans) {
    if (disks.find(({ target }) => target === plan.target)?.goingOver) throw undecided(state, plan);
  }
}

async function refuseWhileWritten(state: DomainState, plan: DiskMerge, hooks: OffHooks): Promise<void> {
  const { name, uuid } = state.domain;
  const disk = state.config.disks.find(({ target }) => target === plan.target);
  const files = [
    plan.top,
    plan.base,
    ...(disk === undefined ? [] : await chainFiles({ ...disk, backing: [] })),
  ];
  const limit = Date.now() + CLOSE_MS;
  for (;;) {
    const written = await firstWritten(files);
    if (written === undefined) return;
    if (Date.now() > limit) {
      if (plan.active) await hooks.noteGoingOver(plan.target);
      throw new AgentError(
        'MergeFailed',
        `libvirt says that ${name} is off, but process ${written.pid} writes to ${written.path}: if that is its QEMU, ` +
          `libvirtd has lost it in a restart. Shut the VM down from inside, end that process (\`kill ${written.pid}\`), ` +
          'and call deleteSnapshot again before you start it.',
        { vmId: uuid, disk: plan.target },
      );
    }
    if (hooks.signal.aborted) throw new MergeStopped('stopped before the merge began');
    await sleep(200);
  }
}

async function firstWritten(files: readonly ChainFile[]): Promise<{ path: string; pid: number } | undefined> {
  for (const { path, file } of files) {
    const [pid] = await writersOf(file);
    if (pid !== undefined) return { path, pid };
  }
  return undefined;
}

function undecided({ domain: { name, uuid } }: DomainState, { target, top, base }: DiskMerge): AgentError {
  return new AgentError(
    'MergeFailed',
    `libvirt cannot say which file ${name} wrote to last on ${target}, ${top.path} or ${base.path}: the VM or libvirtd ` +
      `ended when it went over. If it has run on after that, it was ${base.path}: make that the disk's source ` +
      `(\`virsh edit ${name}\`). If not, start it as it is. Then call deleteSnapshot again.`,
    { vmId: uuid, disk: target },
  );
}
