import { ALLOCATION_CONTEXT } from '../changed-blocks/map.js';
import { ALLOCATION_GRANULARITY } from '../changed-blocks/plan.js';
import { AgentError } from '../errors.js';
import type { UndoStack } from '../host/undo.js';
import type { BackupRecord } from '../points-in-time/backup-record.js';
import { isTrackable } from '../points-in-time/disk-now.js';
import { beginPointInTime } from '../points-in-time/start-backup.js';
import { endPointInTime } from '../points-in-time/stop-backup.js';
import { applySocketAccess } from './access.js';
import { type ExportCall, type ExportsContext, STEP_MS } from './context.js';
import { unixDrive } from './drive.js';
import { keepData } from './keep-data.js';
import type { LivePoint } from './point-in-time.js';
import type { ExportRecord } from './record.js';
import { bitmapContext, capacityOf, removeExportDirectory } from './serve.js';

/** Milliseconds that taking a job of our own back may take. */
const UNDO_MS = 60_000;

/**
 * The id of a job that is begun for one export: no id that a caller picks begins with `_`.
 */
export const ownBackupId = (exportId: string): string => `_${exportId}`;

/** Opens an export of a running VM's disk: at the instant of a backup, or of a job of its own that is begun now. */
export async function openLive(
  context: ExportsContext,
  starting: ExportRecord,
  point: LivePoint,
  call: ExportCall,
  undo: UndoStack,
): Promise<ExportRecord> {
  const { registry, settings, backups } = context;
  const { exportId } = starting;
  const { backupId } = point.at;
  const own = backupId === null;
  const jobId = backupId ?? ownBackupId(exportId);
  undo.push('record', () => registry.remove(exportId));
  let record = await registry.save({
    ...starting,
    pointInTime: { kind: 'backup', backupId: jobId, own },
    checkpoint: own ? (starting.params.checkpoint ?? null) : null,
  });
  if (own)
    undo.push('job', () =>
      endPointInTime(context, jobId, 'failed', AbortSignal.timeout(UNDO_MS)).then(() =>
        backups.remove(jobId),
      ),
    );
  const job = own ? await beginOwn(context, starting, point, call) : runningJob(context, jobId, point);
  const disk = job.disks.find(({ target }) => target === point.of.disk.target);
  if (disk === undefined) {
    throw new AgentError(
      'NoSuchDisk',
      `The backup "${jobId}" does not cover ${point.of.disk.target}; it has ${job.disks.map(({ target }) => target).join(', ')}.`,
      { vmId: job.vm.uuid, disk: point.of.disk.target },
    );
  }
  const server = {
    kind: 'backup',
    backupId: jobId,
    socket: job.socket,
    exportName: disk.exportName,
  } as const;
  const wait = { timeoutMs: STEP_MS, signal: call.signal };
  const capacity = await capacityOf(server, wait);
  undo.push('directory', () => removeExportDirectory(settings, exportId));
  const data = await keepData(settings, exportId, { ...server, capacity }, wait);
  record = {
    ...record,
    state: 'ready',
    checkpoint: own ? job.checkpoint : null,
    server,
    drive: unixDrive({
      hostId: settings.hostId,
      exportId,
      exportName: disk.exportName,
      socket: job.socket,
      capacity,
    }),
    map: {
      mode: disk.mode,
      since: disk.since === null ? null : { checkpoint: disk.since },
      reason: disk.reason,
      origin: disk.mode === 'full' ? 'allocation' : 'bitmap',
      metaContext: disk.since === null ? ALLOCATION_CONTEXT : bitmapContext(disk.since),
      granularity: ALLOCATION_GRANULARITY,
      source:
        disk.since === null
          ? { kind: 'allocation', data }
          : { kind: 'bitmap', context: bitmapContext(disk.since), data },
    },
  };
  await applySocketAccess(
    context,
    [...registry.allLive().filter((one) => one.exportId !== exportId), record],
    server.socket,
  );
  return record;
}

async function beginOwn(
  context: ExportsContext,
  { exportId, params }: ExportRecord,
  { of }: LivePoint,
  call: ExportCall,
): Promise<BackupRecord> {
  const { since, ifUntracked = 'fail', checkpoint = null, quiesce = 'no' } = params;
  if (since !== undefined && !('checkpoint' in since)) {
    throw new AgentError(
      'NotTracked',
      `${of.state.domain.name} runs, and what changed since a snapshot can be told for frozen layers alone; name a snapshotId, or a checkpoint in since.`,
      { vmId: of.state.domain.uuid, disk: of.disk.target },
    );
  }
  if (checkpoint !== null && !(await isTrackable(of.disk, context.settings.allowedRoots))) {
    throw new AgentError(
      'NotTracked',
      `The image of ${of.disk.target} of ${of.state.domain.name} cannot hold a checkpoint's bitmap; leave checkpoint out, or convert it to qcow2 (compat 1.1).`,
      { vmId: of.state.domain.uuid, disk: of.disk.target },
    );
  }
  return beginPointInTime(
    context,
    of.state,
    {
      backupId: ownBackupId(exportId),
      request: '',
      exportId,
      disks: [{ disk: of.disk, since: since?.checkpoint ?? null, ifUntracked, exportName: exportId }],
      checkpoint,
      quiesce,
    },
    call,
  );
}

/** @throws AgentError `NoSuchBackup`, `BackupError` */
function runningJob({ backups }: ExportsContext, backupId: string, { of }: LivePoint): BackupRecord {
  const job = backups.find(backupId);
  const { uuid, name } = of.state.domain;
  if (job === undefined || job.ended !== null || job.exportId !== null || job.vm.uuid !== uuid) {
    throw new AgentError(
      'NoSuchBackup',
      `${name} has no backup "${backupId}"${job?.ended != null ? ' any more: it has ended' : ''}; listBackups shows those there are.`,
      { vmId: uuid },
    );
  }
  if (job.state === 'running') return job;
  throw new AgentError(
    'BackupError',
    `The backup "${backupId}" ${job.error === null ? `is ${job.state}` : `has failed: ${job.error.message}`} End it with stopBackup and begin a new one.`,
    { vmId: uuid },
  );
}
