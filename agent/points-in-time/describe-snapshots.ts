import type { GetSnapConfigResult, SnapshotDisk, SnapshotRow } from '../api/generated.js';
import { findDomain } from '../domains/lookup.js';
import { refuseMigrating } from '../domains/migration.js';
import { nvramOf, type SnapshotFacts, tpmOf } from '../domains/snapshot-xml.js';
import { noSuchSnapshot, readSnapshot, readSnapshots } from '../domains/snapshots.js';
import type { PointsContext } from './context.js';
import { findSnapshot, type SnapshotRecord } from './snapshot-record.js';
import { snapshotVm } from './snapshot-vm.js';

/**
 * The VM's configuration as it was at a snapshot, ours or another program's: libvirt keeps it with the snapshot, and we
 * with our record, so that it is there after the VM's hardware has changed, and after the VM is gone.
 * @param secrets with passwords in it, which only libvirt has: for those who may see them
 * @throws AgentError `NoSuchVM`, `NoSuchSnapshot`, `MigrationInProgress`
 */
export async function describeSnapshot(
  context: PointsContext,
  wanted: { vmId: string; snapshotId: string },
  secrets: boolean,
  signal: AbortSignal,
): Promise<GetSnapConfigResult> {
  const { libvirt } = context;
  const { snapshotId } = wanted;
  const vm = await snapshotVm(context, wanted, signal);
  if (!vm.gone) await refuseMigrating(libvirt, await findDomain(libvirt, vm.uuid, signal), signal);
  const record = liveRecord(context, vm.uuid, snapshotId);
  const facts = vm.gone
    ? undefined
    : await readSnapshot(libvirt, { ...vm, id: -1 }, snapshotId, signal, { secrets });
  const domainXml = facts?.domainXml ?? record?.domainXml ?? null;
  if (domainXml === null) throw noSuchSnapshot(vm, snapshotId);
  return {
    snapshotId,
    created: record?.created ?? facts?.created ?? new Date(0).toISOString(),
    domainXml,
    disks: facts === undefined ? disksOfRecord(record) : disksOfFacts(facts),
    nvram: nvramOf(domainXml),
    tpm: tpmOf(domainXml),
  };
}

/** The VM's snapshots, ours and others', parents before children; those that only our records have come last. */
export async function listSnapshots(
  context: PointsContext,
  vmId: string,
  signal: AbortSignal,
): Promise<SnapshotRow[]> {
  const { libvirt, snapshots } = context;
  const domain = await findDomain(libvirt, vmId, signal);
  await refuseMigrating(libvirt, domain, signal);
  const known = await readSnapshots(libvirt, domain, signal);
  const rows: SnapshotRow[] = known.map((facts) => {
    const record = liveRecord(context, domain.uuid, facts.name);
    return {
      snapshotId: facts.name,
      parent: facts.parent,
      created: record?.created ?? facts.created,
      kind: facts.kind,
      memory: facts.memory,
      state: stateOf(record),
      quiesced: record === undefined || record.request === null ? null : record.quiesced,
      jobId: record?.jobId ?? null,
      disks: disksOfFacts(facts),
    };
  });
  for (const record of snapshots.allLive()) {
    if (record.vm.uuid !== domain.uuid || known.some(({ name }) => name === record.snapshotId)) continue;
    rows.push({
      snapshotId: record.snapshotId,
      parent: null,
      created: record.created,
      kind: 'external',
      memory: false,
      state: stateOf(record),
      quiesced: record.request === null ? null : record.quiesced,
      jobId: record.jobId,
      disks: disksOfRecord(record),
    });
  }
  return rows;
}

function liveRecord(
  { snapshots }: PointsContext,
  uuid: string,
  snapshotId: string,
): SnapshotRecord | undefined {
  const record = findSnapshot(snapshots, uuid, snapshotId);
  return record?.ended === null ? record : undefined;
}

function stateOf(record: SnapshotRecord | undefined): SnapshotRow['state'] {
  if (record === undefined || record.state === 'ended') return 'foreign';
  return record.state;
}

function disksOfFacts({ disks }: SnapshotFacts): SnapshotDisk[] {
  return disks.flatMap(({ target, frozen, active }) =>
    frozen === null || active === null ? [] : [{ disk: target, frozen: frozen.path, active }],
  );
}

function disksOfRecord(record: SnapshotRecord | undefined): SnapshotDisk[] {
  return (record?.disks ?? []).map(({ target, frozen, active }) => ({ disk: target, frozen, active }));
}
