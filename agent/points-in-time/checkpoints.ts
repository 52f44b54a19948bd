import type {
  DeleteCheckpointParams,
  DeleteCheckpointResult,
  ListCheckpointsResult,
  RedefineCheckpointsParams,
  RedefineCheckpointsResult,
} from '../api/generated.js';
import {
  checkpointName,
  findCheckpoint,
  readCheckpoints,
  redefineCheckpoint,
  withParent,
} from '../domains/checkpoints.js';
import { type DomainState, findDomainIfAny, readDomain, readDomainIfAny } from '../domains/lookup.js';
import { refuseMigrating } from '../domains/migration.js';
import { AgentError, InvalidParams } from '../errors.js';
import { brokenCheckpoints } from './broken-checkpoints.js';
import { dropCheckpoint } from './checkpoint-life.js';
import { type CheckpointRecord, withinVm } from './checkpoint-record.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { refuseRead } from './refuse-read.js';

type CheckpointRow = ListCheckpointsResult['checkpoints'][number];

/**
 * All checkpoints of a VM, the oldest first: libvirt's, and those of ours that it has lost. By their times and not by
 * their parents alone: libvirt forgets whose child one is when it fails to delete that.
 */
export async function listCheckpoints(
  context: PointsContext,
  vmId: string,
  signal: AbortSignal,
): Promise<CheckpointRow[]> {
  const { libvirt } = context;
  const state = await readDomain(libvirt, vmId, signal);
  await refuseMigrating(libvirt, state.domain, signal);
  const rows: CheckpointRow[] = [];
  const known = new Set<string>();
  const all = await readCheckpoints(libvirt, state.domain, signal);
  const recordOf = (name: string) => ourRecord(context, state.domain.uuid, name);
  const reasons = await brokenCheckpoints(context, state, all, recordOf, signal);
  for (const facts of all) {
    known.add(facts.name);
    const record = recordOf(facts.name);
    const broken = reasons.get(facts.name) ?? null;
    rows.push({
      checkpoint: facts.name,
      parent: facts.parent,
      created: timeOf(facts.creationTime),
      disks: facts.disks,
      state: record === undefined ? 'foreign' : broken !== null ? 'broken' : stateOf(record),
      reason: record === undefined ? null : broken,
      xml: facts.xml,
    });
  }
  const lost = ours(context, state).filter(({ checkpoint }) => !known.has(checkpoint));
  return [...rows, ...lost.map(lostRow)].sort(
    ({ created: a }, { created: b }) => Date.parse(a ?? '') - Date.parse(b ?? '') || 0,
  );
}

function ourRecord({ checkpoints }: PointsContext, uuid: string, name: string): CheckpointRecord | undefined {
  const record = checkpoints.find(withinVm(uuid, name));
  return record?.ended === null ? record : undefined;
}

function ours({ checkpoints }: PointsContext, { domain }: DomainState): CheckpointRecord[] {
  return checkpoints.allLive().filter(({ vm }) => vm.uuid === domain.uuid);
}

function stateOf({ state }: CheckpointRecord): 'pending' | 'good' {
  return state === 'good' ? 'good' : 'pending';
}

function lostRow({ checkpoint, parent, creationTime, disks, xml }: CheckpointRecord): CheckpointRow {
  return {
    checkpoint,
    parent,
    created: timeOf(creationTime),
    disks: disks.map(({ target }) => target),
    state: 'broken',
    reason: 'libvirt has lost it; define it again with redefineCheckpoints.',
    xml,
  };
}

function timeOf(seconds: string | null): string | null {
  return seconds === null ? null : new Date(Number(seconds) * 1000).toISOString();
}

/**
 * Deletes a checkpoint of ours that nothing counts from at the moment; one that is gone is success.
 * @throws AgentError `NotOurs`, `ExportInUse`, `MigrationInProgress`, `CheckpointError`; of a VM that is off as `readChain`
 */
export async function deleteCheckpoint(
  context: PointsContext,
  { vmId, checkpoint }: DeleteCheckpointParams,
  call: PointsCall,
): Promise<DeleteCheckpointResult> {
  const { libvirt } = context;
  const domain = await findDomainIfAny(libvirt, vmId, call.signal);
  // Of a VM that is gone our records still know the name.
  const known = context.checkpoints.allLive().find(({ vm }) => vm.uuid === vmId || vm.name === vmId)?.vm;
  const uuid = domain?.uuid ?? known?.uuid ?? vmId;
  const record = ourRecord(context, uuid, checkpoint);
  if (record === undefined) {
    if (domain === null || (await findCheckpoint(libvirt, domain, checkpoint, call.signal)) === null) {
      return { vmId: uuid, checkpoint };
    }
    throw new AgentError(
      'NotOurs',
      `The checkpoint "${checkpoint}" of ${domain.name} was made by another product; delete it with that.`,
      { vmId: uuid },
    );
  }
  return exclusively(context, record.vm, `deleteCheckpoint "${checkpoint}"`, async () => {
    const now = ourRecord(context, uuid, checkpoint); // another call may have ended it meanwhile
    if (now !== undefined) await drop(context, now, call.signal);
    return { vmId: uuid, checkpoint };
  });
}

async function drop(context: PointsContext, record: CheckpointRecord, signal: AbortSignal): Promise<void> {
  refuseInUse(context, record);
  const state = await readDomainIfAny(context.libvirt, record.vm.uuid, signal);
  if (state !== null) await refuseRead(context, state, record);
  await dropCheckpoint(context, record, signal);
}

/** @throws AgentError `ExportInUse` for a checkpoint whose backup runs: it waits for it, or counts from it */
function refuseInUse({ backups }: PointsContext, { vm, checkpoint, state, madeBy }: CheckpointRecord): void {
  const user = backups
    .allLive()
    .find(
      (backup) =>
        backup.vm.uuid === vm.uuid &&
        (backup.checkpoint === checkpoint || backup.disks.some(({ since }) => since === checkpoint)),
    );
  const undecided = state === 'making' || state === 'pending';
  if (user === undefined && (!undecided || madeBy.kind === 'snapshot')) return;
  throw new AgentError(
    'ExportInUse',
    `The checkpoint "${checkpoint}" of ${vm.name} belongs to the ${madeBy.kind} "${madeBy.id}" that has not ended, or a backup counts from it; end that first.`,
    { vmId: vm.uuid },
  );
}

/**
 * Tells libvirt of checkpoints that it has lost, parents first. One that fails does not keep the others from it.
 * @throws InvalidParams for XML of another name
 */
export async function redefineCheckpoints(
  context: PointsContext,
  { vmId, checkpoints }: RedefineCheckpointsParams,
  call: PointsCall,
): Promise<RedefineCheckpointsResult> {
  const { libvirt } = context;
  refuseOtherNames(checkpoints ?? []);
  const state = await readDomain(libvirt, vmId, call.signal);
  const { domain, running } = state;
  await refuseMigrating(libvirt, domain, call.signal);
  return exclusively(context, domain, 'redefineCheckpoints', async () => {
    const wanted: Redefinition[] = checkpoints ?? remembered(context, state);
    const known = new Set<string>();
    for (const { name } of await readCheckpoints(libvirt, domain, call.signal)) known.add(name);
    const results: RedefineCheckpointsResult['checkpoints'] = [];
    for (const { checkpoint, xml, ancestors } of wanted) {
      if (known.has(checkpoint)) {
        results.push({ checkpoint, state: 'known', reason: null });
        continue;
      }
      try {
        const parent = ancestors?.find((name) => known.has(name)) ?? null;
        const told = ancestors === undefined ? xml : withParent(xml, parent);
        await redefineCheckpoint(libvirt, domain, told, running, call.signal);
        known.add(checkpoint);
        results.push({ checkpoint, state: 'defined', reason: null });
      } catch (error) {
        if (!(error instanceof AgentError) || error.name !== 'CheckpointError') throw error;
        results.push({ checkpoint, state: 'failed', reason: error.message });
      }
    }
    return { vmId: domain.uuid, checkpoints: results };
  });
}

/**
 * libvirt takes the name from the XML, and a definition of that name for the old one's successor: another product's
 * checkpoint would be changed under the name of one that is lost.
 * @throws InvalidParams
 */
function refuseOtherNames(given: readonly { checkpoint: string; xml: string }[]): void {
  for (const [index, { checkpoint, xml }] of given.entries()) {
    const name = checkpointName(xml);
    if (name === checkpoint) continue;
    const path = `/checkpoints/${index}/xml`;
    const message =
      name === null ? 'is no XML of a checkpoint' : `is of a checkpoint "${name}", not "${checkpoint}"`;
    throw new InvalidParams(`Invalid params: ${path} ${message}.`, [{ path, message }]);
  }
}

/** A checkpoint to be defined again; `ancestors` are its possible parents, the nearest first. Absent: as its XML says. */
interface Redefinition {
  checkpoint: string;
  xml: string;
  ancestors?: string[];
}

/** Those of ours that libvirt had, the oldest first. A parent that is gone by now is replaced by the next older one. */
function remembered(context: PointsContext, state: DomainState): Redefinition[] {
  const all = ours(context, state);
  return all.flatMap(({ checkpoint, xml, parent }, index) => {
    const older = all.slice(0, index).map((record) => record.checkpoint);
    const ancestors = [...(parent === null ? [] : [parent]), ...older.reverse()];
    return xml === null ? [] : [{ checkpoint, xml, ancestors }];
  });
}
