import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { Host } from '../host/host.js';
import { type Operation, planOperations, qemuIoArguments } from './operations.js';
import type { SeededRandom } from './random.js';

const MiB = 1024 * 1024;
export const BITMAP = 'since';

/** What lies below the image that the guest writes to, when it starts. */
export const LAYOUTS = ['alone', 'over raw', 'two layers', 'three layers'] as const;
/** What becomes of the overlay that the snapshot of the running VM makes. */
export const ENDINGS = ['merged', 'kept', 'kept under another'] as const;

/** A disk of one round, all decided by the round's seed. Sizes in bytes. */
export interface DiskPlan {
  target: 'vda' | 'sda';
  bus: 'virtio' | 'scsi';
  layout: (typeof LAYOUTS)[number];
  ending: (typeof ENDINGS)[number];
  /** The disk that the guest sees. The layers below may be smaller: disks grow. */
  capacity: number;
  /** `<driver>` attributes of the disk. */
  driver: string;
  /** The guest has it and writes nothing to it. */
  idle: boolean;
  /** The images in which the bitmap records, lowest first. */
  layers: LayerPlan[];
}

interface LayerPlan {
  capacity: number;
  granularity: number;
  clusterSize: number;
  /** Further options of qemu-img create. */
  options: string[];
  /** What is done to it before the next layer is laid over it; the guest does the rest. */
  operations: Operation[];
}

export function planDisk(random: SeededRandom, index: number, variant: number): DiskPlan {
  const layout = LAYOUTS[variant % LAYOUTS.length] ?? 'alone';
  const ending = ENDINGS[Math.floor(variant / LAYOUTS.length) % ENDINGS.length] ?? 'kept';
  const count = layout === 'three layers' ? 3 : layout === 'two layers' ? 2 : 1;
  let capacity = 24 * MiB + random.below(8) * MiB + (random.chance(0.5) ? random.below(2048) * 512 : 0);
  const layers: LayerPlan[] = [];
  for (let depth = 0; depth < count; depth++) {
    if (depth > 0 && random.chance(0.3)) capacity += random.below(4096) * 512;
    const clusterSize = random.pick([65536, 65536, 4096, 2 * MiB]);
    layers.push({
      capacity,
      granularity: random.pick([65536, 65536, 512, 4096, 32768, 131_072, MiB]),
      clusterSize,
      options: clusterSize >= 65536 && random.chance(0.3) ? ['extended_l2=on'] : [],
      operations: depth + 1 < count ? planOperations(random, capacity, 3 + random.below(12)) : [],
    });
  }
  return {
    target: index === 0 ? 'vda' : 'sda',
    bus: index === 0 ? 'virtio' : 'scsi',
    layout,
    ending,
    capacity,
    driver: `discard='unmap' detect_zeroes='${random.pick(['off', 'on', 'unmap'])}'`,
    idle: random.chance(0.1),
    layers,
  };
}

export interface Disk extends DiskPlan {
  /** Raw, as the disk was when the bitmap began; inside and outside path. */
  base: string;
  /** The images with the bitmap, lowest first; the last one is the guest's. */
  images: string[];
}

/** Makes the images of a disk, with the bitmap in all but a raw base, as they are before the guest starts. */
export async function createDisk(
  host: Host,
  directory: string,
  plan: DiskPlan,
  random: SeededRandom,
): Promise<Disk> {
  const base = `${directory}/${plan.target}.base`;
  const [lowest] = plan.layers;
  writeBase(base, lowest?.capacity ?? plan.capacity, random);
  const images: string[] = [];
  let below = { path: base, format: 'raw' };
  if (plan.layout !== 'alone') {
    below = { path: `/var/lib/libvirt/images/${plan.target}.raw`, format: 'raw' };
    await host.must('cp', ['--sparse=always', base, below.path]);
  }
  for (const [depth, layer] of plan.layers.entries()) {
    const path = `/var/lib/libvirt/images/${plan.target}-${depth}.qcow2`;
    const options = [`cluster_size=${layer.clusterSize}`, ...layer.options].join(',');
    if (plan.layout === 'alone') {
      await host.must('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-o', options, base, path]);
    } else {
      const backing = ['-b', below.path, '-F', below.format];
      await host.must('qemu-img', [
        ...['create', '-q', '-f', 'qcow2', '-o', options, ...backing, path, String(layer.capacity)],
      ]);
    }
    await host.must('qemu-img', ['bitmap', '--add', '-g', String(layer.granularity), path, BITMAP]);
    if (layer.operations.length > 0) {
      await host.must('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...qemuIoArguments(layer.operations), path]);
    }
    images.push(path);
    below = { path, format: 'qcow2' };
  }
  return { ...plan, base, images };
}

/** A disk that is in part empty. */
function writeBase(path: string, capacity: number, random: SeededRandom): void {
  const file = openSync(path, 'w');
  try {
    ftruncateSync(file, capacity);
    for (let stretch = 0; stretch < 6; stretch++) {
      const start = random.below(capacity / 512) * 512;
      writeSync(file, random.bytes(Math.min((1 + random.below(4)) * MiB, capacity - start)), 0, null, start);
    }
  } finally {
    closeSync(file);
  }
}
