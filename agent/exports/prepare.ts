import type {
  ExportRow,
  MountDiskParams,
  MountDiskResult,
  PrepareBackupDiskParams,
  PrepareBackupDiskResult,
} from '../api/generated.js';
import { findDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { canonical } from '../host/canonical.js';
import { beginLease, shownLease } from '../host/lease.js';
import { CallsInFlight } from '../host/once.js';
import { answerOf, type Made, withCredentials } from './answer.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { failed, whileServed } from './failure.js';
import { findGateway, throughGateway } from './find-gateway.js';
import { leaseWanted } from './lease-wanted.js';
import { credentialsOf, publish } from './network.js';
import { createImage } from './new-image.js';
import { openImage } from './open-image.js';
import { openLive } from './open-live.js';
import { findPointInTime, isLive } from './point-in-time.js';
import type { ExportParams, ExportRecord } from './record.js';
import { pointInTimeOf } from './rows.js';
import { aboutPoint, startingRecord } from './starting-record.js';
import { takeBack } from './take-back.js';
import { ofExport } from './told.js';

/** What is asked for, and by which verb. */
interface Wanted {
  use: ExportRow['kind'];
  params: ExportParams;
}

/** Makes exports: once for each id, however often and however soon the same call is repeated. */
export class ExportPreparation {
  readonly #context: ExportsContext;
  readonly #inFlight = new CallsInFlight<Made>();
  /** Exports that are being begun, with their VMs: they have a place before they have a record. */
  readonly #beginning = new Map<string, string | null>();

  constructor(context: ExportsContext) {
    this.#context = context;
  }

  async prepare(given: PrepareBackupDiskParams, call: ExportCall): Promise<PrepareBackupDiskResult> {
    const defaults = given.backupId === undefined && ({ ifUntracked: 'fail', quiesce: 'no' } as const);
    const { cbt, ...made } = await this.#make('backup', { ...defaults, ...given }, call);
    if (cbt === undefined) throw new Error(`${given.exportId} has no map`);
    return { ...made, cbt };
  }

  async mount(given: MountDiskParams, call: ExportCall): Promise<MountDiskResult> {
    const defaults = given.backupId === undefined && ({ quiesce: 'no' } as const);
    return this.#make('mount', { inlineExtents: 0, ...defaults, ...given }, call);
  }

  async #make(use: Wanted['use'], given: ExportParams, call: ExportCall): Promise<Made> {
    const params = await this.#withUuid(this.#withLease(given), call.signal);
    const { exportId } = params;
    const { locks } = this.#context;
    const verb = use === 'mount' ? 'mountDisk' : 'prepareBackupDisk';
    return this.#inFlight.run(
      exportId,
      canonical({ owner: call.owner, use, params }),
      () =>
        locks.run(exportLock(exportId), `${verb} "${exportId}"`, call.signal, () =>
          this.#repeatOrBegin({ use, params }, call),
        ),
      () => conflict(exportId),
    );
  }

  /** The params with the configuration's default: a retry that says it is the same call. */
  #withLease(given: ExportParams): ExportParams {
    const seconds = leaseWanted(given.leaseSeconds, this.#context.points.maxLease);
    return { ...given, ...(seconds !== null && { leaseSeconds: seconds }) };
  }

  /** The VM by its UUID; of an export that exists, as it was then, so that a retry succeeds after the VM is gone. */
  async #withUuid(given: ExportParams, signal: AbortSignal): Promise<ExportParams> {
    if (given.vmId === undefined) return given;
    const { registry, libvirt } = this.#context;
    const known = registry.find(given.exportId)?.vm;
    if (known?.uuid === given.vmId || known?.name === given.vmId) return { ...given, vmId: known.uuid };
    return { ...given, vmId: (await findDomain(libvirt, given.vmId, signal)).uuid };
  }

  async #repeatOrBegin(wanted: Wanted, call: ExportCall): Promise<Made> {
    const { registry } = this.#context;
    const { use, params } = wanted;
    const known = registry.find(params.exportId);
    if (known?.state === 'starting') await takeBack(this.#context, known, call.signal); // what an earlier call has left
    if (known === undefined || known.state === 'starting')
      return this.#withPlace(params, () => this.#begin(wanted, call));
    if (known.state === 'ended') {
      throw new AgentError(
        'AlreadyExists',
        `The export "${params.exportId}" was torn down within the last hour and is not made again; use a new id.`,
        { exportId: params.exportId },
      );
    }
    // The answer may have a key in it: it is for who made the export, and for nobody who came a moment later.
    const same = known.use === use && canonical(known.params) === canonical(params);
    if (known.owner !== call.owner || !same) throw conflict(params.exportId);
    if (known.state !== 'ready') throw failed(known);
    const result = await whileServed(this.#context, known, () => answerOf(this.#context, known, call.signal));
    return withCredentials(result, credentialsOf(this.#context, known));
  }

  /** @throws AgentError `LimitReached`, also for those of many calls at once that are too many */
  async #withPlace<T>({ exportId, vmId }: ExportParams, work: () => Promise<T>): Promise<T> {
    const { registry, settings } = this.#context;
    const taken = new Map(this.#beginning);
    for (const record of registry.allLive()) taken.set(record.exportId, record.vm?.uuid ?? null);
    if (taken.size >= settings.maxExports) {
      throw new AgentError(
        'LimitReached',
        `This host has ${settings.maxExports} exports, which is its limit; tear some down, or raise [limits] exports.`,
        { exportId },
      );
    }
    const ofVm = vmId === undefined ? 0 : [...taken.values()].filter((uuid) => uuid === vmId).length;
    if (ofVm >= settings.maxExportsPerVm) {
      throw new AgentError(
        'LimitReached',
        `The VM has ${settings.maxExportsPerVm} exports, which is the limit of one; tear some down, or raise [limits] exportsPerVm.`,
        { exportId, ...(vmId !== undefined && { vmId }) },
      );
    }
    this.#beginning.set(exportId, vmId ?? null);
    try {
      return await work();
    } finally {
      this.#beginning.delete(exportId);
    }
  }

  async #begin({ use, params }: Wanted, call: ExportCall): Promise<Made> {
    const { registry, libvirt, snapshots, settings, clock, events, drains } = this.#context;
    const { allowedRoots } = settings;
    const refuseDrained = drains.refuse({ exportId: params.exportId });
    const gateway = await findGateway(this.#context, params, call.signal);
    let starting = startingRecord(use, params, call.owner);
    try {
      starting = await createImage(this.#context, starting, call);
      const sources = { libvirt, snapshots, allowedRoots, signal: call.signal };
      const point = await findPointInTime(params, sources);
      starting = { ...starting, ...aboutPoint(point) };
      const served = isLive(point)
        ? await openLive(this.#context, starting, point, call)
        : await openImage(this.#context, starting, point, call);
      refuseDrained();
      const opened = throughGateway(served, gateway);
      const result = await whileServed(this.#context, opened, () =>
        answerOf(this.#context, opened, call.signal),
      );
      // It counts from the answer on: reading the map of a large disk must not have used it up.
      const { leaseSeconds } = params;
      const lease = leaseSeconds === undefined ? null : beginLease(clock, leaseSeconds);
      const ready = { ...opened, lease };
      await whileServed(this.#context, ready, () => publish(this.#context, ready, call.signal));
      await registry.save(ready);
      events.emit({ kind: 'exportReady', ...ofExport(ready), pointInTime: pointInTimeOf(ready) });
      const shown = { ...result, lease: shownLease(clock, lease) };
      return withCredentials(shown, credentialsOf(this.#context, ready));
    } catch (error) {
      await this.#undo(params.exportId);
      throw withExport(error, starting);
    }
  }

  /** What cannot be taken back now stays on record; the watch tries again. */
  async #undo(exportId: string): Promise<void> {
    const { registry, log, points } = this.#context;
    const record = registry.find(exportId);
    if (record?.state !== 'starting') return;
    // The verb's own deadline may have passed by now.
    await takeBack(this.#context, record, AbortSignal.timeout(points.stateMs.halfWay)).catch((err: unknown) =>
      log.error({ exportId, err }, 'an export that could not be made could not be taken back yet'),
    );
  }
}

function conflict(exportId: string): AgentError {
  return new AgentError(
    'AlreadyExists',
    `An export "${exportId}" exists with other params, or is another caller's; use a new id, or tear it down first.`,
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
