/** The main flow, through the service: a running VM's disk, full and then what has changed, plugged in, and put together. */
import type {
  ChangedExtents,
  HotplugDiskResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import { copyByMap, size, toRead } from '../demo/map.js';
import { bringGuestImage, startGuest } from './guests.js';
import { expect, type Step } from './steps.js';
import { ctl, type World } from './world.js';

export const MIB = 1 << 20;
export const CAPACITY = 64 * MIB;
const IMAGES = '/var/lib/libvirt/images';
/** Inside: the backup that is kept, a plain file. */
const COPY = '/root/copy.raw';

export const write = (at: number, length: number, seed: string): string =>
  `write-random /dev/vda ${at} ${length} ${seed}`;

export function guestsOf(world: World): Required<Pick<World, 'shop' | 'appliance'>> {
  const { shop, appliance } = world;
  if (shop === undefined || appliance === undefined) throw new Error('the guests do not run');
  return { shop, appliance };
}

/** The whole map of an export, page by page. */
async function mapOf(world: World, exportId: string): Promise<ChangedExtents['extents']> {
  const extents: ChangedExtents['extents'] = [];
  for (let offset: number | null = 0; offset !== null; ) {
    const page: ChangedExtents = await ctl(world, 'getChangedBlocks', { exportId, offset, maxExtents: 4 });
    extents.push(...page.extents);
    offset = page.nextOffset;
  }
  return extents;
}

const sumOf = async ({ machine }: World, file: string): Promise<string> =>
  (await machine.must(['sha256sum', file])).slice(0, 64);

async function copyWhole({ machine }: World, uri: string, file: string): Promise<void> {
  await machine.must(['nbdcopy', uri, file]);
}

/** Ends an export whose backup is good. */
async function succeed(world: World, exportId: string, checkpoint: string): Promise<void> {
  const ended = await ctl<{ checkpoint: { id: string; state: string } | null }>(world, 'teardownBackupDisk', {
    exportId,
    outcome: 'success',
  });
  expect(ended.checkpoint?.id === checkpoint && ended.checkpoint.state === 'kept', JSON.stringify(ended));
}

export const flow: Step<World>[] = [
  {
    name: 'guests',
    needs: ['units'],
    async play(world) {
      const { machine } = world;
      await bringGuestImage(machine);
      const path = `${IMAGES}/shop.qcow2`;
      await machine.must(['qemu-img', 'create', '-q', '-f', 'qcow2', path, String(CAPACITY)]);
      [world.shop, world.appliance] = await Promise.all([
        startGuest(machine, { name: 'shop', disks: [{ target: 'vda', path, format: 'qcow2' }] }),
        startGuest(machine, { name: 'appliance', scsiController: true }),
      ]);
      return 'two VMs run, emulated';
    },
  },
  {
    name: 'full backup',
    needs: ['guests'],
    async play(world) {
      const { shop } = guestsOf(world);
      await shop.sh(`${write(4 * MIB, 12 * MIB, 'a')} && ${write(50 * MIB, MIB, 'b')}`);
      const monday = await shop.sha256('/dev/vda');
      const disks = [{ disk: 'vda' }];
      await ctl(world, 'startBackup', { backupId: 'mon', vmId: 'shop', disks, checkpoint: 'monday' });
      const params = { exportId: 'mon', vmId: 'shop', disk: 'vda', backupId: 'mon' };
      const { uri } = await ctl<PrepareBackupDiskResult>(world, 'prepareBackupDisk', params);
      // Of later than the instant.
      await shop.sh(`${write(5 * MIB, MIB, 'c')} && ${write(30 * MIB, MIB, 'd')}`);
      await copyWhole(world, uri, COPY);
      expect((await sumOf(world, COPY)) === monday, 'the copy is not what the guest had at the instant');
      await ctl(world, 'teardownBackupDisk', { exportId: 'mon' });
      const ended = await ctl<{ checkpoint: { state: string } | null }>(world, 'stopBackup', {
        backupId: 'mon',
        outcome: 'success',
      });
      expect(ended.checkpoint?.state === 'kept', JSON.stringify(ended));
      return `${size(CAPACITY)} by nbdcopy, as the guest had it at the instant`;
    },
  },
  {
    name: 'incremental backup',
    needs: ['full backup'],
    async play(world) {
      const { machine } = world;
      const { shop } = guestsOf(world);
      await shop.sh(`${write(16 * MIB, MIB / 4, 'e')} && discard-range /dev/vda ${50 * MIB} ${MIB}`);
      const tuesday = await shop.sha256('/dev/vda');
      const { uri } = await ctl<PrepareBackupDiskResult>(world, 'prepareBackupDisk', {
        ...{ exportId: 'tue', vmId: 'shop', disk: 'vda' },
        ...{ since: { checkpoint: 'monday' }, checkpoint: 'tuesday', inlineExtents: 0 },
      });
      const extents = await mapOf(world, 'tue');
      const read = toRead(extents);
      expect(read > 0 && read < 4 * MIB, `the map wants ${size(read)} read`);
      // What a backup program does: read the ranges of the map, from a file that stands in for the device.
      await copyWhole(world, uri, '/root/second.raw');
      await machine.sh(copyByMap(extents, '/root/second.raw', COPY));
      await machine.must(['cmp', COPY, '/root/second.raw']);
      expect((await sumOf(world, COPY)) === tuesday, 'full and changes are not what the guest had');
      await succeed(world, 'tue', 'tuesday');
      return `full + changes = image; ${size(read)} of ${size(CAPACITY)} to read`;
    },
  },
  {
    name: 'hotplug',
    needs: ['guests'],
    async play(world) {
      const { shop, appliance } = guestsOf(world);
      const there = await shop.sha256('/dev/vda');
      const params = { exportId: 'plug', vmId: 'shop', disk: 'vda' };
      const { drive } = await ctl<PrepareBackupDiskResult>(world, 'prepareBackupDisk', params);
      const plug = { vmId: 'appliance', drive };
      const { guestPath } = await ctl<HotplugDiskResult>(world, 'hotplugDisk', plug);
      const wait = `n=0; until [ -e ${guestPath} ]; do n=$((n + 1)); [ $n -lt 200 ]; sleep 0.1; done`;
      await appliance.sh(`set -e; ${wait}`);
      expect((await appliance.sha256(guestPath)) === there, 'the appliance reads something else');
      await ctl(world, 'hotunplugDisk', plug);
      expect(
        (await appliance.sh(`test -e ${guestPath} || echo gone`)) === 'gone',
        'the drive is still there',
      );
      await ctl(world, 'teardownBackupDisk', { exportId: 'plug' });
      return `${size(CAPACITY)} read in another VM, and the drive taken out`;
    },
  },
  {
    name: 'snapshot and merge',
    needs: ['guests'],
    async play(world) {
      const { machine } = world;
      const { shop } = guestsOf(world);
      const frozen = await shop.sha256('/dev/vda');
      await ctl(world, 'createSnapshot', { snapshotId: 'snap', vmId: 'shop' });
      await shop.sh(write(40 * MIB, 2 * MIB, 'f'));
      const now = await shop.sha256('/dev/vda');
      const params = { exportId: 'snap', vmId: 'shop', disk: 'vda', snapshotId: 'snap' };
      const { uri } = await ctl<PrepareBackupDiskResult>(world, 'prepareBackupDisk', params);
      await copyWhole(world, uri, '/root/frozen.raw');
      expect((await sumOf(world, '/root/frozen.raw')) === frozen, 'the snapshot is not what was frozen');
      await ctl(world, 'teardownBackupDisk', { exportId: 'snap' });
      await machine.must(
        ['vmdiskctl', 'delete-snapshot', '--vm-id', 'shop', '--snapshot-id', 'snap', '--wait'],
        { timeoutMs: 120_000 },
      );
      expect((await shop.sha256('/dev/vda')) === now, 'the merge has changed what the guest sees');
      const left = await machine.must(['ls', IMAGES]);
      expect(left === 'shop.qcow2', `images after the merge: ${left}`);
      return 'frozen, read while the VM wrote on, and merged';
    },
  },
];
