/** Snapshots and their merges. */
import type { Scenario } from './scenario.js';

export const snapshots: Scenario[] = [
  {
    name: 'snapshot',
    vm: 'live',
    qemuNbd: true,
    async play(stage) {
      const { live } = stage.rig;
      const vmId = live.name;
      const [snapshotId, checkpoint, exportId] = [stage.id('snap'), stage.id('with'), stage.id('frozen')];
      const then = live.content('vda');
      await stage.call('createSnapshot', { vmId, snapshotId, checkpoint, quiesce: 'no' });
      await live.write('vda', 65536, 65536);
      const made = await stage.call('prepareBackupDisk', { exportId, vmId, disk: 'vda', snapshotId });
      await stage.verify(made, then);
      await stage.call('teardownBackupDisk', { exportId });
      await stage.call('confirmCheckpoint', { vmId, checkpoint, outcome: 'success' });
      await stage.merged(vmId, snapshotId);
      await stage.call('deleteCheckpoint', { vmId, checkpoint });
    },
  },
  {
    // What changed between two snapshots; then the lower one is merged first. The checkpoint is not confirmed.
    name: 'middleLayer',
    vm: 'live',
    qemuNbd: true,
    async play(stage) {
      const { live } = stage.rig;
      const vmId = live.name;
      const disks: [string] = ['vdb'];
      const [lower, upper, exportId] = [stage.id('lower'), stage.id('upper'), stage.id('between')];
      const then = live.content('vdb');
      await stage.call('createSnapshot', { vmId, snapshotId: lower, disks, quiesce: 'no' });
      await live.write('vdb', 1 << 20, 65536);
      const checkpoint = stage.id('unconfirmed');
      const now = live.content('vdb');
      await stage.call('createSnapshot', { vmId, snapshotId: upper, disks, checkpoint, quiesce: 'no' });
      await live.write('vdb', 2 << 20, 65536);
      const made = await stage.call('prepareBackupDisk', {
        ...{ exportId, vmId, disk: 'vdb', snapshotId: upper },
        since: { snapshot: lower },
      });
      await stage.verify(made, now, then);
      await stage.call('teardownBackupDisk', { exportId });
      await stage.call('confirmCheckpoint', { vmId, checkpoint, outcome: 'failed' });
      await stage.merged(vmId, lower);
      await stage.merged(vmId, upper);
    },
  },
  {
    name: 'cancelMerge',
    vm: 'live',
    async play(stage) {
      const { live } = stage.rig;
      const vmId = live.name;
      const snapshotId = stage.id('cancelled');
      await stage.call('createSnapshot', { vmId, snapshotId, quiesce: 'no' });
      await live.write('vda', 2 << 20, 1 << 20);
      const { jobId } = await stage.call('deleteSnapshot', { vmId, snapshotId });
      await stage.call('cancelJob', { jobId });
      await stage.merged(vmId, snapshotId);
    },
  },
  {
    // libvirt merges, in a QEMU of its own.
    name: 'snapshotOff',
    qemuNbd: true,
    async play(stage) {
      const { off } = stage.rig;
      const vmId = off.name;
      const [snapshotId, exportId] = [stage.id('off'), stage.id('offFrozen')];
      const then = off.content('vda');
      await stage.call('createSnapshot', { vmId, snapshotId, quiesce: 'no' });
      await off.write('vda', 3 << 20, 65536);
      const made = await stage.call('prepareBackupDisk', {
        ...{ exportId, vmId, disk: 'vda' },
        since: { snapshot: snapshotId },
      });
      await stage.verify(made, off.content('vda'), then);
      await stage.call('teardownBackupDisk', { exportId });
      await stage.merged(vmId, snapshotId);
    },
  },
];
