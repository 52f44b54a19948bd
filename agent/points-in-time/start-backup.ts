import { chmod } from 'node:fs/promises';
import { backupXml, beginBackup, checkpointXml, UntrustedBitmap } from '../domains/backup-job.js';
import type { DomainDisk } from '../domains/config.js';
import { findDisks } from '../domains/disks.js';
import { type Quiesce, withFrozenGuest } from '../domains/freeze.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { AgentError, type Cause } from '../errors.js';
import { beginLease } from '../host/lease.js';
import { setSocketAccess } from '../host/socket-access.js';
import {
  BACKUP_RECORD_VERSION,
  type BackupDiskRecord,
  type BackupRecord,
  calledAs,
  decidedBy,
  ofBackup,
} from './backup-record.js';
import { planCheckpoint, refuseTakenName, rememberCheckpoint } from './checkpoint-life.js';
import type { CheckpointRecord } from './checkpoint-record.js';
import { type DiskNow, trustCheckpoint } from './checkpoint-trust.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { diskNow, isTrackable } from './disk-now.js';
import { refuseBusy } from './refuse-busy.js';
import { backupFiles, makeBackupFiles } from './scratch.js';
import { takeBackBackup } from './stop-backup.js';

/** One disk that is wanted in a backup. */
export interface WantedDisk {
  /** Its target, alias or serial. */
  disk: string;
  since: string | null;
  ifUntracked: 'fail' | 'full';
  /** Why its map is full although less was asked for, where that is known beforehand. */
  reason?: Cause;
  /** Null: as its target. */
  exportName: string | null;
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
  /** Null: until it is ended. */
  leaseSeconds: number | null;
}

/** What was wanted, found in the VM. */
type FoundDisk = Omit<WantedDisk, 'disk'> & { disk: DomainDisk };
type FoundBackup = Omit<WantedBackup, 'disks'> & { disks: FoundDisk[] };
type PlannedDisk = BackupDiskRecord & { now: DiskNow; ifUntracked: 'fail' | 'full' };

/**
 * Begins a pull-mode backup of a running VM's disks at one instant, with a checkpoint at the same instant where one is
 * wanted and a disk can have it. Written down before anything is made; taken back whole where a step fails.
 * @throws AgentError
 */
export async function beginPointInTime(
  context: PointsContext,
  vm: { uuid: string; name: string },
  wanted: WantedBackup,
  call: PointsCall,
): Promise<BackupRecord> {
  const refuseDrained = context.drains.refuse({ vmId: vm.uuid });
  return exclusively(context, vm, calledAs(wanted, 'startBackup', 'prepareBackupDisk'), async () => {
    const left = context.backups.find(wanted.backupId);
    if (left?.state === 'starting') await takeBackBackup(context, left, call.signal); // of a call that failed
    // Only now: a snapshot that was waited for has changed what the disks lie in.
    const state = await readDomain(context.libvirt, vm.uuid, call.signal);
    const found = { ...wanted, disks: findRunning(state, wanted.disks) };
    await refuseBusy(context, state.domain, `begin a backup of ${vm.name}`, call.signal);
    try {
      return await begin(context, state, found, call, refuseDrained);
    } catch (error) {
      await takeBack(context, wanted.backupId);
      throw error;
    }
  });
}

/** @throws AgentError `VMNotRunning`; as `findDisks` */
function findRunning(state: DomainState, wanted: readonly WantedDisk[]): FoundDisk[] {
  const { domain, running } = state;
  if (!running) {
    throw new AgentError(
      'VMNotRunning',
      `${domain.name} does not run, so nothing writes to its disks; prepare them one by one without a backup.`,
      { vmId: domain.uuid },
    );
  }
  const names = wanted.map(({ disk }) => disk);
  const disks = findDisks(state, names, (index) => `/disks/${index}/disk`);
  return wanted.map((one, index) => ({ ...one, disk: disks[index] as DomainDisk }));
}

/** Takes back what was begun. What cannot be now stays on record, for the watch to end later. */
async function takeBack(context: PointsContext, backupId: string): Promise<void> {
  const { backups, log, points } = context;
  const record = backups.find(backupId);
  if (record === undefined) return;
  try {
    // The verb's own deadline may have passed by now.
    await takeBackBackup(context, record, AbortSignal.timeout(points.stateMs.halfWay));
  } catch (cause) {
    log.error({ backupId, err: cause }, 'a backup that could not be begun could not be taken back yet');
  }
}

async function begin(
  context: PointsContext,
  state: DomainState,
  wanted: FoundBackup,
  { owner, signal }: PointsCall,
  refuseDrained: () => void,
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
    lease: wanted.leaseSeconds === null ? null : beginLease(context.clock, wanted.leaseSeconds),
    socket: files.socket,
    quiesce: wanted.quiesce,
    quiesced: false,
    disks: planned.map(recordOf),
    checkpoint: withCheckpoint,
    decided: null,
    outcome: null,
  });
  refuseDrained();
  let checkpoint: CheckpointRecord | null = null;
  if (withCheckpoint !== null) {
    const disks = tracked.map(({ target, now }) => ({ target, ...now }));
    checkpoint = await planCheckpoint(context, state, withCheckpoint, decidedBy(wanted), disks, signal);
  }
  await makeBackupFiles(points, backupId);
  const { result: disks, quiesced } = await withFrozenGuest(
    context,
    domain,
    wanted.quiesce,
    signal,
    (_, within) => beginTrusting(context, state, planned, { socket: files.socket, checkpoint }, within),
  );
  await openSocket(files, domain);
  if (checkpoint !== null) checkpoint = await rememberCheckpoint(context, state, checkpoint, signal);
  const running = await backups.save({ ...record, state: 'running', quiesced, disks: disks.map(recordOf) });
  tellStarted(context, running);
  return running;
}

/** What one export alone is made of is told as that. */
function tellStarted({ events }: PointsContext, { exportId, ...record }: BackupRecord): void {
  if (exportId !== null) return;
  const { quiesced, checkpoint } = record;
  const disks = record.disks.map(({ target }) => target);
  events.emit({ kind: 'backupStarted', ...ofBackup(record), disks, quiesced, checkpoint });
}

function recordOf({ now: _now, ifUntracked: _ifUntracked, ...disk }: PlannedDisk): BackupDiskRecord {
  return disk;
}

async function planDisk(
  context: PointsContext,
  state: DomainState,
  { disk, since, ifUntracked, reason, exportName }: FoundDisk,
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
    reason: reason ?? null,
    tracked: await isTrackable(disk, context.points.allowedRoots),
    exportName: exportName ?? disk.target,
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

/**
 * QEMU made the socket for all to see behind a directory that let nobody in: now it lets root in alone.
 * @throws AgentError `BackupError` where QEMU has died meanwhile: libvirt has removed what it had made
 */
async function openSocket(
  { socket, dir }: ReturnType<typeof backupFiles>,
  { uuid, name }: DomainState['domain'],
): Promise<void> {
  try {
    await setSocketAccess(socket, { user: null, group: null });
    await chmod(dir, 0o711);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    throw new AgentError('BackupError', `${name} stopped while its backup began; start it, then try again.`, {
      vmId: uuid,
      cause,
    });
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
