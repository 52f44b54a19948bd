import type { Quiesce } from '../domains/freeze.js';
import type { Cause } from '../errors.js';
import type { LeaseRecord } from '../host/lease.js';
import {
  callersId,
  cause,
  count,
  endedCheckpoint,
  flag,
  lease,
  listOf,
  matching,
  nullable,
  object,
  oneOf,
  path,
  text,
  time,
  vm,
  withRule,
} from '../host/record-shape.js';
import { endsInState, type LivingRecord, Registry } from '../host/registry.js';

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
  /** Null: until it is stopped, or with its export where it is that's own. */
  lease: LeaseRecord | null;
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

/** What decides over the checkpoint of a backup: the backup itself, or the export that it was begun for. */
export function decidedBy({ backupId, exportId }: Pick<BackupRecord, 'backupId' | 'exportId'>): {
  kind: 'backup' | 'export';
  id: string;
} {
  return exportId === null ? { kind: 'backup', id: backupId } : { kind: 'export', id: exportId };
}

/** What an event tells of the backup that it is about. */
export function ofBackup({ backupId, owner, vm }: Pick<BackupRecord, 'backupId' | 'owner' | 'vm'>) {
  return { backupId, owner, vmId: vm.uuid };
}

/** A caller's id, or that of an export with `_` before it. It names the directories that are removed in the end. */
export const backupIdShape = matching(/^_?[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/, 'is not the id of a backup');

const backupShape = withRule(
  object<BackupRecord>({
    version: oneOf(BACKUP_RECORD_VERSION),
    kind: oneOf('backup'),
    created: time,
    ended: nullable(time),
    backupId: backupIdShape,
    request: text,
    owner: text,
    exportId: nullable(callersId),
    vm,
    lease,
    state: oneOf('starting', 'running', 'failed', 'ending', 'ended'),
    error: nullable(cause),
    socket: path,
    quiesce: oneOf('no', 'try', 'require'),
    quiesced: flag,
    disks: listOf(
      object<BackupDiskRecord>({
        target: text,
        path,
        capacity: count,
        mode: oneOf('full', 'incremental'),
        since: nullable(text),
        reason: nullable(cause),
        tracked: flag,
        exportName: text,
        scratch: path,
      }),
    ),
    checkpoint: nullable(text),
    decided: nullable(oneOf('success', 'failed')),
    outcome: nullable(endedCheckpoint),
  }),
  (record) =>
    endsInState(record) ??
    nameFault(record) ??
    (record.socket.endsWith(`/backups/${record.backupId}/nbd.sock`)
      ? undefined
      : 'socket is not in the directory of the backup'),
);

/** No caller's id begins with `_`: it tells whose backup it is. */
function nameFault({ backupId, exportId }: BackupRecord): string | undefined {
  if (exportId === null ? !backupId.startsWith('_') : backupId === `_${exportId}`) return undefined;
  return 'backupId and exportId do not fit together';
}

export type BackupRegistry = Registry<BackupRecord>;

export function backupRegistry(state: string): BackupRegistry {
  return new Registry<BackupRecord>(state, {
    folder: 'backups',
    kind: 'backup',
    version: BACKUP_RECORD_VERSION,
    idOf: ({ backupId }) => backupId,
    shape: backupShape,
    remains: (record) => ({ ...record, request: '', disks: [] }),
  });
}

/**
 * A backup by the id that callers know: where one export alone is made of it, that export's.
 * @param asBackup what stands before the id of a backup of `startBackup`
 * @param asExport what stands before the id of an export
 */
export function calledAs(
  { backupId, exportId }: Pick<BackupRecord, 'backupId' | 'exportId'>,
  asBackup: string,
  asExport: string,
): string {
  return exportId === null ? `${asBackup} "${backupId}"` : `${asExport} "${exportId}"`;
}

/** The same as a noun: `the backup "b1"`. */
export const nameOf = (record: Pick<BackupRecord, 'backupId' | 'exportId'>): string =>
  calledAs(record, 'the backup', 'the export');
