/** Exports over the network, each opened by a key that is made for it alone. */
import { isDeepStrictEqual } from 'node:util';
import type { PrepareBackupDiskParams, PrepareBackupDiskResult } from '../../../agent/api/generated.js';
import type { Given } from '../../exports/rig.js';
import { readExport, Unreadable } from '../disk-content.js';
import type { Stage } from '../stage.js';
import type { Scenario } from './scenario.js';

/** Reads it through the gateway, twice with the same key and never after its end. */
async function walk(
  stage: Stage,
  params: Given<PrepareBackupDiskParams> & { exportId: string },
  content: Buffer,
): Promise<void> {
  const { exportId } = params;
  const wanted = { ...params, transport: { type: 'tcp', tls: 'psk' }, leaseSeconds: 600 } as const;
  const made = await stage.call('prepareBackupDisk', wanted);
  await stage.verify(made, content);
  const again = await stage.call('prepareBackupDisk', wanted);
  if (!isDeepStrictEqual(again.credentials, made.credentials)) throw new Error(`${exportId} has another key`);
  await stage.call('renewExport', { exportId, leaseSeconds: 900 });
  await stage.verify(made, content);
  await stage.call('teardownBackupDisk', { exportId });
  if (await isReadable(stage, made)) throw new Error(`the key of ${exportId} opens it after its end`);
}

async function isReadable(stage: Stage, made: PrepareBackupDiskResult): Promise<boolean> {
  return readExport(stage.rig.host, made).then(
    () => true,
    (error: unknown) => {
      if (error instanceof Unreadable) return false;
      throw error;
    },
  );
}

export const network: Scenario[] = [
  {
    name: 'networkImage',
    network: true,
    qemuNbd: true,
    async play(stage) {
      const { top, now } = stage.rig.chain;
      await walk(stage, { exportId: stage.id('net'), path: top, format: 'qcow2' }, now);
    },
  },
  {
    // QEMU serves, under the name of the disk.
    name: 'networkLive',
    network: true,
    vm: 'live',
    async play(stage) {
      const { live } = stage.rig;
      const content = live.content('vda');
      await walk(stage, { exportId: stage.id('netlive'), vmId: live.name, disk: 'vda' }, content);
    },
  },
];
