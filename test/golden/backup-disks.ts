import type { Host } from '../host/host.js';
import type { SeededRandom } from './random.js';

const MiB = 1024 * 1024;
export const IMAGES = '/var/lib/libvirt/images';

/** A disk of the VM that is backed up. */
export interface BackedUpDisk {
  /** Its serial number, too. */
  target: 'vda' | 'sda' | 'vdb';
  bus: 'virtio' | 'scsi';
  format: 'qcow2' | 'raw';
  /** Bytes. */
  capacity: number;
  path: string;
  /** `<driver>` attributes of the disk. */
  driver: string;
  /** The files that it consists of at first, the lowest last. */
  files: string[];
}

/** Makes the images of a VM: one qcow2 disk on each bus, one of them above a raw image with data, and one raw disk. */
export async function createDisks(
  host: Host,
  name: string,
  random: SeededRandom,
): Promise<[BackedUpDisk, BackedUpDisk, BackedUpDisk]> {
  const above = random.pick(['vda', 'sda']);
  const make = async (
    target: BackedUpDisk['target'],
    bus: BackedUpDisk['bus'],
    format: BackedUpDisk['format'],
  ): Promise<BackedUpDisk> => {
    const capacity = 10 * MiB + random.below(6) * MiB + (random.chance(0.5) ? random.below(2048) * 512 : 0);
    const clusterSize = random.pick([65536, 65536, 4096, MiB]);
    const options = [`cluster_size=${clusterSize}`, `extended_l2=${extendedL2(clusterSize, random)}`];
    const detect = random.pick(['off', 'on', 'unmap']);
    const files: string[] = [];
    if (target === above) {
      files.push(await host.createImage({ name: `${name}-${target}.base`, format: 'raw', size: capacity }));
      await host.must('qemu-io', [
        ...['-f', 'raw', '-c', `write -P ${1 + random.below(255)} 0 ${3 * MiB}`],
        ...['-c', `write -P ${1 + random.below(255)} ${5 * MiB} ${2 * MiB}`, ...files],
      ]);
    }
    const [base] = files;
    const path = await host.createImage({
      ...{ name: `${name}-${target}.${format}`, format, size: capacity },
      ...(format === 'qcow2' && { options }),
      ...(base !== undefined && { backing: { path: base, format: 'raw' } }),
    });
    const driver = `discard='unmap' detect_zeroes='${detect}'`;
    return { target, bus, format, capacity, path, driver, files: [path, ...files] };
  };
  return [
    await make('vda', 'virtio', 'qcow2'),
    await make('sda', 'scsi', 'qcow2'),
    await make('vdb', 'virtio', 'raw'),
  ];
}

const extendedL2 = (clusterSize: number, random: SeededRandom): 'on' | 'off' =>
  clusterSize >= 65536 && random.chance(0.3) ? 'on' : 'off';
