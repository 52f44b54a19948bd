/** What is done to a guest that writes meanwhile. */
import { createHash } from 'node:crypto';
import { readExport } from '../disk-content.js';
import type { Scenario } from './scenario.js';

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

export const guests: Scenario[] = [
  {
    // A drive on virtio, which the guest has to let go of, and a backup that stays what it was.
    name: 'guestBackup',
    async play(stage) {
      const { guest, chain, host } = stage.rig;
      const [backup, drive, checkpoint] = [stage.id('writing'), stage.id('virtio'), stage.id('point')];
      const vmId = guest.name;
      const before = await guest.beat();
      const made = await stage.call('prepareBackupDisk', { exportId: backup, vmId, disk: 'vda', checkpoint });
      const now = await readExport(host, made);
      const moment = guest.momentOf(now);
      if (moment < before) throw new Error(`the backup lacks the writes from ${moment} to ${before}`);
      const image = await stage.call('prepareBackupDisk', {
        exportId: drive,
        path: chain.top,
        format: 'qcow2',
      });
      const { guestPath } = await stage.call('hotplugDisk', { vmId, drive: image.drive, bus: 'virtio' });
      if ((await guest.read(guestPath)) !== sha256(chain.now))
        throw new Error('the guest reads another image');
      await stage.call('hotunplugDisk', { vmId, drive: image.drive });
      await stage.call('teardownBackupDisk', { exportId: drive });
      await stage.verify(made, now);
      await stage.call('teardownBackupDisk', { exportId: backup, outcome: 'failed' });
      await guest.writes();
    },
  },
  {
    name: 'guestSnapshot',
    async play(stage) {
      const { guest, host } = stage.rig;
      const [snapshotId, exportId] = [stage.id('writing'), stage.id('writingFrozen')];
      const vmId = guest.name;
      const before = await guest.beat();
      await stage.call('createSnapshot', { vmId, snapshotId, quiesce: 'no' });
      const made = await stage.call('prepareBackupDisk', { exportId, vmId, disk: 'vda', snapshotId });
      const moment = guest.momentOf(await readExport(host, made));
      if (moment < before) throw new Error(`the snapshot lacks the writes from ${moment} to ${before}`);
      await stage.call('teardownBackupDisk', { exportId });
      await stage.merged(vmId, snapshotId);
      await guest.writes();
    },
  },
];
