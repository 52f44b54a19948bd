import { createHash } from 'node:crypto';
import {
  count,
  listOf,
  nullable,
  object,
  oneOf,
  path,
  text,
  time,
  vm,
  withRule,
} from '../host/record-shape.js';
import { endsInState, type LivingRecord, Registry } from '../host/registry.js';

export const CHECKPOINT_RECORD_VERSION = 1;

/** A disk as it was when a checkpoint of it was made. */
export interface CheckpointDiskRecord {
  target: string;
  /** Bytes: shrinking and growing back loses changes without a trace, any difference is named. */
  capacity: number;
  /** The files of its backing chain, top first: another image under the same name is not the same disk. */
  files: KnownFile[];
}

/**
 * A file as it is told again later. A number of a removed file soon belongs to another one, and that of the device
 * changes with a mount: only together with the time of its making is it a name.
 */
export interface KnownFile {
  path: string;
  dev: number;
  ino: number;
  /** Nanoseconds since 1970, in decimal (statx, stx_btime); `0` where the file system does not keep it. */
  born: string;
}

/** A checkpoint of ours, written down before libvirt makes it. */
export interface CheckpointRecord extends LivingRecord {
  version: typeof CHECKPOINT_RECORD_VERSION;
  kind: 'checkpoint';
  vm: { uuid: string; name: string };
  /** Its name in libvirt, and of the bitmaps. */
  checkpoint: string;
  parent: string | null;
  /** `pending` until the backup is called good; `making` until libvirt has it; `deleting` until it is gone. */
  state: 'making' | 'pending' | 'good' | 'deleting' | 'ended';
  /** What decides over it: the backup, the export or the snapshot that it was made with. */
  madeBy: { kind: 'backup' | 'export' | 'snapshot'; id: string };
  disks: CheckpointDiskRecord[];
  /** libvirt's own time of it (seconds since 1970): another checkpoint of that name is not this one. */
  creationTime: string | null;
  /** libvirt's XML of it, from which it can be defined again. */
  xml: string | null;
}

const checkpointShape = withRule(
  object<CheckpointRecord>({
    version: oneOf(CHECKPOINT_RECORD_VERSION),
    kind: oneOf('checkpoint'),
    created: time,
    ended: nullable(time),
    vm,
    checkpoint: text,
    parent: nullable(text),
    state: oneOf('making', 'pending', 'good', 'deleting', 'ended'),
    madeBy: object<CheckpointRecord['madeBy']>({ kind: oneOf('backup', 'export', 'snapshot'), id: text }),
    disks: listOf(
      object<CheckpointDiskRecord>({
        target: text,
        capacity: count,
        files: listOf(object<KnownFile>({ path, dev: count, ino: count, born: text })),
      }),
    ),
    creationTime: nullable(text),
    xml: nullable(text),
  }),
  endsInState,
);

export type CheckpointRegistry = Registry<CheckpointRecord>;

export function checkpointRegistry(state: string): CheckpointRegistry {
  return new Registry<CheckpointRecord>(state, {
    folder: 'checkpoints',
    kind: 'checkpoint',
    version: CHECKPOINT_RECORD_VERSION,
    idOf: ({ vm, checkpoint }) => withinVm(vm.uuid, checkpoint),
    shape: checkpointShape,
    remains: (record) => ({ ...record, disks: [], xml: null }),
  });
}

/** A key for what is unique within a VM, safe as a file name whatever the name. */
export function withinVm(uuid: string, name: string): string {
  return `${uuid}-${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
}
