import type { Quiesce } from '../domains/freeze.js';
import type { FileId } from '../host/open-files.js';
import {
  count,
  flag,
  listOf,
  nullable,
  object,
  oneOf,
  optional,
  path,
  text,
  time,
  vm,
  withRule,
} from '../host/record-shape.js';
import { endsInState, type LivingRecord, Registry } from '../host/registry.js';
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
  /**
   * From before the VM is told to go over to `frozen`, until it is seen to write to `active`: should libvirt lose it in
   * between, nobody can say which of the two files it has written to last.
   */
  goingOver?: boolean;
  /**
   * From before the merge of a lower layer is begun: what lies above `active`. That this lies on `frozen` itself shows, also
   * after a crash, that the merge is done.
   */
  above?: FileId | null;
  /**
   * From before libvirt is told to merge it, the VM being off: libvirt drops what it knows of the snapshot when all such
   * disks are merged, and not before.
   */
  byLibvirt?: boolean;
  /** It has been merged: only from then on may its overlay be removed. */
  merged?: boolean;
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

const fileId = object<FileId>({ dev: count, ino: count });

const snapshotShape = withRule(
  object<SnapshotRecord>({
    version: oneOf(SNAPSHOT_RECORD_VERSION),
    kind: oneOf('snapshot'),
    created: time,
    ended: nullable(time),
    snapshotId: text,
    request: nullable(text),
    owner: text,
    vm,
    state: oneOf('making', 'ready', 'merging', 'ended'),
    quiesce: oneOf('no', 'try', 'require'),
    quiesced: flag,
    disks: listOf(
      object<SnapshotDiskRecord>({
        target: text,
        frozen: path,
        frozenFormat: text,
        active: path,
        activeFile: nullable(fileId),
        goingOver: optional(flag),
        above: optional(nullable(fileId)),
        byLibvirt: optional(flag),
        merged: optional(flag),
      }),
    ),
    domainXml: nullable(text),
    checkpoint: nullable(text),
    jobId: nullable(text),
  }),
  endsInState,
);

export type SnapshotRegistry = Registry<SnapshotRecord>;

export function snapshotRegistry(state: string): SnapshotRegistry {
  return new Registry<SnapshotRecord>(state, {
    folder: 'snapshots',
    kind: 'snapshot',
    version: SNAPSHOT_RECORD_VERSION,
    idOf: ({ vm, snapshotId }) => withinVm(vm.uuid, snapshotId),
    shape: snapshotShape,
    remains: (record) => ({ ...record, request: null, disks: [], domainXml: null }),
  });
}

/** The record of a VM's snapshot, ended ones included. */
export function findSnapshot(
  registry: SnapshotRegistry,
  uuid: string,
  snapshotId: string,
): SnapshotRecord | undefined {
  return registry.find(withinVm(uuid, snapshotId));
}

/** The record of a snapshot that ends now. */
export function endedNow(record: SnapshotRecord): SnapshotRecord {
  return { ...record, state: 'ended', ended: new Date().toISOString() };
}
