/** Exports of images that nobody writes to: qemu-nbd serves. */
import type { Scenario } from './scenario.js';

export const images: Scenario[] = [
  {
    name: 'imageFull',
    qemuNbd: true,
    async play(stage) {
      const { top, now } = stage.rig.chain;
      const exportId = stage.id('image');
      const made = await stage.call('prepareBackupDisk', { exportId, path: top, format: 'qcow2' });
      await stage.verify(made, now);
      await stage.call('teardownBackupDisk', { exportId });
    },
  },
  {
    // Served one layer after another first, to merge their bitmaps.
    name: 'imageSinceBitmap',
    qemuNbd: true,
    async play(stage) {
      const { top, now, before, bitmap } = stage.rig.chain;
      const exportId = stage.id('bits');
      const since = { bitmap };
      const made = await stage.call('prepareBackupDisk', { exportId, path: top, format: 'qcow2', since });
      await stage.verify(made, now, before);
      await stage.call('teardownBackupDisk', { exportId, outcome: 'failed' });
    },
  },
  {
    // The first call ends well, the second one counts from it, and its checkpoint is not kept.
    name: 'offCheckpoint',
    qemuNbd: true,
    async play(stage) {
      const { off } = stage.rig;
      const of = { vmId: off.name, disk: 'vda' };
      const [kept, dropped] = [stage.id('kept'), stage.id('dropped')];
      const first = stage.id('off1');
      const then = off.content('vda');
      await stage.verify(
        await stage.call('prepareBackupDisk', { ...of, exportId: first, checkpoint: kept }),
        then,
      );
      await stage.call('teardownBackupDisk', { exportId: first, outcome: 'success' });
      await off.write('vda', 2 << 20, 65536);
      const second = stage.id('off2');
      const since = { checkpoint: kept };
      const made = await stage.call('prepareBackupDisk', {
        ...of,
        exportId: second,
        since,
        checkpoint: dropped,
      });
      await stage.verify(made, off.content('vda'), then);
      await stage.call('teardownBackupDisk', { exportId: second, outcome: 'failed' });
      await stage.call('deleteCheckpoint', { vmId: off.name, checkpoint: kept });
    },
  },
];
