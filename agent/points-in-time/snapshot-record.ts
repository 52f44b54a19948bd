import { type LivingRecord, Registry } from '../host/registry.js';
import { withinVm } from './checkpoint-record.js';

export const SNAPSHOT_RECORD_VERSION = 1;

/** A snapshot of ours, written down before libvirt makes it. */
export interface SnapshotRecord extends LivingRecord {
  version: typeof SNAPSHOT_RECORD_VERSION;
  kind: 'snapshot';
  snapshotId: string;
  request: string;
  owner: string;
  vm: { uuid: string; name: string };
  /** `merging` from the first step of a merge on: it can no longer be exported, only deleted. */
  state: 'making' | 'ready' | 'merging' | 'ended';
  quiesced: boolean;
  disks: { target: string; frozen: string; frozenFormat: string; active: string }[];
  /** The VM's configuration at that time, with and without its secrets. */
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
