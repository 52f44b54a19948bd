import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type {
  ConfirmCheckpointResult,
  CreateSnapshotResult,
  JobRow,
  PrepareBackupDiskResult,
  StartBackupResult,
  StopBackupResult,
  TeardownBackupDiskResult,
} from '../../agent/api/generated.js';
import { poll } from '../host/poll.js';
import type { BackedUpDisk } from './backup-disks.js';
import type { Rig } from './map-checks.js';
import { assertGivesDisk, assertKind, type Held, type HeldSnapshot } from './point-checks.js';
import { SeededRandom } from './random.js';

const JOB_DEADLINE_MS = 180_000;

/** What the client counts from on a disk; undefined: a full run. */
export type Since = (disk: BackedUpDisk) => Held | undefined;

/** How often this and that was seen, to be summed up. */
export interface BackupCounts {
  /** Exports whose map was held against the point in time. */
  exports: number;
  /** Incremental maps by where they came from. */
  bitmap: number;
  depth: number;
  /** Capacity of the disks with incremental maps, and how much of it had to be read or zeroed. Bytes. */
  capacity: number;
  dirty: number;
}

export const noCounts = (): BackupCounts => ({ exports: 0, bitmap: 0, depth: 0, capacity: 0, dirty: 0 });

export interface LiveOptions {
  since: Since;
  /** Default success. */
  outcome?: 'success' | 'failed';
  /** A map must come incremental where there is something to count from; `full`: none can be had. */
  expect?: 'incremental' | 'full';
  /** When the point in time is fixed and exported, before it is read. */
  meanwhile?: (exported: readonly PrepareBackupDiskResult[]) => Promise<void>;
}

/** What came of a run: the states of the disks, and the maps. */
export interface Run {
  states: Map<string, string>;
  maps: Map<string, PrepareBackupDiskResult['cbt']>;
  checkpoint: string;
}

/** What is asked of the exports of a run, besides the disks and what each counts from. */
interface ExportPlan {
  /** Params of `prepareBackupDisk` besides VM and disk. */
  params: (disk: BackedUpDisk) => object;
  expect: 'incremental' | 'full';
  by?: 'bitmap' | 'depth';
  meanwhile?: NonNullable<LiveOptions['meanwhile']>;
  /** Where the exports' end decides over a checkpoint: how, and the answer. */
  ended?: { outcome: 'success'; checkpoint: TeardownBackupDiskResult['checkpoint'] };
}

/**
 * The model of a backup client: it keeps what it read at each checkpoint and snapshot, and holds every map against the
 * point in time. What it has from before, with what the map says to read laid over it, must be the disk as a copy of
 * the whole export shows it, byte for byte.
 */
export class BackupClient {
  /** Those called good, oldest first. */
  checkpoints: Held[] = [];
  /** Those that were not deleted, oldest first. */
  snapshots: HeldSnapshot[] = [];
  readonly counts = noCounts();
  readonly #rig: Rig;
  readonly #vm: string;
  readonly #disks: readonly BackedUpDisk[];
  readonly #directory: string;
  readonly #random: SeededRandom;
  #ids = 0;

  constructor(
    rig: Rig,
    options: {
      vm: string;
      disks: readonly BackedUpDisk[];
      /** For the states. */
      directory: string;
      random: SeededRandom;
    },
  ) {
    this.#rig = rig;
    this.#vm = options.vm;
    this.#disks = options.disks;
    this.#directory = options.directory;
    this.#random = options.random;
  }

  /** The newest checkpoint that has the disk. */
  readonly latest: Since = ({ target }) => this.checkpoints.findLast(({ states }) => states.has(target));

  /** Any checkpoint that has the disk but the newest; the newest where there is no other. */
  readonly older: Since = (disk) => {
    const having = this.checkpoints.filter(({ states }) => states.has(disk.target));
    const others = having.slice(0, -1);
    return others[this.#random.below(others.length)] ?? having.at(-1);
  };

  /** The newest checkpoint that has the disk, of those older than the snapshot. */
  before(snapshot: Held): Since {
    return ({ target }) =>
      this.checkpoints.findLast(({ states, at }) => at < snapshot.at && states.has(target));
  }

  #id(kind: string): string {
    this.#ids += 1;
    return `${this.#vm}-${kind}${this.#ids}`;
  }

  /** One point in time of all disks of the running VM, by a backup job. */
  async live({
    since: wanted,
    outcome = 'success',
    expect = 'incremental',
    meanwhile,
  }: LiveOptions): Promise<Run> {
    const since = fixed(this.#disks, wanted);
    const [backupId, checkpoint] = [this.#id('backup'), this.#id('checkpoint')];
    const started = await this.#call<StartBackupResult>('startBackup', {
      ...{ backupId, vmId: this.#vm, checkpoint, quiesce: 'no' },
      disks: this.#disks.map((disk) => ({ disk: disk.target, ...this.#sinceOf(disk, since(disk), expect) })),
    });
    assert.deepEqual(
      started.disks.map(({ disk, tracked }) => [disk, tracked]),
      this.#disks.map((disk) => [disk.target, this.isTracked(disk)]),
      'which disks a checkpoint can cover',
    );
    const run = await this.#export(this.#disks, since, {
      params: () => ({ backupId }),
      expect,
      ...(meanwhile && { meanwhile }),
    });
    const stopped = await this.#call<StopBackupResult>('stopBackup', { backupId, outcome });
    assert.deepEqual(stopped.checkpoint, {
      id: checkpoint,
      state: outcome === 'success' ? 'kept' : 'deleted',
    });
    if (outcome === 'success') this.#hold(checkpoint, run.states);
    return { ...run, checkpoint };
  }

  /**
   * One disk by itself, with a checkpoint where it can have one: of a running VM by a backup job of the export's own, of
   * one that is off as its image is.
   */
  async alone(
    disk: BackedUpDisk,
    wanted: Since,
    { expect = 'incremental' }: Pick<LiveOptions, 'expect'> = {},
  ): Promise<Run> {
    const since = fixed([disk], wanted);
    const checkpoint = this.#id('checkpoint');
    const tracked = this.isTracked(disk);
    const run = await this.#export([disk], since, {
      params: () => ({ ...this.#sinceOf(disk, since(disk), expect), ...(tracked && { checkpoint }) }),
      expect,
      ended: { outcome: 'success', checkpoint: tracked ? { id: checkpoint, state: 'kept' } : null },
    });
    if (tracked) this.#hold(checkpoint, run.states);
    return { ...run, checkpoint };
  }

  /** Freezes all disks of the running VM; more often than not with a checkpoint, just before. */
  async createSnapshot(): Promise<HeldSnapshot> {
    const snapshotId = this.#id('snapshot');
    const checkpoint = this.#random.chance(0.6) ? this.#id('checkpoint') : undefined;
    const disks = this.#disks.filter((disk) => this.isTracked(disk));
    const made = await this.#call<CreateSnapshotResult>('createSnapshot', {
      ...{ snapshotId, vmId: this.#vm, quiesce: 'no' },
      ...(checkpoint !== undefined && { checkpoint }),
    });
    assert.equal(made.checkpoint, checkpoint);
    const pending = checkpoint === undefined ? null : { name: checkpoint, disks };
    const snapshot = { name: snapshotId, states: new Map<string, string>(), at: this.#ids, pending };
    this.snapshots.push(snapshot);
    return snapshot;
  }

  /**
   * Reads what a snapshot froze, of all disks at once, and then says what is to become of its checkpoint. `depth`: since
   * a snapshot, and not since a checkpoint.
   */
  async readSnapshot(snapshot: HeldSnapshot, wanted: Since, by: 'bitmap' | 'depth' = 'bitmap'): Promise<Run> {
    const since = fixed(this.#disks, wanted);
    const snapshotId = snapshot.name;
    const run = await this.#export(this.#disks, since, {
      params: (disk) => {
        const from = since(disk);
        if (by === 'bitmap') return { snapshotId, ...this.#sinceOf(disk, from, 'incremental') };
        return { snapshotId, ...(from !== undefined && { since: { snapshot: from.name } }) };
      },
      expect: 'incremental',
      by,
    });
    if (snapshot.states.size === 0) snapshot.states = run.states;
    await this.#confirm(snapshot);
    return { ...run, checkpoint: '' };
  }

  /** Begins to merge a snapshot away. `finished` waits for it, over a restart of the daemon, too. */
  async deleteSnapshot(snapshot: Held): Promise<{ finished: () => Promise<void> }> {
    const { jobId } = await this.#call<{ jobId: string }>('deleteSnapshot', {
      vmId: this.#vm,
      snapshotId: snapshot.name,
    });
    return {
      finished: async () => {
        await this.#jobDone(jobId);
        this.snapshots = this.snapshots.filter((held) => held !== snapshot);
      },
    };
  }

  /** Lets go of a checkpoint, and of the states with it. */
  async deleteCheckpoint(held: Held): Promise<void> {
    await this.#call('deleteCheckpoint', { vmId: this.#vm, checkpoint: held.name });
    this.forget(held);
  }

  forget(held: Held): void {
    this.checkpoints = this.checkpoints.filter((checkpoint) => checkpoint !== held);
  }

  /** Whether a checkpoint can cover the disk: not what lies in a raw image, but its overlay is qcow2. */
  isTracked({ format }: BackedUpDisk): boolean {
    return format === 'qcow2' || this.snapshots.length > 0;
  }

  #sinceOf(disk: BackedUpDisk, from: Held | undefined, expect: 'incremental' | 'full'): object {
    if (from === undefined) return {};
    // A raw disk loses its bitmaps with the overlay that they are in.
    const ifUntracked = expect === 'full' || disk.format === 'raw' ? 'full' : 'fail';
    return { since: { checkpoint: from.name }, ifUntracked };
  }

  /** From a checkpoint that was made just before a snapshot, what the snapshot froze counts as the state. */
  async #confirm(snapshot: HeldSnapshot): Promise<void> {
    const { pending } = snapshot;
    if (pending === null) return;
    const outcome = this.#random.chance(0.8) ? 'success' : 'failed';
    const confirmed = await this.#call<ConfirmCheckpointResult>('confirmCheckpoint', {
      ...{ vmId: this.#vm, checkpoint: pending.name, outcome },
    });
    const state = outcome === 'success' ? 'kept' : 'deleted';
    assert.deepEqual(confirmed.checkpoint, { id: pending.name, state });
    if (outcome === 'success') this.#hold(pending.name, snapshot.states, pending.disks, snapshot.at);
    snapshot.pending = null;
  }

  #hold(
    name: string,
    states: Map<string, string>,
    tracked: readonly BackedUpDisk[] = this.#disks.filter((disk) => this.isTracked(disk)),
    at = this.#ids,
  ): void {
    const held = tracked.flatMap(({ target }) => {
      const state = states.get(target);
      return state === undefined ? [] : [[target, state] as const];
    });
    this.checkpoints.push({ name, at, states: new Map(held) });
  }

  /** Exports disks side by side, holds each against the point in time, and ends the exports. */
  async #export(
    disks: readonly BackedUpDisk[],
    since: Since,
    { params, expect, by = 'bitmap', meanwhile, ended }: ExportPlan,
  ): Promise<Omit<Run, 'checkpoint'>> {
    const asked = disks.map((disk) => ({
      ...{ exportId: randomUUID(), vmId: this.#vm, disk: disk.target, inlineExtents: 10_000 },
      ...params(disk),
    }));
    const prepared = await Promise.all(
      asked.map((call) => this.#call<PrepareBackupDiskResult>('prepareBackupDisk', call)),
    );
    await meanwhile?.(prepared);
    const states = new Map<string, string>();
    const maps = new Map<string, PrepareBackupDiskResult['cbt']>();
    await Promise.all(
      prepared.map(async (result, index) => {
        const disk = disks[index];
        if (disk === undefined) throw new Error('an export without a disk');
        const from = since(disk);
        assertKind(disk, result, { from, mode: expect, origin: by });
        const copy = `${this.#directory}/${disk.target}-${result.exportId}`;
        // A generator of its own: what is done side by side must not share one.
        const random = new SeededRandom(this.#random.below(2 ** 32));
        await assertGivesDisk(this.#rig, disk, result, { from, copy, random });
        states.set(disk.target, copy);
        maps.set(disk.target, result.cbt);
        this.#count(disk, result.cbt);
      }),
    );
    for (const { exportId } of prepared) {
      const outcome = ended && { outcome: ended.outcome };
      const answer = await this.#call<TeardownBackupDiskResult>('teardownBackupDisk', {
        exportId,
        ...outcome,
      });
      assert.deepEqual(answer.checkpoint, ended?.checkpoint ?? null);
    }
    return { states, maps };
  }

  #count({ capacity }: BackedUpDisk, { mode, origin, changedBytes }: PrepareBackupDiskResult['cbt']): void {
    this.counts.exports += 1;
    if (mode === 'full' || origin === 'allocation') return;
    this.counts[origin] += 1;
    this.counts.capacity += capacity;
    this.counts.dirty += changedBytes ?? 0;
  }

  async #jobDone(jobId: string): Promise<void> {
    await poll('the merge to end', JOB_DEADLINE_MS, async () => {
      const job = await this.#call<JobRow>('getJob', { jobId });
      if (job.state !== 'done') assert.equal(job.state, 'running', job.error?.message);
      return job.state === 'done';
    });
  }

  #call<Result>(method: string, params: object): Promise<Result> {
    return this.#rig.daemon.call<Result>(method, params);
  }
}

/** The same choice however often it is asked for. */
function fixed(disks: readonly BackedUpDisk[], since: Since): Since {
  const chosen = new Map(disks.map((disk) => [disk.target, since(disk)]));
  return ({ target }) => chosen.get(target);
}
