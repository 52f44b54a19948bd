import { chmod } from 'node:fs/promises';
import { backupXml, beginBackup, checkpointXml, UntrustedBitmap } from '../domains/backup-job.js';
import type { DomainDisk } from '../domains/config.js';
import { type Quiesce, withFrozenGuest } from '../domains/freeze.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { setSocketAccess } from '../host/socket-access.js';
import { BACKUP_RECORD_VERSION, type BackupDiskRecord, type BackupRecord } from './backup-record.js';
import { planCheckpoint, refuseTakenName, rememberCheckpoint } from './checkpoint-life.js';
import type { CheckpointRecord } from './checkpoint-record.js';
import { type DiskNow, trustCheckpoint } from './checkpoint-trust.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { diskNow, isTrackable } from './disk-now.js';
import { refuseSecondJob } from './refuse-second-job.js';
import { backupFiles, makeBackupFiles } from './scratch.js';
import { finishBackup } from './stop-backup.js';

/** One disk that is wanted in a backup. */
export interface WantedDisk {
  disk: DomainDisk;
  since: string | null;
  ifUntracked: 'fail' | 'full';
  exportName: string;
}

/** A backup job that is wanted. */
export interface WantedBackup {
  backupId: string;
  /** The params as canonical text. */
  request: string;
  exportId: string | null;
  disks: WantedDisk[];
  checkpoint: string | null;
  quiesce: Quiesce;
}

/** Milliseconds that taking a failed start back may take; the verb's own deadline may have passed by then. */
const UNDO_MS = 60_000;

type PlannedDisk = BackupDiskRecord & { now: DiskNow; ifUntracked: 'fail' | 'full' };

/**
 * Begins a pull-mode backup of a running VM's disks at one instant, with a checkpoint at the same instant where one is
 * wanted and a disk can have it. Written down before anything is made; taken back whole where a step fails.
 * @throws AgentError
 */
export async function beginPointInTime(
  context: PointsContext,
  state: DomainState,
  wanted: WantedBackup,
  call: PointsCall,
): Promise<BackupRecord> {
  const vm = { uuid: state.domain.uuid, name: state.domain.name };
  return exclusively(context, vm, `startBackup ${wanted.backupId}`, async () => {
    await refuseSecondJob(context, state, call.signal);
    try {
      return await begin(context, state, wanted, call);
    } catch (error) {
      await takeBack(context, wanted.backupId);
      throw error;
    }
  });
}

/** Takes back what was begun. What cannot be now stays on record, for the watch to end later. */
async function takeBack(context: PointsContext, backupId: string): Promise<void> {
  const { backups, log } = context;
  const record = backups.find(backupId);
  if (record === undefined) return;
  try {
    await finishBackup(context, record, 'failed', AbortSignal.timeout(UNDO_MS));
    await backups.remove(backupId);
  } catch (cause) {
    log.error({ backupId, err: cause }, 'a backup that could not be begun could not be taken back yet');
  }
}

async function begin(
  context: PointsContext,
  state: DomainState,
  wanted: WantedBackup,
  { owner, signal }: PointsCall,
): Promise<BackupRecord> {
  const { backups, points } = context;
  const { backupId } = wanted;
  const { domain } = state;
  const files = backupFiles(points, backupId);
  const planned: PlannedDisk[] = [];
  for (const disk of wanted.disks) planned.push(await planDisk(context, state, disk, files.scratch, signal));
  const tracked = planned.filter((disk) => disk.tracked);
  const withCheckpoint = wanted.checkpoint !== null && tracked.length > 0 ? wanted.checkpoint : null;
  if (withCheckpoint !== null) await refuseTakenName(context, state, withCheckpoint, signal);
  const record = await backups.save({
    version: BACKUP_RECORD_VERSION,
    kind: 'backup',
    created: new Date().toISOString(),
    ended: null,
    backupId,
    request: wanted.request,
    owner,
    exportId: wanted.exportId,
    vm: { uuid: domain.uuid, name: domain.name },
    state: 'starting',
    error: null,
    socket: files.socket,
    quiesce: wanted.quiesce,
    quiesced: false,
    disks: planned.map(recordOf),
    checkpoint: withCheckpoint,
    decided: null,
    outcome: null,
  });
  let checkpoint: CheckpointRecord | null = null;
  if (withCheckpoint !== null) {
    const by =
      wanted.exportId === null
        ? { kind: 'backup' as const, id: backupId }
        : { kind: 'export' as const, id: wanted.exportId };
    const disks = tracked.map(({ target, now }) => ({ target, ...now }));
    checkpoint = await planCheckpoint(context, state, withCheckpoint, by, disks, signal);
  }
  await makeBackupFiles(points, backupId);
  const { result: disks, quiesced } = await withFrozenGuest(context, domain, wanted.quiesce, signal, () =>
    beginTrusting(context, state, planned, { socket: files.socket, checkpoint }, signal),
  );
  // QEMU made the socket for all to see behind a directory that let nobody in: now it lets root in alone.
  await setSocketAccess(files.socket, { user: null, group: null });
  await chmod(files.dir, 0o711);
  if (checkpoint !== null) checkpoint = await rememberCheckpoint(context, state, checkpoint, signal);
  return backups.save({ ...record, state: 'running', quiesced, disks: disks.map(recordOf) });
}

function recordOf({ now: _now, ifUntracked: _ifUntracked, ...disk }: PlannedDisk): BackupDiskRecord {
  return disk;
}

async function planDisk(
  context: PointsContext,
  state: DomainState,
  { disk, since, ifUntracked, exportName }: WantedDisk,
  scratchDir: string,
  signal: AbortSignal,
): Promise<PlannedDisk> {
  const now = await diskNow(context.libvirt, state, disk, context.points.allowedRoots, signal);
  const planned: PlannedDisk = {
    target: disk.target,
    path: disk.source.path ?? '',
    capacity: now.capacity,
    mode: 'full',
    since: null,
    reason: null,
    tracked: await isTrackable(disk, context.points.allowedRoots),
    exportName,
    scratch: `${scratchDir}/${disk.target}`,
    now,
    ifUntracked,
  };
  if (since === null) return planned;
  try {
    await trustCheckpoint(context, state, disk, { ...now, format: disk.source.format }, since, signal);
    return { ...planned, mode: 'incremental', since };
  } catch (error) {
    return fullInstead(planned, error);
  }
}

/** The disk as a full one, with the reason, where the caller allows that. @throws the error where not */
function fullInstead(disk: PlannedDisk, error: unknown): PlannedDisk {
  const overridable = error instanceof AgentError && error.name !== 'CheckpointPending';
  if (!overridable || disk.ifUntracked !== 'full') throw error;
  return { ...disk, mode: 'full', since: null, reason: { name: error.name, message: error.message } };
}

/**
 * Begins the job. A disk whose bitmap libvirt does not trust is made full where the caller allows that, and the job
 * begun again: at most once a disk.
 */
async function beginTrusting(
  { libvirt }: PointsContext,
  { domain, config }: DomainState,
  planned: readonly PlannedDisk[],
  { socket, checkpoint }: { socket: string; checkpoint: CheckpointRecord | null },
  signal: AbortSignal,
): Promise<PlannedDisk[]> {
  let disks = [...planned];
  const covered = checkpoint?.disks.map(({ target }) => target) ?? [];
  const checkpointPart = checkpoint === null ? null : checkpointXml(checkpoint.checkpoint, covered, config);
  for (;;) {
    try {
      await beginBackup(
        libvirt,
        domain,
        { backup: backupXml(socket, disks, config), checkpoint: checkpointPart },
        signal,
      );
      return disks;
    } catch (error) {
      if (!(error instanceof UntrustedBitmap)) throw error;
      const { target } = error;
      const meant = (disk: PlannedDisk) => disk.since !== null && (target === null || disk.target === target);
      if (!disks.some(meant)) throw error;
      disks = disks.map((disk) => (meant(disk) ? fullInstead(disk, error) : disk));
    }
  }
}
