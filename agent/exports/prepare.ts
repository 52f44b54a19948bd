import type { Cbt, PrepareBackupDiskParams, PrepareBackupDiskResult } from '../api/generated.js';
import { type ExtentPage, pageOf } from '../changed-blocks/extents.js';
import { mapOf } from '../changed-blocks/map.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { canonical } from '../host/canonical.js';
import { CallsInFlight } from '../host/once.js';
import { UndoStack } from '../host/undo.js';
import { knownFormat } from '../images/chain.js';
import { formatNbdUri } from '../nbd/uri.js';
import { CONNECTIONS, type ExportCall, type ExportsContext, exportLock, STEP_MS } from './context.js';
import { failed, whileServed } from './failure.js';
import { openImage } from './open-image.js';
import { openLive } from './open-live.js';
import { findPointInTime, isLive, type PointInTime } from './point-in-time.js';
import { EXPORT_RECORD_VERSION, type ExportRecord, type MapRecord } from './record.js';

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
    const starting = startingRecord(params, point, call.owner);
    const undo = new UndoStack();
    try {
      const ready = isLive(point)
        ? await openLive(this.#context, starting, point, call, undo)
        : await openImage(this.#context, starting, point, call, undo);
      const result = await whileServed(this.#context, ready, () => resultOf(ready, call.signal));
      await registry.save(ready);
      undo.release();
      return result;
    } catch (error) {
      await undo.unwind((what, cause) => log.error({ exportId, what, err: cause }, 'could not be undone'));
      throw withExport(error, starting);
    }
  }
}

/** What is known of an export before anything is made for it. */
function startingRecord(params: PrepareBackupDiskParams, point: PointInTime, owner: string): ExportRecord {
  const domain = point.of?.state.domain ?? null;
  const disk = point.of?.disk ?? null;
  return {
    version: EXPORT_RECORD_VERSION,
    kind: 'export',
    exportId: params.exportId,
    params,
    owner,
    created: new Date().toISOString(),
    state: 'starting',
    error: null,
    vm: domain === null ? null : { uuid: domain.uuid, name: domain.name },
    disk: disk?.target ?? null,
    image: imageOf(point),
    pointInTime: isLive(point) ? { kind: 'backup', backupId: point.at.backupId ?? '', own: false } : point.at,
    layers: [],
    blocksStart: false,
    serverName: `vmdiskd-export-${params.exportId}`,
    server: null,
    drive: null,
    map: null,
    checkpoint: null,
    decided: null,
    outcome: null,
    attachments: [],
    ended: null,
  };
}

function imageOf(point: PointInTime): ExportRecord['image'] {
  const top = isLive(point) ? point.of.disk.source : point.layers[0];
  const path = top?.path ?? '';
  return { path, format: knownFormat(top?.format ?? '', path) };
}

/** The answer for a ready export: the same each time, since neither record nor map changes while it lives. */
async function resultOf(record: ExportRecord, signal: AbortSignal): Promise<PrepareBackupDiskResult> {
  const { exportId, drive, map, server, params } = record;
  if (drive === null || map === null || server === null)
    throw new Error(`${exportId} is ready and not whole`);
  const { capacity } = drive;
  const served = { ...server, timeoutMs: STEP_MS, signal };
  const { inlineExtents = 0 } = params;
  // The first extent of a huge disk may take long to find the end of: who wants none does not wait for it.
  const page =
    inlineExtents === 0 && capacity > 0
      ? { extents: [], nextOffset: 0 }
      : await pageOf(mapOf(served, map, 0, undefined), inlineExtents, capacity, capacity);
  return {
    exportId,
    drive,
    uri: formatNbdUri({
      address: { transport: 'unix', socket: server.socket },
      tls: false,
      exportName: server.exportName,
    }),
    cbt: cbtOf(record, map, page),
    blocksStart: record.blocksStart,
    connections: CONNECTIONS,
    lease: null,
  };
}

function cbtOf({ params }: ExportRecord, map: MapRecord, { extents, nextOffset }: ExtentPage): Cbt {
  return {
    mode: map.mode,
    ...(map.since != null && { since: map.since }),
    ...(params.checkpoint !== undefined && { checkpoint: params.checkpoint }),
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
function withExport(error: unknown, { exportId, vm, disk }: ExportRecord): unknown {
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
