/** One full cycle of the main flow, which has to work whatever has happened before. */
import type { Rig } from './rig.js';
import type { Stage } from './stage.js';

/** The last good backup of a disk: its checkpoint, and what was read. */
export interface Base {
  checkpoint: string;
  content: Buffer;
}

/**
 * Backs up `vda` of the VM that runs: since the last good backup where its checkpoint is trusted, held byte for byte
 * against what was written; then the older checkpoint goes.
 * @param since whether the map must be an incremental one: nothing has harmed QEMU
 */
export async function cycle(stage: Stage, base: Base | null, trusted: boolean): Promise<Base> {
  const { live }: Rig = stage.rig;
  const vmId = live.name;
  await live.write('vda', (Math.floor(Math.random() * 60) + 2) * 65536, 65536);
  const content = live.content('vda');
  const [exportId, checkpoint] = [stage.id('cycle'), stage.id('good')];
  const made = await stage.call('prepareBackupDisk', {
    ...{ exportId, vmId, disk: 'vda', checkpoint, ifUntracked: 'full' },
    ...(base !== null && { since: { checkpoint: base.checkpoint } }),
  });
  const incremental = made.cbt.mode === 'incremental';
  if (base !== null && trusted && !incremental) {
    throw new Error(`the cycle is full: ${JSON.stringify(made.cbt.reason)}`);
  }
  await stage.verify(made, content, incremental ? (base?.content ?? null) : null);
  await stage.call('teardownBackupDisk', { exportId, outcome: 'success' });
  if (base !== null) await stage.call('deleteCheckpoint', { vmId, checkpoint: base.checkpoint });
  return { checkpoint, content };
}
