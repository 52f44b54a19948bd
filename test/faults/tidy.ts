/** What an operator does after a fault: starts what has died, ends what is left. */
import { basename } from 'node:path';
import { askGateway } from '../../agent/gateway/status.js';
import { poll } from '../host/poll.js';
import { readRecords } from './host-facts.js';
import { virsh } from './libvirt-facts.js';
import type { Stage } from './stage.js';
import type { CampaignVm } from './vms.js';

const BACK_MS = 60_000;
/** The remedy of a merge that has ended and that libvirt, killed in that moment, does not know of. */
const START_ANEW = /Shut \S+ down, start it and call deleteSnapshot again/;

/** libvirt and the gateway answer, and the VMs that should run do; before they are started, what they held has to be let go. */
export async function revive({ rig }: Stage): Promise<void> {
  await poll('libvirtd to be back', BACK_MS, () =>
    virsh(rig.host, 'uri').then(
      () => true,
      () => false,
    ),
  );
  await poll('the gateway to be back', BACK_MS, () =>
    askGateway(rig.host.path('/run/vmdiskd'), { timeoutMs: 1000 }).then(
      () => true,
      () => false,
    ),
  );
  for (const vm of rig.vms) {
    if (!vm.runs || vm.alive()) continue;
    await poll(`libvirt to notice that ${vm.name} is gone`, BACK_MS, async () =>
      (await virsh(rig.host, 'domstate', vm.name)).startsWith('shut off'),
    );
    await rig.markDead(vm);
    await rig.settle();
    await vm.start();
  }
}

/**
 * Ends all exports, backups, snapshots and checkpoints, but for the checkpoints that are to be kept.
 * @returns whether a VM had to be started anew for it, as the daemon said
 */
export async function tidy(stage: Stage, kept: readonly string[]): Promise<{ restarted: boolean }> {
  let restarted = false;
  noteCreated(stage);
  const { exports } = await stage.call('listExports', {});
  for (const { exportId, kind } of exports) {
    const verb = kind === 'mount' ? 'unmountDisk' : 'teardownBackupDisk';
    await stage.call(verb, { exportId, outcome: 'failed', force: true });
  }
  stage.rig.removeCreated();
  await stage.rig.off.makeSure();
  const { backups } = await stage.call('listBackups', {});
  for (const { backupId } of backups) {
    await stage.call('stopBackup', { backupId, outcome: 'failed', force: true });
  }
  for (const vm of stage.rig.vms) {
    const { name: vmId, disks } = vm;
    if (disks.length === 0) continue;
    const { snapshots } = await stage.call('listSnapshots', { vmId });
    for (const { snapshotId } of snapshots) {
      await stage.merged(vmId, snapshotId).catch(async (error: Error) => {
        if (!START_ANEW.test(error.message)) throw error;
        restarted = true;
        await startAnew(stage, vm);
        await stage.merged(vmId, snapshotId);
      });
    }
    const { checkpoints } = await stage.call('listCheckpoints', { vmId });
    for (const { checkpoint } of checkpoints) {
      if (!kept.includes(checkpoint)) await stage.call('deleteCheckpoint', { vmId, checkpoint });
    }
  }
  return { restarted };
}

/** An image that an export was made with stays when that ends, also where its caller was never told of it. */
function noteCreated({ rig }: Stage): void {
  for (const { state, newImage, image } of readRecords(rig.host).records.exports) {
    const stays = newImage !== null && (state === 'ready' || state === 'failed' || state === 'closing');
    if (stays) rig.created.add(basename(image.path));
  }
}

async function startAnew({ rig }: Stage, vm: CampaignVm): Promise<void> {
  await virsh(rig.host, 'destroy', vm.name);
  await rig.markDead(vm);
  await vm.start();
}
