/** Mounts through the service: a throw-away layer that takes writes, and a plain file. */
import type { MountDiskResult } from '../../agent/api/generated.js';
import { CAPACITY, guestsOf } from './flow.js';
import { expect, type Step } from './steps.js';
import { ctl, type World } from './world.js';

const DISK = { vmId: 'shop', disk: 'vda' };

/** SHA-256 of an export. @param uri NBD */
async function sumOfExport({ machine }: World, uri: string): Promise<string> {
  await machine.must(['nbdcopy', uri, '/root/mounted.raw']);
  return (await machine.must(['sha256sum', '/root/mounted.raw'])).slice(0, 64);
}

export const mounts: Step<World>[] = [
  {
    name: 'mount, scratch',
    needs: ['guests'],
    async play(world) {
      const { machine } = world;
      const there = await guestsOf(world).shop.sha256('/dev/vda');
      const params = { exportId: 'scratch', ...DISK, access: 'scratch' };
      const { uri } = await ctl<MountDiskResult>(world, 'mountDisk', params);
      expect((await sumOfExport(world, uri)) === there, 'the export is not what the guest had');
      await machine.must(['qemu-io', '-f', 'raw', '-c', 'write -P 7 1M 64k', '-c', 'flush', uri]);
      await machine.must(['qemu-io', '-f', 'raw', '-c', 'read -P 7 1M 64k', uri]);
      await ctl(world, 'unmountDisk', { exportId: 'scratch' });
      expect((await guestsOf(world).shop.sha256('/dev/vda')) === there, 'the write has reached the VM');
      return 'written to, and nothing of it reached the VM';
    },
  },
  {
    name: 'mount, as a file',
    needs: ['guests'],
    async play(world) {
      const { machine } = world;
      const there = await guestsOf(world).shop.sha256('/dev/vda');
      const params = { exportId: 'file', ...DISK, as: 'file' };
      const { path } = await ctl<MountDiskResult>(world, 'mountDisk', params);
      expect(path !== undefined, 'there is no path in the answer');
      // By somebody who is not the service: it has to be mounted where all see it.
      const [bytes, sum] = [
        await machine.must(['stat', '-c', '%s', path]),
        await machine.must(['sha256sum', path]),
      ];
      expect(bytes === String(CAPACITY), `the file has ${bytes} bytes`);
      expect(sum.slice(0, 64) === there, 'the file is not what the guest had');
      await ctl(world, 'unmountDisk', { exportId: 'file' });
      const left = await machine.run(['grep', '-F', path, '/proc/mounts']);
      expect(left.exitCode !== 0, `still mounted: ${left.stdout}`);
      return 'read by another process of the host, and taken away';
    },
  },
];
