import { ALLOCATION_CONTEXT } from '../changed-blocks/map.js';
import { ALLOCATION_GRANULARITY } from '../changed-blocks/plan.js';
import { AgentError } from '../errors.js';
import type { BackupRecord } from '../points-in-time/backup-record.js';
import { isTrackable } from '../points-in-time/disk-now.js';
import { beginPointInTime } from '../points-in-time/start-backup.js';
import { joinSocket } from './access.js';
import { type ExportCall, type ExportsContext, exportFiles, STEP_MS } from './context.js';
import { whileServed } from './failure.js';
import { openFront } from './front.js';
import { keepData } from './keep-data.js';
import type { LivePoint } from './point-in-time.js';
import type { ExportRecord } from './record.js';
import { bitmapContext, capacityOf, makeExportDirectory } from './serve.js';

/**
 * The id of a job that is begun for one export: no id that a caller picks begins with `_`.
 */
const ownBackupId = (exportId: string): string => `_${exportId}`;

/**
 * Opens an export of a running VM's disk: at the instant of a backup, or of a job of its own that is begun now. Where a step
 * fails, `takeBack` knows from the record what to undo.
 */
export async function openLive(
  context: ExportsContext,
  starting: ExportRecord,
  point: LivePoint,
  call: ExportCall,
): Promise<ExportRecord> {
  const { registry, settings } = context;
  const { exportId, use, params } = starting;
  const { backupId } = point.at;
  const own = backupId === null;
  const jobId = backupId ?? ownBackupId(exportId);
  let record = await registry.save({
    ...starting,
    pointInTime: { kind: 'backup', backupId: jobId, own },
    checkpoint: own ? (params.checkpoint ?? null) : null,
  });
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
  await makeExportDirectory(settings.run, exportFiles(settings.run, exportId).dir);
  // The VM may end now, or another call end the backup: the caller is told so.
  const [capacity, data] = await whileServed(context, { ...record, server }, async () => {
    const bytes = await capacityOf(server, wait);
    if (use === 'mount') return [bytes, undefined];
    return [bytes, await keepData(settings, exportId, { ...server, capacity: bytes }, wait)];
  });
  record = await joinSocket(context, { ...record, server, checkpoint: own ? job.checkpoint : null });
  const opened = await whileServed(context, record, () =>
    openFront(context, { ...record, server }, capacity, call.signal),
  );
  if (data === undefined) return opened;
  const metaContext = disk.since === null ? ALLOCATION_CONTEXT : bitmapContext(disk.since);
  return {
    ...opened,
    map: {
      mode: disk.mode,
      since: disk.since === null ? null : { checkpoint: disk.since },
      reason: disk.reason,
      origin: disk.mode === 'full' ? 'allocation' : 'bitmap',
      metaContext: opened.overlay === null ? metaContext : null,
      granularity: ALLOCATION_GRANULARITY,
      source:
        disk.since === null
          ? { kind: 'allocation', data }
          : { kind: 'bitmap', context: bitmapContext(disk.since), data },
    },
  };
}

async function beginOwn(
  context: ExportsContext,
  { exportId, params }: ExportRecord,
  { of }: LivePoint,
  call: ExportCall,
): Promise<BackupRecord> {
  const { since, ifUntracked = 'fail', checkpoint = null, quiesce = 'no' } = params;
  const tracked = since === undefined || 'checkpoint' in since ? since : undefined;
  const untracked = since === tracked ? null : sinceLayers(of.state.domain, of.disk.target);
  if (untracked !== null && ifUntracked !== 'full') throw untracked;
  if (checkpoint !== null && !(await isTrackable(of.disk, context.settings.allowedRoots))) {
    throw new AgentError(
      'NotTracked',
      `The image of ${of.disk.target} of ${of.state.domain.name} cannot hold a checkpoint's bitmap; leave checkpoint out, or convert it to qcow2 (compat 1.1).`,
      { vmId: of.state.domain.uuid, disk: of.disk.target },
    );
  }
  return beginPointInTime(
    context,
    of.state.domain,
    {
      backupId: ownBackupId(exportId),
      request: '',
      exportId,
      disks: [
        {
          disk: of.disk.target,
          since: tracked?.checkpoint ?? null,
          ifUntracked,
          ...(untracked !== null && { reason: { name: untracked.name, message: untracked.message } }),
          exportName: exportId,
        },
      ],
      checkpoint,
      quiesce,
      leaseSeconds: null, // the export's lease is the job's
    },
    call,
  );
}

/** Allocation depth, which tells what was written above a layer, is known of files alone. */
function sinceLayers({ uuid, name }: { uuid: string; name: string }, disk: string): AgentError {
  return new AgentError(
    'NotTracked',
    `${name} runs, and what changed since a snapshot can be told for frozen layers alone; name a snapshotId, or a checkpoint in since.`,
    { vmId: uuid, disk },
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
    `The backup "${backupId}" ${job.error === null ? `is ${job.state}.` : `has failed: ${job.error.message}`} End it with stopBackup and begin a new one.`,
    { vmId: uuid },
  );
}
