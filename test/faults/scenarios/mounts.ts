/** Mounts: layers that are thrown away, images that are written to, new ones, plain files. */
import { readFileSync } from 'node:fs';
import type { MountDiskParams } from '../../../agent/api/generated.js';
import { type Given, MiB } from '../../exports/rig.js';
import { contentOf, differenceAt } from '../disk-content.js';
import { fill, shows } from '../mounted.js';
import { IMAGES } from '../rig.js';
import type { Stage } from '../stage.js';
import { SIZE } from '../vms.js';
import type { Scenario } from './scenario.js';

/** Where its clients write, and what. */
const [OFFSET, LENGTH, BYTE] = [MiB + 65536, 131072, 90];
const LEASE = { leaseSeconds: 600 };

/**
 * Walks a mount whose writes are thrown away: none are there when it is given, also where an earlier one was taken back;
 * from then on they stay, whatever becomes of the daemon, until it is unmounted.
 */
async function scratch(
  stage: Stage,
  params: Given<MountDiskParams> & { exportId: string },
  content: Buffer,
  meanwhile: () => Promise<void> = async () => {},
): Promise<void> {
  const { exportId } = params;
  const wanted = { ...params, ...LEASE, access: 'scratch' } as const;
  const made = await stage.call('mountDisk', wanted);
  await meanwhile();
  await shows(stage, made, content);
  await fill(stage, made, BYTE, OFFSET, LENGTH);
  const written = Buffer.from(content).fill(BYTE, OFFSET, OFFSET + LENGTH);
  await stage.call('renewExport', { exportId, leaseSeconds: 900 });
  await shows(stage, made, written);
  await shows(stage, await stage.call('mountDisk', wanted), written);
  await stage.call('unmountDisk', { exportId });
}

/** A new image, which stays. */
function creation(format: 'raw' | 'qcow2'): Scenario {
  return {
    name: format === 'raw' ? 'createRaw' : 'createQcow2',
    qemuNbd: true,
    async play(stage) {
      const { host, created } = stage.rig;
      const exportId = stage.id('new');
      const name = `${stage.id('made')}.${format}`;
      const path = `${IMAGES}/${name}`;
      const made = await stage.call('mountDisk', {
        ...{ exportId, path, format, access: 'read-write', create: { capacity: SIZE } },
      });
      created.add(name);
      const content = Buffer.alloc(SIZE);
      await shows(stage, made, content);
      await fill(stage, made, BYTE, OFFSET, LENGTH);
      content.fill(BYTE, OFFSET, OFFSET + LENGTH);
      await stage.call('unmountDisk', { exportId });
      const at = differenceAt(await contentOf(host, path, format), content);
      if (at !== null) throw new Error(`the new image lacks what was written at byte ${at}`);
      stage.rig.removeCreated();
    },
  };
}

export const mounts: Scenario[] = [
  {
    name: 'scratchImage',
    qemuNbd: true,
    overlay: true,
    async play(stage) {
      const { chain, host } = stage.rig;
      const files = () => [chain.base, chain.top].map((path) => readFileSync(host.path(path)));
      const before = files();
      await scratch(stage, { exportId: stage.id('layer'), path: chain.top, format: 'qcow2' }, chain.now);
      if (files().some((bytes, index) => !bytes.equals(before[index] ?? bytes)))
        throw new Error('the image below a throw-away layer has changed');
    },
  },
  {
    // QEMU shows the point in time; the VM goes on writing, and so does whoever has the file.
    name: 'scratchLiveFile',
    vm: 'live',
    overlay: true,
    file: true,
    async play(stage) {
      const { live } = stage.rig;
      const of = { exportId: stage.id('scan'), vmId: live.name, disk: 'vda', as: 'file' } as const;
      await scratch(stage, of, live.content('vda'), () => live.write('vda', 2 * MiB, 65536));
    },
  },
  {
    name: 'fileOfImage',
    qemuNbd: true,
    file: true,
    async play(stage) {
      const { top, now } = stage.rig.chain;
      const exportId = stage.id('look');
      const made = await stage.call('mountDisk', { exportId, path: top, format: 'qcow2', as: 'file' });
      await shows(stage, made, now);
      await stage.call('unmountDisk', { exportId });
    },
  },
  {
    // A restore: what was flushed is in the image of the VM.
    name: 'writeOffFile',
    qemuNbd: true,
    file: true,
    async play(stage) {
      const { off, host } = stage.rig;
      const exportId = stage.id('restore');
      const vmId = off.name;
      const made = await stage.call('mountDisk', {
        ...{ exportId, vmId, disk: 'vda', access: 'read-write', as: 'file', ...LEASE },
      });
      await shows(stage, made, off.content('vda'));
      await off.writeThrough({ target: 'vda', offset: OFFSET, length: LENGTH }, (byte) =>
        fill(stage, made, byte, OFFSET, LENGTH),
      );
      await stage.call('renewExport', { exportId, leaseSeconds: 900 });
      await shows(stage, made, off.content('vda'));
      await stage.call('unmountDisk', { exportId });
      const image = (await off.active('vda')) ?? off.disk('vda').path;
      const at = differenceAt(await contentOf(host, image, 'qcow2'), off.content('vda'));
      if (at !== null) throw new Error(`the disk lacks what was written at byte ${at}`);
    },
  },
  creation('qcow2'),
  creation('raw'),
];
