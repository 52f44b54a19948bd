import type { Quiesce } from '../domains/freeze.js';
import type { FileId } from '../host/open-files.js';
import { type LivingRecord, Registry } from '../host/registry.js';
import { withinVm } from './checkpoint-record.js';

export const SNAPSHOT_RECORD_VERSION = 1;

/** One disk of a snapshot. Paths are real ones, no links. */
export interface SnapshotDiskRecord {
  target: string;
  /** What it wrote to until then. */
  frozen: string;
  frozenFormat: string;
  /** The overlay that was put above. */
  active: string;
  /** Which file that is, from a merge on: only that one is ever removed. */
  activeFile: FileId | null;
}

/** A snapshot of ours, written down before libvirt makes it; and one of somebody else's from its merge on. */
export interface SnapshotRecord extends LivingRecord {
  version: typeof SNAPSHOT_RECORD_VERSION;
  kind: 'snapshot';
  snapshotId: string;
  /** The params of its making as canonical text: what a retry is compared with; null where we did not make it. */
  request: string | null;
  owner: string;
  vm: { uuid: string; name: string };
  /** `merging` from the first step of a merge on: it can no longer be exported, only deleted. */
  state: 'making' | 'ready' | 'merging' | 'ended';
  quiesce: Quiesce;
  quiesced: boolean;
  disks: SnapshotDiskRecord[];
  /** The VM's configuration at that time, without its secrets. */
  domainXml: string | null;
  checkpoint: string | null;
  /** The job that merges it, or did. */
  jobId: string | null;
}

export type SnapshotRegistry = Registry<SnapshotRecord>;

export function snapshotRegistry(state: string): SnapshotRegistry {
  return new Registry<SnapshotRecord>(
    state,
    { folder: 'snapshots', kind: 'snapshot', version: SNAPSHOT_RECORD_VERSION },
    ({ vm, snapshotId }) => withinVm(vm.uuid, snapshotId),
  );
}

/** The record of a VM's snapshot, ended ones included. */
export function findSnapshot(
  registry: SnapshotRegistry,
  uuid: string,
  snapshotId: string,
): SnapshotRecord | undefined {
  return registry.find(withinVm(uuid, snapshotId));
}
