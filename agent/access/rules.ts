/** Which role each verb needs, and what it is about: the one table of who may do what. */
import type { MountDiskParams, Verbs } from '../api/generated.js';
import type { Role } from './identity.js';

/** A thing that a call is about, by which it is decided. */
export type Subject =
  /** Bound to a VM, which the caller's role has to be for. */
  | { kind: 'vm'; vmId: string }
  /** An image file: counts as the VM whose chain it is in, read as that VM reads it; in none, it is for admins. */
  | { kind: 'path'; path: string; format: string }
  /** Where an image is to be made: a VM may be waiting for its disk there. */
  | { kind: 'newPath'; path: string }
  /** What belongs to the identity that made it. */
  | { kind: 'export' | 'backup' | 'job'; id: string }
  /** The export that a drive is of; of another host's, that drive in that VM. */
  | { kind: 'drive'; vmId: string; serial: string }
  /** What is plugged into a VM at a target. */
  | { kind: 'target'; vmId: string; target: string };

interface Rule<P> {
  /** The least role; where it depends on the params, by them. */
  role: Role | ((params: P) => Role);
  /** Whether it changes nothing: a thing may then be seen by observers of its VM, too. */
  reads?: true;
  subjects?(params: P): Subject[];
}

type Rules = { readonly [N in Exclude<keyof Verbs, 'rpc.discover'>]: Rule<Verbs[N]['params']> };

const ofVm = ({ vmId }: { vmId: string }): Subject[] => [{ kind: 'vm', vmId }];
const ofVmIfNamed = ({ vmId }: { vmId?: string }): Subject[] =>
  vmId === undefined ? [] : [{ kind: 'vm', vmId }];
const ofExport = ({ exportId }: { exportId: string }): Subject[] => [{ kind: 'export', id: exportId }];
const ofBackup = ({ backupId }: { backupId: string }): Subject[] => [{ kind: 'backup', id: backupId }];
const roleFor = ({ access }: Pick<MountDiskParams, 'access'>): Role =>
  access === 'read-write' ? 'restore' : 'backup';
const ofImage = ({
  exportId,
  vmId,
  path,
  format = '',
  backupId,
}: Pick<MountDiskParams, 'exportId' | 'vmId' | 'path' | 'backupId'> & { format?: string }): Subject[] => [
  { kind: 'export', id: exportId },
  ...ofVmIfNamed(vmId === undefined ? {} : { vmId }),
  ...(path === undefined ? [] : [{ kind: 'path', path, format } as const]),
  ...(backupId === undefined ? [] : ofBackup({ backupId })),
];
const ofJob = ({ jobId }: { jobId: string }): Subject[] => [{ kind: 'job', id: jobId }];

/** What lists and events show is filtered besides (`AccessPolicy.sight`). */
export const rules: Rules = {
  getHostInfo: { role: 'observer', reads: true },
  listExports: { role: 'observer', reads: true, subjects: ofVmIfNamed },
  getExport: { role: 'observer', reads: true, subjects: ofExport },
  getChangedBlocks: { role: 'observer', reads: true, subjects: ofExport },
  listBackups: { role: 'observer', reads: true, subjects: ofVmIfNamed },
  listJobs: { role: 'observer', reads: true, subjects: ofVmIfNamed },
  getJob: { role: 'observer', reads: true, subjects: ofJob },
  listDisks: { role: 'observer', reads: true, subjects: ofVm },
  listSnapshots: { role: 'observer', reads: true, subjects: ofVm },
  getSnapConfig: { role: 'observer', reads: true, subjects: ofVm },
  listCheckpoints: { role: 'observer', reads: true, subjects: ofVm },
  waitEvents: { role: 'observer', reads: true },

  prepareBackupDisk: { role: roleFor, subjects: ofImage },
  mountDisk: {
    role: roleFor,
    subjects: ({ create, path, ...params }) => {
      if (path === undefined) return ofImage(params);
      if (create === undefined) return ofImage({ ...params, path });
      return [...ofImage(params), { kind: 'newPath', path }];
    },
  },
  teardownBackupDisk: { role: 'backup', subjects: ofExport },
  unmountDisk: { role: 'backup', subjects: ofExport },
  renewExport: { role: 'backup', subjects: ofExport },
  hotplugDisk: {
    role: 'backup',
    subjects: ({ vmId, drive }) => [
      { kind: 'vm', vmId },
      { kind: 'drive', vmId, serial: drive.serial },
    ],
  },
  hotunplugDisk: {
    role: 'backup',
    subjects: ({ vmId, drive, target }) => [
      { kind: 'vm', vmId },
      ...(drive === undefined ? [] : [{ kind: 'drive', vmId, serial: drive.serial } as const]),
      ...(target === undefined ? [] : [{ kind: 'target', vmId, target } as const]),
    ],
  },
  startBackup: {
    role: 'backup',
    subjects: ({ backupId, vmId }) => [
      { kind: 'backup', id: backupId },
      { kind: 'vm', vmId },
    ],
  },
  stopBackup: { role: 'backup', subjects: ofBackup },
  renewBackup: { role: 'backup', subjects: ofBackup },
  createSnapshot: { role: 'backup', subjects: ofVm },
  deleteSnapshot: { role: 'backup', subjects: ofVm },
  confirmCheckpoint: { role: 'backup', subjects: ofVm },
  deleteCheckpoint: { role: 'backup', subjects: ofVm },
  redefineCheckpoints: { role: 'backup', subjects: ofVm },
  cancelJob: { role: 'backup', subjects: ofJob },
  drain: { role: 'admin' },
};
