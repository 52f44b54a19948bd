/** Backups of a VM that runs: QEMU serves. */
import { virsh } from '../libvirt-facts.js';
import type { Scenario } from './scenario.js';

const whole = (disk: string) => ({ disk, ifUntracked: 'fail' as const });

export const backups: Scenario[] = [
  {
    name: 'live',
    vm: 'live',
    async play(stage) {
      const { live } = stage.rig;
      const of = { vmId: live.name, disk: 'vda' };
      const [kept, dropped] = [stage.id('kept'), stage.id('dropped')];
      const first = stage.id('live1');
      const then = live.content('vda');
      const full = await stage.call('prepareBackupDisk', { ...of, exportId: first, checkpoint: kept });
      await live.write('vda', 3 << 20, 131072);
      await stage.verify(full, then);
      await stage.call('teardownBackupDisk', { exportId: first, outcome: 'success' });
      const second = stage.id('live2');
      const since = { checkpoint: kept };
      const now = live.content('vda');
      const made = await stage.call('prepareBackupDisk', {
        ...of,
        exportId: second,
        since,
        checkpoint: dropped,
      });
      await stage.verify(made, now, then);
      await stage.call('teardownBackupDisk', { exportId: second, outcome: 'failed' });
      await stage.call('deleteCheckpoint', { vmId: live.name, checkpoint: kept });
    },
  },
  {
    name: 'startBackup',
    vm: 'live',
    async play(stage) {
      const { live } = stage.rig;
      const [backupId, checkpoint] = [stage.id('backup'), stage.id('point')];
      const vmId = live.name;
      const then = { vda: live.content('vda'), vdb: live.content('vdb') };
      await stage.call('startBackup', {
        backupId,
        vmId,
        disks: [whole('vda'), whole('vdb')],
        checkpoint,
        quiesce: 'no',
      });
      await live.write('vdb', 0, 262144);
      for (const disk of ['vda', 'vdb'] as const) {
        const made = await stage.call('prepareBackupDisk', {
          exportId: stage.id(disk),
          vmId,
          disk,
          backupId,
        });
        await stage.verify(made, then[disk]);
      }
      for (const disk of ['vda', 'vdb']) await stage.call('teardownBackupDisk', { exportId: stage.id(disk) });
      await stage.call('stopBackup', { backupId, outcome: 'success' });
      await stage.call('deleteCheckpoint', { vmId, checkpoint });
    },
  },
  {
    // Ended by force, with an export that is still there.
    name: 'stopBackupByForce',
    vm: 'live',
    async play(stage) {
      const { live } = stage.rig;
      const [backupId, checkpoint] = [stage.id('forced'), stage.id('forcedPoint')];
      const vmId = live.name;
      await stage.call('startBackup', {
        backupId,
        vmId,
        disks: [whole('vdb')],
        checkpoint,
        quiesce: 'no',
      });
      const made = await stage.call('prepareBackupDisk', {
        exportId: stage.id('vdb'),
        vmId,
        disk: 'vdb',
        backupId,
      });
      await stage.verify(made, live.content('vdb'));
      await stage.call('stopBackup', { backupId, outcome: 'failed', force: true });
    },
  },
  {
    // libvirt loses what it knows of two checkpoints, and is told of them again.
    name: 'redefine',
    vm: 'live',
    async play(stage) {
      const { live, host } = stage.rig;
      const names = [stage.id('older'), stage.id('newer')];
      for (const checkpoint of names) {
        const exportId = stage.id(`for-${checkpoint}`);
        await stage.call('prepareBackupDisk', { exportId, vmId: live.name, disk: 'vdb', checkpoint });
        await stage.call('teardownBackupDisk', { exportId, outcome: 'success' });
      }
      await stage.settled();
      for (const name of names) {
        stage.rig.forgotten.add(`${live.name} ${name}`);
        await virsh(host, 'checkpoint-delete', '--metadata', live.name, name);
      }
      const { checkpoints } = await stage.call('redefineCheckpoints', { vmId: live.name });
      const failed = checkpoints.find(({ state }) => state === 'failed');
      if (failed !== undefined)
        throw new Error(`${failed.checkpoint} is not defined again: ${failed.reason}`);
      for (const checkpoint of names) await stage.call('deleteCheckpoint', { vmId: live.name, checkpoint });
    },
  },
];
