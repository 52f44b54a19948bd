import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import type { ChangedExtents, ListCheckpointsResult } from '../../agent/api/generated.js';
import { RpcFailure } from '../host/daemon.js';
import type { BackupClient, Run, Since } from './backup-client.js';
import type { BackedUpVm } from './backup-vm.js';
import type { Rig } from './map-checks.js';
import type { Held } from './point-checks.js';
import type { SeededRandom } from './random.js';
import { firstDifference } from './rebuild.js';

/** What an act is played with. */
export interface Stage {
  /** `daemon` is another one after a restart. */
  rig: Rig;
  vm: BackedUpVm;
  client: BackupClient;
  random: SeededRandom;
  restartDaemon(): Promise<void>;
}

/** One round: something happens to a VM that is backed up and written to, and at least one point in time is read. */
export type Act = (stage: Stage) => Promise<void>;

/** Snapshots that an act may leave behind for those that come after it. */
const KEPT_SNAPSHOTS = 2;
const CHECKPOINTS = 4;
/** Names of the errors that say that a map since a checkpoint cannot be had. */
const UNTRUSTED = ['InconsistentCheckpoint', 'InvalidBitmapChain', 'BitmapDoesNotExist', 'NotTracked'];
const nothing: Since = () => undefined;

/** Everything that must go well, by name. The first is the first of every series. */
export const ACTS = {
  'full, live': async ({ client, vm }) => {
    await client.live({ since: nothing, meanwhile: () => vm.writer.more() });
  },

  'since the latest, live': async ({ client, vm }) => {
    await client.live({ since: client.latest, meanwhile: () => vm.writer.more() });
  },

  'since an older checkpoint': async ({ client, vm }) => {
    if (client.checkpoints.length < 3) await client.live({ since: client.latest });
    await vm.writer.more();
    await client.live({ since: client.older, meanwhile: () => vm.writer.more() });
  },

  'disk by disk': async ({ client, vm, random }) => {
    for (const disk of vm.disks) await client.alone(disk, random.pick([client.latest, client.older]));
    await vm.writer.more();
    await client.live({ since: client.latest });
  },

  'a snapshot, merged at once': async (stage) => {
    const { client, vm, random } = stage;
    const snapshot = await client.createSnapshot();
    await vm.writer.more();
    await client.readSnapshot(snapshot, random.pick([client.latest, client.older]));
    await merge(stage, snapshot);
    await client.live({ since: client.latest });
  },

  'a snapshot between two checkpoints': async (stage) => {
    const { client, vm, random } = stage;
    await vm.writer.more();
    const snapshot = await client.createSnapshot();
    await vm.writer.more();
    await client.readSnapshot(snapshot, client.latest);
    await client.live({ since: client.latest, meanwhile: () => vm.writer.more() });
    await client.live({ since: client.older });
    await mergeSome(stage, random.chance(0.5) ? 0 : KEPT_SNAPSHOTS);
  },

  'above a snapshot': async (stage) => {
    const { client, vm, random } = stage;
    let [lower] = client.snapshots;
    if (lower === undefined || lower.states.size === 0) {
      lower = await client.createSnapshot();
      await client.readSnapshot(lower, client.latest);
    }
    const from = lower;
    await vm.writer.more();
    const upper = await client.createSnapshot();
    await vm.writer.more();
    // One frozen state, told in two ways.
    const above = await client.readSnapshot(upper, () => from, 'depth');
    const since = await client.readSnapshot(upper, random.pick([client.latest, client.before(upper)]));
    for (const disk of vm.disks) assertSame(above, since, disk.target);
    // The lower one first: a layer in the middle.
    await merge(stage, from);
    await client.live({ since: client.latest });
    // What the upper one froze lies one file lower now.
    await client.readSnapshot(upper, client.before(upper));
    await mergeSome(stage, random.chance(0.5) ? 0 : KEPT_SNAPSHOTS);
  },

  'stopped and started': async (stage) => {
    const { client, vm, random } = stage;
    await vm.stop();
    for (const run of await whileOff(stage, client.latest)) {
      // The image itself, which nothing of ours has a part in.
      for (const [target, state] of run.states) await assertImage(vm, target, state);
    }
    if (random.chance(0.5)) await mergeSome(stage, 0);
    await vm.start();
    await vm.writer.more();
    await client.live({ since: client.latest, meanwhile: () => vm.writer.more() });
    await client.live({ since: client.older });
  },

  'a backup called failed': async ({ rig, client, vm }) => {
    const { checkpoint } = await client.live({
      since: client.latest,
      outcome: 'failed',
      meanwhile: () => vm.writer.more(),
    });
    const listed = await rig.daemon.call<ListCheckpointsResult>('listCheckpoints', { vmId: vm.name });
    const names = listed.checkpoints.map((row) => row.checkpoint);
    assert.ok(!names.includes(checkpoint), `${checkpoint} went with its backup`);
    for (const { name } of client.checkpoints) assert.ok(names.includes(name), `${name} is kept`);
    await assertRefused(rig, vm, checkpoint, ['NoSuchCheckpoint']);
    await client.live({ since: client.latest });
  },

  'the daemon killed': async ({ rig, client, vm, restartDaemon }) => {
    await client.live({
      since: client.latest,
      meanwhile: async (exported) => {
        await vm.writer.more();
        await restartDaemon();
        for (const { exportId, cbt } of exported) {
          const map: ChangedExtents = await rig.daemon.call('getChangedBlocks', { exportId });
          assert.deepEqual(map.extents, cbt.extents, 'the map is the same after the restart');
        }
      },
    });
    await client.live({ since: client.latest });
  },

  'QEMU killed': async (stage) => {
    const { rig, client, vm, random } = stage;
    await vm.kill();
    const lost = [...client.checkpoints];
    const off = random.chance(0.5);
    if (off) await whileOff(stage, client.latest, 'full');
    else await vm.start();
    for (const { name } of lost) await assertRefused(rig, vm, name, UNTRUSTED, off);
    if (off) await vm.start();
    else await client.live({ since: client.latest, expect: 'full', meanwhile: () => vm.writer.more() });
    // Nobody has to delete the broken ones, but one may.
    for (const held of lost) {
      if (random.chance(0.5)) await client.deleteCheckpoint(held);
      else client.forget(held);
    }
    await vm.writer.more();
    await client.live({ since: client.latest });
  },

  'nothing written': async ({ client, vm }) => {
    await vm.writer.pause();
    const first = await client.live({ since: client.latest });
    const sums = await vm.checksums();
    const second = await client.live({ since: client.latest });
    for (const { target } of vm.disks) {
      assert.equal(
        sha256(first.states.get(target) ?? ''),
        sums.get(target),
        `${target}: as the guest sees it`,
      );
      assertSame(first, second, target);
      const map = second.maps.get(target);
      if (map?.mode === 'incremental') assert.equal(map.changedBytes, 0, `${target}: nothing has changed`);
    }
    vm.resume();
  },
} satisfies Record<string, Act>;

/** Run after each act: what the client keeps does not grow for ever. */
export async function tidy({ client, random }: Stage): Promise<void> {
  while (client.checkpoints.length > CHECKPOINTS) {
    // Never the newest of a disk.
    const held = client.checkpoints[random.below(client.checkpoints.length - 3)];
    if (held !== undefined) await client.deleteCheckpoint(held);
  }
}

/** Every disk of a VM that is off, at the same time, each with a checkpoint where it can have one. */
function whileOff(
  { client, vm }: Stage,
  since: Since,
  expect: 'incremental' | 'full' = 'incremental',
): Promise<Run[]> {
  return Promise.all(vm.disks.map((disk) => client.alone(disk, since, { expect })));
}

/** Merges a snapshot away, while the guest writes if it runs; now and then with a restart of the daemon. */
async function merge({ client, random, restartDaemon }: Stage, snapshot: Held): Promise<void> {
  const merging = await client.deleteSnapshot(snapshot);
  if (random.chance(0.2)) await restartDaemon();
  await merging.finished();
}

/** Merges until no more than so many are left: the oldest first, or the newest. */
async function mergeSome(stage: Stage, left: number): Promise<void> {
  const { client, random } = stage;
  while (client.snapshots.length > left) {
    const next = random.chance(0.5) ? client.snapshots[0] : client.snapshots.at(-1);
    if (next !== undefined) await merge(stage, next);
  }
}

/** A map of the qcow2 disks since that checkpoint is refused by name. */
async function assertRefused(
  { daemon }: Rig,
  vm: BackedUpVm,
  checkpoint: string,
  names: readonly string[],
  off = false,
): Promise<void> {
  for (const { target, format } of vm.disks) {
    if (format === 'raw') continue;
    const call = daemon.call('prepareBackupDisk', {
      ...{ exportId: `refused-${checkpoint}-${target}`, vmId: vm.name, disk: target },
      since: { checkpoint },
    });
    const error = await call.then(
      () => null,
      (cause: unknown) => cause,
    );
    const what = `${target} since ${checkpoint}, ${off ? 'off' : 'running'}`;
    assert.ok(error instanceof RpcFailure, `${what}: refused, and not ${String(error)}`);
    assert.ok(names.includes(String(error.data.name)), `${what}: ${error.data.name}: ${error.message}`);
  }
}

function assertSame(one: Run, other: Run, target: string): void {
  const [a, b] = [one.states.get(target) ?? '', other.states.get(target) ?? ''];
  assert.equal(firstDifference(a, b), null, `${target}: twice the same state`);
}

async function assertImage(vm: BackedUpVm, target: string, state: string): Promise<void> {
  const image = `${state}.image`;
  await vm.copyImage(target, image);
  assert.equal(firstDifference(state, image), null, `${target}: what was exported is the image`);
  rmSync(image);
}

const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');
