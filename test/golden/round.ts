import type { ListExportsResult } from '../../agent/api/generated.js';
import type { Guest } from '../host/guest.js';
import { createDisk, ENDINGS, LAYOUTS, planDisk } from './disk.js';
import { allOperations, checkFrozen, checkSince, type DiskInRound, SNAPSHOT, VM } from './disk-checks.js';
import type { Rig } from './map-checks.js';
import { guestScript, makePool, planOperations } from './operations.js';
import { SeededRandom } from './random.js';

/** What a round went through, to be summed up. */
export interface RoundCounts {
  /** Layout and ending of each disk. */
  disks: string[];
  operations: number;
  /** Maps that were checked: a full and an incremental one a disk. */
  maps: number;
  extents: number;
  /** Bytes that the incremental maps called dirty. */
  dirtyBytes: number;
}

/**
 * One round: a guest with two disks, each with a bitmap from before it started, has both written to, snapshot while
 * it writes, merged or not, and is shut off. The full map of the snapshot and the map since the bitmap must then
 * each give the image, byte for byte. `seed` and `round` decide all of it but the instant of the snapshot.
 */
export async function runRound(rig: Rig, seed: string, round: number): Promise<RoundCounts> {
  const { host } = rig;
  const directory = `${host.dir}/golden-${round}`;
  await host.must('mkdir', ['-p', directory]);
  const random = [0, 1].map((disk) => new SeededRandom(seed, round, disk));
  const disks: DiskInRound[] = [];
  for (const [index, choices] of random.entries()) {
    const plan = planDisk(choices, index, variantOf(round, index));
    const made = await createDisk(host, directory, plan, choices);
    disks.push({ ...made, random: choices, inGuest: [], directory });
  }
  try {
    const guest = await host.startGuest({
      name: VM,
      disks: disks.map(({ target, bus, images, driver }) => ({
        ...{ target, bus, driver, format: 'qcow2' as const, serial: target },
        path: images.at(-1) ?? '',
      })),
    });
    await guest.sh(makePool(`${seed}/${round}`));
    await both(disks, (disk) => operate(guest, disk));
    // The snapshot comes while both disks are being written to.
    const going = both(disks, (disk) => operate(guest, disk));
    await Promise.all([going, snapshot(rig, disks, SNAPSHOT)]);
    const writing = both(disks, (disk) => operate(guest, disk));
    const full = await Promise.all([writing, both(disks, (disk) => checkFrozen(rig, disk))]);
    for (const disk of disks) await end(rig, disk);
    await both(disks, (disk) => operate(guest, disk));
    await guest.shutdown();
    const incremental = await both(disks, (disk) => checkSince(rig, disk));
    return {
      disks: disks.map(({ layout, ending }) => `${layout}, ${ending}`),
      operations: disks.reduce(
        (sum, { inGuest, layers }) => sum + allOperations({ inGuest, layers }).length,
        0,
      ),
      maps: full[1].length + incremental.length,
      extents: [...full[1], ...incremental].reduce((sum, { cbt }) => sum + cbt.extents.length, 0),
      dirtyBytes: incremental.reduce((sum, { cbt }) => sum + (cbt.changedBytes ?? 0), 0),
    };
  } finally {
    await teardownAll(rig);
    await host.run('virsh', ['--connect', 'qemu:///system', 'destroy', VM]);
    await host.run('virsh', ['--connect', 'qemu:///system', 'undefine', VM, '--snapshots-metadata']);
    await host.must('sh', ['-c', `rm -rf "$0" /var/lib/libvirt/images/[sv]da*`, directory]);
  }
}

/** Every pair of layout and ending comes round, whatever the seed: all in six rounds, on either bus in twelve. */
function variantOf(round: number, disk: number): number {
  const pairs = LAYOUTS.length * ENDINGS.length;
  return (round * 2 + ((disk + Math.floor((round * 2) / pairs)) % 2)) % pairs;
}

const both = <T>(disks: DiskInRound[], deed: (disk: DiskInRound) => Promise<T>): Promise<T[]> =>
  Promise.all(disks.map(deed));

/** The next few operations; now and then none, as disks are that nobody writes to. */
async function operate(guest: Guest, disk: DiskInRound): Promise<void> {
  const { random, capacity, target, inGuest, idle } = disk;
  const count = idle || random.chance(0.2) ? 0 : 2 + random.below(10);
  const operations = planOperations(random, capacity, count);
  inGuest.push(...operations);
  await guest.sh(`set -e; d=$(disk-by-serial ${target})\n${guestScript(operations, '$d')}`);
}

async function snapshot({ host }: Rig, disks: readonly DiskInRound[], name: string): Promise<void> {
  const specs = (['vda', 'sda'] as const).map((target) =>
    disks.some((disk) => disk.target === target) ? target : `${target},snapshot=no`,
  );
  await host.virsh(
    ...['snapshot-create-as', VM, name, '--disk-only', '--atomic'],
    ...specs.flatMap((spec) => ['--diskspec', spec]),
  );
}

/** What is to become of the snapshot's overlay, while the guest runs. */
async function end(rig: Rig, disk: DiskInRound): Promise<void> {
  if (disk.ending === 'merged') {
    await rig.host.virsh('blockcommit', VM, disk.target, '--active', '--shallow', '--pivot', '--wait');
  } else if (disk.ending === 'kept under another') {
    await snapshot(rig, [disk], `second-${disk.target}`);
  }
}

/** Exports are left only by a round that has failed: its error is the one to be told, and the next round goes on. */
async function teardownAll({ daemon }: Rig): Promise<void> {
  const { exports } = await daemon.call<ListExportsResult>('listExports').catch(() => ({ exports: [] }));
  for (const { exportId } of exports) {
    await daemon.call('teardownBackupDisk', { exportId }).catch(() => undefined);
  }
}
