import { dropCheckpoint } from './checkpoint-life.js';
import { withinVm } from './checkpoint-record.js';
import { exclusively, type PointsContext, pointsLock } from './context.js';

/**
 * Goes on deleting checkpoints of which the deletion was begun and cut short, by a crash or a fault of libvirt: nobody may
 * ever repeat the call. Returns at once; whoever is at work on a VM holds its lock.
 */
export function finishDeletions(context: PointsContext): void {
  const { checkpoints, libvirt, locks, log } = context;
  if (!libvirt.status.connected) return;
  for (const { state, checkpoint, vm } of checkpoints.allLive()) {
    if (state !== 'deleting' || locks.holder(pointsLock(vm.uuid)) !== undefined) continue;
    exclusively(context, vm, `the deletion of the checkpoint "${checkpoint}"`, async () => {
      const record = checkpoints.find(withinVm(vm.uuid, checkpoint));
      if (record?.state !== 'deleting') return;
      await dropCheckpoint(context, record, AbortSignal.timeout(context.points.stateMs.halfWay));
      log.warn({ checkpoint, vmId: vm.uuid }, 'deleted a checkpoint of which the deletion was half-way');
    }).catch((err: unknown) =>
      log.error({ checkpoint, vmId: vm.uuid, err }, 'a checkpoint could not be deleted yet'),
    );
  }
}
