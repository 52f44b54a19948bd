import type { Logger } from 'pino';
import type { PendingThaws } from '../domains/freeze.js';
import { AgentError } from '../errors.js';
import type { EventSink } from '../events/event.js';
import type { BootClock } from '../host/boot-clock.js';
import type { Confinement } from '../host/confine.js';
import type { KeyedLocks } from '../host/locks.js';
import type { FileId } from '../host/open-files.js';
import type { LibvirtClient } from '../libvirt/index.js';
import type { BackupRegistry } from './backup-record.js';
import type { CheckpointRegistry } from './checkpoint-record.js';
import type { DrainGate } from './drain-gate.js';
import type { JobRegistry } from './job-record.js';
import type { RunningJobs } from './running-jobs.js';
import type { SnapshotRegistry } from './snapshot-record.js';

/** What the operations on points in time (backups, checkpoints, snapshots) work with. */
export interface PointsContext {
  libvirt: LibvirtClient;
  /** One lock an export, one a VM for hot-plug, one a VM for points in time: taken in this order. */
  locks: KeyedLocks;
  log: Logger;
  /** What leases are measured by. */
  clock: BootClock;
  backups: BackupRegistry;
  checkpoints: CheckpointRegistry;
  snapshots: SnapshotRegistry;
  jobs: JobRegistry;
  thaws: PendingThaws;
  /** The jobs that this daemon is at work on. */
  running: RunningJobs;
  /** Asked by whatever begins an export or a backup. */
  drains: DrainGate;
  /** The id of a live export that reads one of these files; undefined without one. */
  readerOf(files: readonly FileId[]): string | undefined;
  /** The id of a live export that writes to one of these files; undefined without one. */
  writerOf(files: readonly FileId[]): string | undefined;
  /** Told what has happened, once it is on record. */
  events: EventSink;
  points: PointsSettings;
}

export interface PointsSettings {
  /** Directory of run-time files: a backup's socket lies in `backups/<id>/` below it. */
  run: string;
  /** Directory of scratch files. */
  scratch: string;
  allowedRoots: readonly string[];
  /** How the programs that open images are confined; null where the daemon can confine nothing. */
  confinement: Confinement | null;
  /** The account that QEMU runs as: it makes the backup's socket. */
  qemuUser: string;
  /** Free bytes on the file system of the scratch files under which no backup begins, and below a quarter of which it ends. */
  scratchReserve: number;
  /** Milliseconds that what is half-way has, by state (`[limits] stateSeconds`). */
  stateMs: StateDeadlines;
  /** Seconds that a lease has at most; 0: no limit. */
  maxLease: number;
  /** Bytes per second that a merge writes at most; 0: as fast as it goes. */
  mergeRate: number;
}

/** Milliseconds; `[limits] stateSeconds` says what each is for. */
export interface StateDeadlines {
  recovery: number;
  halfWay: number;
  detach: number;
  leaseEnd: number;
  libvirtAway: number;
  frozen: number;
}

/** Who calls, and how long it may take. */
export interface PointsCall {
  owner: string;
  /** Fires at the verb's deadline. */
  signal: AbortSignal;
}

/** The lock of a VM's points in time. */
export const pointsLock = (uuid: string): string => `points ${uuid}`;

/** Milliseconds that a second operation on a VM's points in time waits before it is told who is busy. */
const BUSY_MS = 800;
/** The same where the first is one of the same kind that is over in a moment: it is the machine that is busy then. */
const TURN_MS = 30_000;

/**
 * How the holders end that make or drop the checkpoint of one disk of a VM that is off: clients prepare and tear down
 * its disks at the same time, so these take turns.
 */
export const IN_TURN = ', for its checkpoint,';

/**
 * Runs `work` as the one operation on a VM's points in time.
 * @param holder who it is, by verb and id, for the message that others get: `startBackup "b1"`
 * @param yieldsTo how the holders end that are over in a moment, so that it takes its turn after them
 * @throws AgentError `BackupBusy`, within a second, naming the holder
 */
export async function exclusively<T>(
  { locks }: Pick<PointsContext, 'locks'>,
  vm: { uuid: string; name: string },
  holder: string,
  work: () => Promise<T>,
  yieldsTo?: string,
): Promise<T> {
  const key = pointsLock(vm.uuid);
  const before = locks.holder(key) ?? 'another operation';
  const patience = yieldsTo !== undefined && before.endsWith(yieldsTo) ? TURN_MS : BUSY_MS;
  let begun = false;
  try {
    return await locks.run(key, holder, AbortSignal.timeout(patience), () => {
      begun = true;
      return work();
    });
  } catch (error) {
    if (begun) throw error;
    throw new AgentError(
      'BackupBusy',
      `${before} is at work on ${vm.name}, and a VM has one such operation at a time; try again when it has ended.`,
      { vmId: vm.uuid, cause: error },
    );
  }
}
