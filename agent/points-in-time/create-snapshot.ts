import { stat } from 'node:fs/promises';
import type { CreateSnapshotParams, CreateSnapshotResult } from '../api/generated.js';
import type { DomainDisk } from '../domains/config.js';
import { findDisks, whyUnsupported } from '../domains/disks.js';
import { libvirtFault } from '../domains/faults.js';
import { withFrozenGuest } from '../domains/freeze.js';
import { type DomainState, readDomain } from '../domains/lookup.js';
import { refuseSaved } from '../domains/managed-save.js';
import { refuseMovedAway } from '../domains/migration.js';
import { snapshotXml } from '../domains/snapshot-xml.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import { canonical } from '../host/canonical.js';
import { CallsInFlight } from '../host/once.js';
import { knownFormat, readChain } from '../images/chain.js';
import { ErrorCode, hasCode, SnapshotCreateFlag } from '../libvirt/index.js';
import { refuseTakenName, rememberCheckpoint } from './checkpoint-life.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { overlayPath } from './overlay.js';
import { refuseBusy } from './refuse-busy.js';
import { refuseWriter } from './refuse-writer.js';
import { rollBackSnapshot } from './roll-back-snapshot.js';
import { makeCheckpointBefore, planCheckpointBefore } from './snapshot-checkpoint.js';
import {
  findSnapshot,
  SNAPSHOT_RECORD_VERSION,
  type SnapshotDiskRecord,
  type SnapshotRecord,
} from './snapshot-record.js';
import { snapshotVm } from './snapshot-vm.js';

/** Makes snapshots: once for each id, however often and however soon the same call is repeated. */
export class SnapshotCreation {
  readonly #context: PointsContext;
  readonly #inFlight = new CallsInFlight<CreateSnapshotResult>();

  constructor(context: PointsContext) {
    this.#context = context;
  }

  async create(given: CreateSnapshotParams, call: PointsCall): Promise<CreateSnapshotResult> {
    const { snapshotId } = given;
    const { gone: _, ...vm } = await snapshotVm(this.#context, given, call.signal);
    const params = { ...given, vmId: vm.uuid };
    const request = canonical(params);
    const conflict = () => taken(vm, snapshotId, 'exists with other params');
    return this.#inFlight.run(
      `${vm.uuid} ${snapshotId}`,
      request,
      () =>
        this.#repeated(vm, snapshotId, request) ??
        exclusively(this.#context, vm, `createSnapshot "${snapshotId}"`, async () => {
          return (await this.#repeated(vm, snapshotId, request)) ?? this.#begin(params, request, call);
        }),
      conflict,
    );
  }

  /** The answer of the first call with that id; undefined where there was none. */
  #repeated({ uuid, name }: SnapshotRecord['vm'], snapshotId: string, request: string) {
    const record = findSnapshot(this.#context.snapshots, uuid, snapshotId);
    if (record === undefined || record.state === 'making') return undefined;
    return (async () => {
      const vm = { uuid, name };
      if (record.state === 'ended') {
        throw taken(vm, snapshotId, 'was deleted within the last hour and is not made again');
      }
      if (record.request !== request) throw taken(vm, snapshotId, 'exists with other params');
      if (record.state === 'merging') throw taken(vm, snapshotId, 'is being deleted');
      return resultOf(record);
    })();
  }

  async #begin(
    { snapshotId, vmId, disks, checkpoint, quiesce }: CreateSnapshotParams,
    request: string,
    { owner, signal }: PointsCall,
  ): Promise<CreateSnapshotResult> {
    const { libvirt, snapshots, events, log, points } = this.#context;
    const state = await readDomain(libvirt, vmId, signal);
    const { domain } = state;
    const vm = { uuid: domain.uuid, name: domain.name };
    await refuseMovedAway(libvirt, domain, signal);
    await refuseSaved(libvirt, domain, 'SnapshotFailed', `make a snapshot of ${domain.name}`, signal);
    await refuseBusy(this.#context, domain, `make a snapshot of ${domain.name}`, signal);
    await this.#clear(vm, snapshotId, signal);
    if ((await readSnapshot(libvirt, domain, snapshotId, signal)) !== undefined) {
      throw taken(vm, snapshotId, 'exists and was made by another program');
    }
    if (checkpoint !== undefined) await refuseTakenName(this.#context, state, checkpoint, signal);
    const chosen = chooseDisks(state, disks);
    const planned: SnapshotDiskRecord[] = [];
    for (const disk of chosen) planned.push(await planDisk(disk, points.allowedRoots));
    let record = await snapshots.save({
      version: SNAPSHOT_RECORD_VERSION,
      kind: 'snapshot',
      snapshotId,
      created: new Date().toISOString(),
      ended: null,
      request,
      owner,
      vm,
      state: 'making',
      quiesce,
      quiesced: false,
      disks: planned,
      domainXml: null,
      checkpoint: null,
      jobId: null,
    });
    try {
      // After the record: a writer that begins now finds it.
      if (!state.running) await refuseWriter(this.#context, state, chosen);
      const tracked =
        checkpoint === undefined
          ? null
          : await planCheckpointBefore(this.#context, state, record, chosen, checkpoint, signal);
      record = await snapshots.save({ ...record, checkpoint: tracked?.checkpoint ?? null });
      // All that can be done before or after is: the guest's programs stand still meanwhile.
      const frozen = await withFrozenGuest(
        this.#context,
        domain,
        state.running ? quiesce : 'no', // a VM that is off has nothing to freeze
        signal,
        async (_, within) => {
          const created = new Date().toISOString();
          if (tracked !== null) await makeCheckpointBefore(this.#context, state, tracked, within);
          await this.#make(state, record, within);
          return created;
        },
      );
      record = { ...record, created: frozen.result, quiesced: frozen.quiesced };
      if (tracked !== null) await rememberCheckpoint(this.#context, state, tracked, signal);
      const facts = await readSnapshot(libvirt, domain, snapshotId, signal);
      record = await snapshots.save({ ...record, state: 'ready', domainXml: facts?.domainXml ?? null });
      const { quiesced, checkpoint: made } = record;
      const targets = record.disks.map(({ target }) => target);
      const about = { snapshotId, owner, vmId: vm.uuid, disks: targets, quiesced, checkpoint: made };
      events.emit({ kind: 'snapshotCreated', ...about });
      return resultOf(record);
    } catch (error) {
      // Without libvirt's own answer it may still be at work on it.
      const answered =
        error instanceof AgentError && error.name !== 'Timeout' && error.name !== 'LibvirtUnavailable';
      const undo = rollBackSnapshot(this.#context, record, {
        late: !answered,
        signal: AbortSignal.timeout(points.stateMs.halfWay), // the verb's own deadline may have passed by now
      });
      await undo.catch((cause: unknown) =>
        log.error(
          { snapshotId, vmId, err: cause },
          'a snapshot could not be taken back; the next start tries again',
        ),
      );
      throw error;
    }
  }

  /** Takes back what a call of that id left half-way that could not be taken back then. */
  async #clear({ uuid }: SnapshotRecord['vm'], snapshotId: string, signal: AbortSignal): Promise<void> {
    const left = findSnapshot(this.#context.snapshots, uuid, snapshotId);
    if (left?.state === 'making') await rollBackSnapshot(this.#context, left, { late: false, signal });
  }

  async #make({ domain, config }: DomainState, record: SnapshotRecord, signal: AbortSignal): Promise<void> {
    const { snapshotId, disks } = record;
    try {
      await this.#context.libvirt.snapshots.create(
        domain,
        snapshotXml(snapshotId, disks, config),
        SnapshotCreateFlag.diskOnly | SnapshotCreateFlag.atomic,
        { signal },
      );
    } catch (cause) {
      const about = { vmId: domain.uuid };
      if (hasCode(cause, ErrorCode.blockCopyActive)) {
        throw new AgentError(
          'BackupBusy',
          `A block job runs on a disk of ${domain.name} (${cause.message}); make the snapshot when it has ended.`,
          { ...about, cause },
        );
      }
      const fault = libvirtFault(cause, 'SnapshotFailed', `make a snapshot of ${domain.name}`, about);
      // libvirt 9.0, src/qemu/qemu_snapshot.c, qemuSnapshotPrepare: only where the VM is off.
      if (fault instanceof AgentError && /while checkpoint exists/.test(fault.message)) {
        throw new AgentError(
          'SnapshotFailed',
          `libvirt makes no snapshot of ${domain.name} while it is off and has checkpoints; start it first, or back up ` +
            'its disks as they are.',
          { ...fault.details, cause },
        );
      }
      throw fault;
    }
  }
}

/**
 * The disks that a caller names, or all that can take part: those that `findDisk` would refuse, and read-only ones,
 * which do not change, are left out.
 */
function chooseDisks(state: DomainState, names: readonly string[] | undefined): DomainDisk[] {
  const { domain, config } = state;
  const chosen =
    names === undefined
      ? config.disks.filter((disk) => whyUnsupported(disk) === null && !disk.readonly)
      : findDisks(state, names, (index) => `/disks/${index}`);
  const fixed = chosen.find(({ readonly }) => readonly);
  if (chosen.length > 0 && fixed === undefined) return chosen;
  throw new AgentError(
    'UnsupportedDisk',
    fixed === undefined
      ? `${domain.name} has no disk that a snapshot can be made of; listDisks shows those that can.`
      : `The disk ${fixed.target} of ${domain.name} is read-only and does not change; leave it out.`,
    { vmId: domain.uuid, ...(fixed !== undefined && { disk: fixed.target }) },
  );
}

/** What the disk writes to now, checked, and what it is to write to. */
async function planDisk(
  { target, source }: DomainDisk,
  allowedRoots: readonly string[],
): Promise<SnapshotDiskRecord> {
  const path = source.path ?? '';
  const [top] = await readChain({ path, format: knownFormat(source.format ?? 'raw', path) }, allowedRoots);
  if (top === undefined) throw new Error(`${path} has no layer`);
  const block = (await stat(top.path)).isBlockDevice();
  return {
    target,
    frozen: top.path,
    frozenFormat: top.format,
    active: overlayPath({ path: top.path, block }, allowedRoots),
    activeFile: null,
  };
}

function resultOf({
  snapshotId,
  vm,
  created,
  quiesced,
  checkpoint,
  disks,
}: SnapshotRecord): CreateSnapshotResult {
  return {
    snapshotId,
    vmId: vm.uuid,
    created,
    quiesced,
    ...(checkpoint !== null && { checkpoint }),
    disks: disks.map(({ target, frozen, active }) => ({ disk: target, frozen, active })),
  };
}

function taken({ uuid, name }: SnapshotRecord['vm'], snapshotId: string, why: string): AgentError {
  return new AgentError('AlreadyExists', `The snapshot "${snapshotId}" of ${name} ${why}; use a new id.`, {
    vmId: uuid,
  });
}
