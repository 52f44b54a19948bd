import assert from 'node:assert/strict';
import { startHost, type Teardown } from '../host/host.js';
import { ACTS, type Stage, tidy } from './backup-acts.js';
import { BackupClient, type BackupCounts, noCounts } from './backup-client.js';
import { BackedUpVm } from './backup-vm.js';
import type { Rig } from './map-checks.js';
import { leftBehind } from './maps.golden.js';
import { SeededRandom } from './random.js';

/** The guests' disks are small, and so may the scratch files' reserve be. */
const CONFIG = { limits: { scratchReserve: 16 * 1024 * 1024 } };
/** Rounds with the same VM; each act comes once. */
export const SERIES = Object.keys(ACTS).length;

/** What the rounds went through, to be summed up. */
export interface BackupTotals extends BackupCounts {
  operations: number;
}

/** One host and one daemon for all rounds. Both are gone after the test's teardown. */
export async function startBackupRig(t: Teardown): Promise<Rig> {
  const host = await startHost(t);
  return { host, daemon: await host.startDaemon(CONFIG) };
}

/**
 * Rounds of one series: a VM of its own, a full backup first, then every act once, in an order that the seed decides.
 * @param rounds of them so many are played, from the first on
 * @param onRound told of each round that went well
 * @throws with what to type to play it again
 */
export async function playSeries(
  rig: Rig,
  seed: string,
  { series, rounds }: { series: number; rounds: number },
  onRound: (round: number, act: string) => void,
): Promise<BackupTotals> {
  const { host } = rig;
  const random = new SeededRandom(seed, 'backups', series);
  const [first = '', ...others] = Object.keys(ACTS);
  const acts = [first, ...shuffled(others, random)].slice(0, rounds);
  const directory = `${host.dir}/backups-${series}`;
  await host.must('mkdir', ['-p', directory]);
  const vm = await BackedUpVm.create(rig, `s${series}`, seed);
  const client = new BackupClient(rig, { vm: vm.name, disks: vm.disks, directory, random });
  const stage: Stage = { ...{ rig, vm, client, random }, restartDaemon: () => restartDaemon(rig) };
  let round = series * SERIES;
  let act = 'start';
  try {
    await vm.start();
    for (act of acts) {
      await ACTS[act as keyof typeof ACTS](stage);
      await tidy(stage);
      onRound(round, act);
      round += 1;
    }
    act = 'end';
    for (const snapshot of [...client.snapshots]) await (await client.deleteSnapshot(snapshot)).finished();
    await vm.stop();
    assert.deepEqual(await leftBehind(host), [], 'nothing is left of the exports');
    assert.deepEqual(await vm.filesLeft(), [], 'nothing is left of snapshots and backups');
    return { ...client.counts, operations: vm.writer.operations };
  } catch (cause) {
    const again = `SEED=${seed} ROUND=${round} npm run test:golden -- backups`;
    const words = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    throw new Error(`Round ${round} (${act}) has failed; once more: ${again}\n${words}`, { cause });
  } finally {
    await vm.remove();
    await host.must('rm', ['-rf', directory]);
  }
}

export function addTotals(one: BackupTotals, other: BackupTotals): BackupTotals {
  return {
    exports: one.exports + other.exports,
    bitmap: one.bitmap + other.bitmap,
    depth: one.depth + other.depth,
    capacity: one.capacity + other.capacity,
    dirty: one.dirty + other.dirty,
    operations: one.operations + other.operations,
  };
}

export const noTotals = (): BackupTotals => ({ ...noCounts(), operations: 0 });

/** As a crash would have it: nothing is put in order before. */
async function restartDaemon(rig: Rig): Promise<void> {
  await rig.daemon.kill('SIGKILL');
  rig.daemon = await rig.host.startDaemon(CONFIG);
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  const left = [...items];
  const order: T[] = [];
  while (left.length > 0) order.push(...left.splice(random.below(left.length), 1));
  return order;
}
