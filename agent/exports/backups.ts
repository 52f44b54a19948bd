import type {
  StartBackupParams,
  StartBackupResult,
  StopBackupParams,
  StopBackupResult,
} from '../api/generated.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { canonical } from '../host/canonical.js';
import { shownLease } from '../host/lease.js';
import { CallsInFlight } from '../host/once.js';
import type { BackupRecord } from '../points-in-time/backup-record.js';
import { requireOutcome } from '../points-in-time/checkpoint-life.js';
import { beginPointInTime } from '../points-in-time/start-backup.js';
import { endPointInTime } from '../points-in-time/stop-backup.js';
import type { ExportCall, ExportsContext } from './context.js';
import { leaseWanted } from './lease-wanted.js';
import { tearDown } from './teardown.js';

/** Begins backups: once for each id, however often and however soon the same call is repeated. */
export class BackupPreparation {
  readonly #context: ExportsContext;
  readonly #inFlight = new CallsInFlight<StartBackupResult>();

  constructor(context: ExportsContext) {
    this.#context = context;
  }

  async start(given: StartBackupParams, call: ExportCall): Promise<StartBackupResult> {
    const leaseSeconds = leaseWanted(given.leaseSeconds, this.#context.points.maxLease);
    const known = this.#context.backups.find(given.backupId)?.vm;
    const vmId =
      known?.uuid === given.vmId || known?.name === given.vmId
        ? known.uuid
        : (await findDomain(this.#context.libvirt, given.vmId, call.signal)).uuid;
    const params = { ...given, vmId, ...(leaseSeconds !== null && { leaseSeconds }) };
    const request = canonical(params);
    return this.#inFlight.run(
      params.backupId,
      canonical({ owner: call.owner, params }),
      () => this.#repeatOrBegin(params, request, call),
      () => conflict(params.backupId),
    );
  }

  async #repeatOrBegin(
    params: StartBackupParams,
    request: string,
    call: ExportCall,
  ): Promise<StartBackupResult> {
    const { backups, libvirt } = this.#context;
    const { backupId } = params;
    const known = backups.find(backupId);
    if (known !== undefined && known.state !== 'starting') return this.#repeat(known, request, call.owner);
    const vm = await findDomain(libvirt, params.vmId, call.signal);
    const disks = params.disks.map(({ disk, since, ifUntracked = 'fail' }) => {
      return { disk, since: since?.checkpoint ?? null, ifUntracked, exportName: null };
    });
    const { checkpoint = null, quiesce = 'try', leaseSeconds = null } = params;
    const wanted = { backupId, request, exportId: null, disks, checkpoint, quiesce, leaseSeconds };
    return this.#resultOf(await beginPointInTime(this.#context, vm, wanted, call));
  }

  #repeat(known: BackupRecord, request: string, owner: string): StartBackupResult {
    const { backupId } = known;
    if (known.ended !== null) {
      throw new AgentError(
        'AlreadyExists',
        `The backup "${backupId}" has ended within the last hour and is not begun again; use a new id.`,
      );
    }
    if (known.owner !== owner || known.request !== request) throw conflict(backupId);
    if (known.state === 'running') return this.#resultOf(known);
    throw new AgentError(
      'BackupError',
      `The backup "${backupId}" ${known.error === null ? `is ${known.state}.` : `has failed: ${known.error.message}`} End it with stopBackup and begin a new one.`,
      { vmId: known.vm.uuid },
    );
  }

  #resultOf({ backupId, vm, created, quiesced, checkpoint, lease, disks }: BackupRecord): StartBackupResult {
    return {
      backupId,
      vmId: vm.uuid,
      created,
      quiesced,
      ...(checkpoint !== null && { checkpoint }),
      disks: disks.map(backupDisk),
      lease: shownLease(this.#context.clock, lease),
    };
  }
}

/** What callers are shown of a backup's disk. */
export function backupDisk({
  target,
  mode,
  since,
  reason,
  tracked,
}: BackupRecord['disks'][number]): StartBackupResult['disks'][number] {
  return {
    disk: target,
    mode,
    ...(since !== null && { since }),
    ...(reason !== null && { reason }),
    tracked,
  };
}

function conflict(backupId: string): AgentError {
  return new AgentError(
    'AlreadyExists',
    `A backup "${backupId}" exists with other params, or is another caller's; use a new id, or stop it first.`,
  );
}

/** Ends a backup, its exports first where `force` says so. One that is unknown or has ended is success. */
export async function stopBackup(
  context: ExportsContext,
  { backupId, outcome, force = false }: StopBackupParams,
  call: ExportCall,
): Promise<StopBackupResult> {
  const { backups, registry } = context;
  const record = backups.find(backupId);
  if (record === undefined || record.ended !== null) return { backupId, checkpoint: record?.outcome ?? null };
  requireOutcome(record.state === 'failed' ? null : record.checkpoint, outcome);
  const live = registry
    .allLive()
    .filter(({ pointInTime: point }) => point.kind === 'backup' && point.backupId === backupId);
  const [first] = live;
  if (first !== undefined && !force) {
    throw new AgentError(
      'ExportInUse',
      `The backup "${backupId}" has the export "${first.exportId}"; tear it down first, or set force.`,
      { exportId: first.exportId, vmId: record.vm.uuid },
    );
  }
  for (const { exportId } of live) await tearDown(context, { exportId, force: true }, call);
  return { backupId, checkpoint: await endPointInTime(context, backupId, outcome ?? 'failed', call.signal) };
}
