import type { Cbt, PrepareBackupDiskParams, PrepareBackupDiskResult } from '../api/generated.js';
import { type ExtentPage, pageOf } from '../changed-blocks/extents.js';
import { ALLOCATION_CONTEXT, mapOf } from '../changed-blocks/map.js';
import { bitmapPlan, fullPlan, type MapPlan } from '../changed-blocks/plan.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { UndoStack } from '../host/undo.js';
import type { Layer } from '../images/chain.js';
import { formatNbdUri } from '../nbd/uri.js';
import { CONNECTIONS, type ExportCall, type ExportsContext, exportLock, STEP_MS } from './context.js';
import { canonical, unixDrive } from './drive.js';
import { failed, whileServed } from './failure.js';
import { CallsInFlight } from './once.js';
import { findPointInTime } from './point-in-time.js';
import { type Cause, EXPORT_RECORD_VERSION, type ExportRecord, type MapRecord } from './record.js';
import { bitmapContext, serve, unserve } from './serve.js';

/** Makes exports: once for each id, however often and however soon the same call is repeated. */
export class ExportPreparation {
  readonly #context: ExportsContext;
  readonly #inFlight = new CallsInFlight<PrepareBackupDiskResult>();
  /** Exports that are being begun: they have a place before they have a record. */
  readonly #beginning = new Set<string>();

  constructor(context: ExportsContext) {
    this.#context = context;
  }

  async prepare(given: PrepareBackupDiskParams, call: ExportCall): Promise<PrepareBackupDiskResult> {
    const params = await this.#withUuid(given, call.signal);
    const { exportId } = params;
    const { locks } = this.#context;
    return this.#inFlight.run(
      exportId,
      canonical(params),
      () =>
        locks.run(exportLock(exportId), `prepareBackupDisk ${exportId}`, call.signal, () =>
          this.#repeatOrBegin(params, call),
        ),
      () => conflict(exportId),
    );
  }

  /** The VM by its UUID; of an export that exists, as it was then, so that a retry succeeds after the VM is gone. */
  async #withUuid(given: PrepareBackupDiskParams, signal: AbortSignal): Promise<PrepareBackupDiskParams> {
    if (given.vmId === undefined) return given;
    const { registry, libvirt } = this.#context;
    const known = registry.find(given.exportId)?.vm;
    if (known?.uuid === given.vmId || known?.name === given.vmId) return { ...given, vmId: known.uuid };
    return { ...given, vmId: (await findDomain(libvirt, given.vmId, signal)).uuid };
  }

  async #repeatOrBegin(params: PrepareBackupDiskParams, call: ExportCall): Promise<PrepareBackupDiskResult> {
    const { registry } = this.#context;
    const known = registry.find(params.exportId);
    if (known === undefined) return this.#withPlace(params.exportId, () => this.#begin(params, call));
    if (known.state === 'ended') {
      throw new AgentError(
        'AlreadyExists',
        `The export "${params.exportId}" was torn down within the last hour and is not made again; use a new id.`,
        { exportId: params.exportId },
      );
    }
    if (canonical(known.params) !== canonical(params)) throw conflict(params.exportId);
    if (known.state !== 'ready') throw failed(known);
    return whileServed(this.#context, known, () => resultOf(known, call.signal));
  }

  /** @throws AgentError `LimitReached`, also for those of many calls at once that are too many */
  async #withPlace<T>(exportId: string, work: () => Promise<T>): Promise<T> {
    const { registry, settings } = this.#context;
    const taken = new Set([...this.#beginning, ...registry.allLive().map((record) => record.exportId)]);
    if (taken.size >= settings.maxExports) {
      throw new AgentError(
        'LimitReached',
        `This host has ${settings.maxExports} exports, which is its limit; tear some down, or raise [limits] exports.`,
        { exportId },
      );
    }
    this.#beginning.add(exportId);
    try {
      return await work();
    } finally {
      this.#beginning.delete(exportId);
    }
  }

  async #begin(params: PrepareBackupDiskParams, call: ExportCall): Promise<PrepareBackupDiskResult> {
    const { registry, libvirt, settings, log } = this.#context;
    const { exportId } = params;
    const { allowedRoots } = settings;
    const point = await findPointInTime(params, { libvirt, allowedRoots, signal: call.signal });
    const { plan, reason } = choosePlan(params, point.layers);
    const serverName = `vmdiskd-export-${exportId}`;
    const starting: ExportRecord = {
      version: EXPORT_RECORD_VERSION,
      kind: 'export',
      exportId,
      params,
      owner: call.owner,
      created: new Date().toISOString(),
      state: 'starting',
      error: null,
      vm: point.vm,
      disk: point.disk,
      pointInTime: {
        kind: point.kind,
        ...(point.snapshotId !== undefined && { snapshotId: point.snapshotId }),
      },
      layers: point.layers.map(({ path, format, file }) => ({ path, format, file })),
      blocksStart: point.blocksStart,
      serverName,
      server: null,
      drive: null,
      map: null,
      attachments: [],
      ended: null,
    };
    const undo = new UndoStack();
    try {
      undo.push('record', () => registry.remove(exportId));
      await registry.save(starting);
      undo.push('server', () => unserve(this.#context, { exportId, serverName, server: null }));
      const user = params.transport?.user ?? null;
      const request = { exportId, serverName, layers: point.layers, plan, user };
      const { server, source, capacity } = await serve(this.#context, request, call.signal);
      const drive = unixDrive({ hostId: settings.hostId, exportId, socket: server.socket, capacity });
      const map = mapRecord(params, plan, source, reason);
      const ready: ExportRecord = { ...starting, state: 'ready', server, drive, map };
      const result = await whileServed(this.#context, ready, () => resultOf(ready, call.signal));
      await registry.save(ready);
      undo.release();
      return result;
    } catch (error) {
      await undo.unwind((what, cause) => log.error({ exportId, what, err: cause }, 'could not be undone'));
      throw withExport(error, exportId, point);
    }
  }
}

function choosePlan(
  { since, ifUntracked }: PrepareBackupDiskParams,
  layers: readonly Layer[],
): { plan: MapPlan<Layer>; reason: Cause | null } {
  if (since === undefined) return { plan: fullPlan(), reason: null };
  try {
    return { plan: bitmapPlan(layers, since.bitmap), reason: null };
  } catch (cause) {
    if (!(cause instanceof AgentError) || ifUntracked !== 'full') throw cause;
    return { plan: fullPlan(), reason: { name: cause.name, message: cause.message } };
  }
}

function mapRecord(
  { since }: PrepareBackupDiskParams,
  plan: MapPlan<Layer>,
  source: MapRecord['source'],
  reason: Cause | null,
): MapRecord {
  const { mode, origin, granularity } = plan;
  const bitmap = plan.mode === 'incremental' && plan.layers.length === 1 ? bitmapContext(plan.bitmap) : null;
  return {
    mode,
    since: mode === 'incremental' && since !== undefined ? since : null,
    reason,
    origin,
    metaContext: mode === 'full' ? ALLOCATION_CONTEXT : bitmap,
    granularity,
    source,
  };
}

/** The answer for a ready export: the same each time, since neither record nor map changes while it lives. */
async function resultOf(record: ExportRecord, signal: AbortSignal): Promise<PrepareBackupDiskResult> {
  const { exportId, drive, map, server, params } = record;
  if (drive === null || map === null || server === null)
    throw new Error(`${exportId} is ready and not whole`);
  const { capacity } = drive;
  const served = { socket: server.socket, exportName: exportId, timeoutMs: STEP_MS, signal };
  const page = await pageOf(mapOf(served, map, 0, undefined), params.inlineExtents ?? 0, capacity, capacity);
  return {
    exportId,
    drive,
    uri: formatNbdUri({
      address: { transport: 'unix', socket: server.socket },
      tls: false,
      exportName: exportId,
    }),
    cbt: cbtOf(map, page),
    blocksStart: record.blocksStart,
    connections: CONNECTIONS,
    lease: null,
  };
}

function cbtOf(map: MapRecord, { extents, nextOffset }: ExtentPage): Cbt {
  return {
    mode: map.mode,
    ...(map.since !== null && { since: map.since }),
    ...(map.reason !== null && { reason: map.reason }),
    origin: map.origin,
    metaContext: map.metaContext,
    granularity: map.granularity,
    changedBytes:
      nextOffset === null ? extents.reduce((sum, { dirty, length }) => sum + (dirty ? length : 0), 0) : null,
    extents,
    nextOffset,
  };
}

function conflict(exportId: string): AgentError {
  return new AgentError(
    'AlreadyExists',
    `An export "${exportId}" exists with other params; use a new id, or tear it down first.`,
    { exportId },
  );
}

/** The same error, saying which export, VM and disk it is about. */
function withExport(
  error: unknown,
  exportId: string,
  { vm, disk }: Pick<ExportRecord, 'vm' | 'disk'>,
): unknown {
  if (!(error instanceof AgentError)) return error;
  return new AgentError(error.name, error.message, {
    ...(vm !== null && { vmId: vm.uuid }),
    ...(disk !== null && { disk }),
    ...error.details,
    exportId,
    retryable: error.retryable,
    cause: error,
  });
}
