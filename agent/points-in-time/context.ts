import type { Logger } from 'pino';
import type { PendingThaws } from '../domains/freeze.js';
import { AgentError } from '../errors.js';
import type { KeyedLocks } from '../host/locks.js';
import type { FileId } from '../host/open-files.js';
import type { LibvirtClient } from '../libvirt/index.js';
import type { BackupRegistry } from './backup-record.js';
import type { CheckpointRegistry } from './checkpoint-record.js';
import type { JobRegistry } from './job-record.js';
import type { RunningJobs } from './running-jobs.js';
import type { SnapshotRegistry } from './snapshot-record.js';

/** What the operations on points in time (backups, checkpoints, snapshots) work with. */
export interface PointsContext {
  libvirt: LibvirtClient;
  /** One lock an export, one a VM for hot-plug, one a VM for points in time: taken in this order. */
  locks: KeyedLocks;
  log: Logger;
  backups: BackupRegistry;
  checkpoints: CheckpointRegistry;
  snapshots: SnapshotRegistry;
  jobs: JobRegistry;
  thaws: PendingThaws;
  /** The jobs that this daemon is at work on. */
  running: RunningJobs;
  /** The id of a live export that reads one of these files; undefined without one. */
  readerOf(files: readonly FileId[]): string | undefined;
  points: PointsSettings;
}

export interface PointsSettings {
  /** Directory of run-time files: a backup's socket lies in `backups/<id>/` below it. */
  run: string;
  /** Directory of scratch files. */
  scratch: string;
  allowedRoots: readonly string[];
  /** The account that QEMU runs as: it makes the backup's socket. */
  qemuUser: string;
  /** Free bytes on the file system of the scratch files under which no backup begins, and below a quarter of which it ends. */
  scratchReserve: number;
  /** Bytes per second that a merge writes at most; 0: as fast as it goes. */
  mergeRate: number;
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

/**
 * Runs `work` as the one operation on a VM's points in time.
 * @param holder who it is, for the message that others get: `startBackup b1`
 * @throws AgentError `BackupBusy`, within a second, naming the holder
 */
export async function exclusively<T>(
  { locks }: Pick<PointsContext, 'locks'>,
  vm: { uuid: string; name: string },
  holder: string,
  work: () => Promise<T>,
): Promise<T> {
  const key = pointsLock(vm.uuid);
  const before = locks.holder(key) ?? 'another operation';
  let begun = false;
  try {
    return await locks.run(key, holder, AbortSignal.timeout(BUSY_MS), () => {
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
