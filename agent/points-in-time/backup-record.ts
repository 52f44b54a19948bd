import type { Quiesce } from '../domains/freeze.js';
import type { Cause } from '../errors.js';
import { type LivingRecord, Registry } from '../host/registry.js';

export const BACKUP_RECORD_VERSION = 1;

/** One disk of a backup. */
export interface BackupDiskRecord {
  target: string;
  path: string;
  /** Bytes. */
  capacity: number;
  mode: 'full' | 'incremental';
  /** The checkpoint that the map counts from; null in a full one. */
  since: string | null;
  /** Why it is full although `since` was given. */
  reason: Cause | null;
  /** Whether a checkpoint can cover it. */
  tracked: boolean;
  /** Its NBD export name at QEMU's server. */
  exportName: string;
  /** The scratch file, which libvirt makes and removes. */
  scratch: string;
}

/** A libvirt pull-mode backup job of ours, written down before it is begun. */
export interface BackupRecord extends LivingRecord {
  version: typeof BACKUP_RECORD_VERSION;
  kind: 'backup';
  backupId: string;
  /** The params after defaults, the VM by its UUID, as canonical text: what a retry is compared with. */
  request: string;
  owner: string;
  /** The export that the job was begun for, where `prepareBackupDisk` did; null for `startBackup`. */
  exportId: string | null;
  vm: { uuid: string; name: string };
  state: 'starting' | 'running' | 'failed' | 'ending' | 'ended';
  error: Cause | null;
  /** QEMU's NBD server, and what tells the job from another's. */
  socket: string;
  /** What was asked for: a daemon that dies in mid-start may leave a frozen guest behind. */
  quiesce: Quiesce;
  quiesced: boolean;
  disks: BackupDiskRecord[];
  checkpoint: string | null;
  /** What its end was told, from the first step of the end on: a crash in between changes nothing of it. */
  decided: 'success' | 'failed' | null;
  /** What its end decided, for a retry of it. */
  outcome: { id: string; state: 'kept' | 'deleted' } | null;
}

export type BackupRegistry = Registry<BackupRecord>;

export function backupRegistry(state: string): BackupRegistry {
  return new Registry<BackupRecord>(
    state,
    { folder: 'backups', kind: 'backup', version: BACKUP_RECORD_VERSION },
    ({ backupId }) => backupId,
  );
}
