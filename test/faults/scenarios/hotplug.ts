/** Drives in and out of a VM. */
import type { Drive } from '../../../agent/api/generated.js';
import type { Stage } from '../stage.js';
import type { Scenario } from './scenario.js';

/** An export to be plugged in. */
async function drive(stage: Stage, exportId: string): Promise<Drive> {
  const { top } = stage.rig.chain;
  return (await stage.call('prepareBackupDisk', { exportId, path: top, format: 'qcow2' })).drive;
}

export const hotplug: Scenario[] = [
  {
    name: 'hotplug',
    vm: 'app',
    qemuNbd: true,
    async play(stage) {
      const vmId = stage.rig.app.name;
      const exportId = stage.id('plugged');
      const plugged = await drive(stage, exportId);
      await stage.call('hotplugDisk', { vmId, drive: plugged });
      await stage.call('hotunplugDisk', { vmId, drive: plugged });
      await stage.call('teardownBackupDisk', { exportId });
    },
  },
  {
    name: 'hotplugPersistent',
    vm: 'app',
    qemuNbd: true,
    async play(stage) {
      const vmId = stage.rig.app.name;
      const exportId = stage.id('stored');
      const { target } = await stage.call('hotplugDisk', {
        ...{ vmId, drive: await drive(stage, exportId), persistent: true },
      });
      await stage.call('hotunplugDisk', { vmId, target });
      await stage.call('teardownBackupDisk', { exportId });
    },
  },
  {
    name: 'teardownByForce',
    vm: 'app',
    qemuNbd: true,
    async play(stage) {
      const exportId = stage.id('forced');
      await stage.call('hotplugDisk', { vmId: stage.rig.app.name, drive: await drive(stage, exportId) });
      await stage.call('teardownBackupDisk', { exportId, force: true });
    },
  },
  {
    // A drive of another host, of which there is a record of its own and no export.
    name: 'hotplugRemote',
    vm: 'app',
    async play(stage) {
      const { app, remote } = stage.rig;
      await stage.call('hotplugDisk', { vmId: app.name, drive: remote });
      await stage.call('hotunplugDisk', { vmId: app.name, drive: remote });
    },
  },
  {
    // One VM's live backup in another one, the way that a backup appliance works.
    name: 'hotplugLive',
    vm: 'live',
    async play(stage) {
      const { app, live } = stage.rig;
      const exportId = stage.id('appliance');
      const then = live.content('vda');
      const made = await stage.call('prepareBackupDisk', { exportId, vmId: live.name, disk: 'vda' });
      await stage.call('hotplugDisk', { vmId: app.name, drive: made.drive });
      await live.write('vda', 0, 65536);
      await stage.verify(made, then);
      await stage.call('hotunplugDisk', { vmId: app.name, drive: made.drive });
      await stage.call('teardownBackupDisk', { exportId });
    },
  },
];
