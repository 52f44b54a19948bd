import { backupDisk, stopBackup as endBackup } from '../exports/backups.js';
import { shownLease } from '../host/lease.js';
import { joining } from './joining.js';
import { exportCall, type Services } from './services.js';
import type { Verb } from './verb.js';

export const startBackup =
  ({ backupPreparation }: Services): Verb<'startBackup'> =>
  (params, call) =>
    backupPreparation.start(params, exportCall(call));

export const stopBackup = ({ exports }: Services): Verb<'stopBackup'> =>
  joining((params, call) => endBackup(exports, params, exportCall(call)));

export const listBackups =
  ({ exports: { backups, clock }, access }: Services): Verb<'listBackups'> =>
  async ({ vmId }, { identity, signal }) => {
    const sees = await access.sight(identity, signal);
    return {
      backups: backups
        .allLive()
        .filter(({ exportId }) => exportId === null)
        .filter(({ owner, vm }) => sees({ owner, vmId: vm.uuid }))
        .filter(({ vm }) => vmId === undefined || vm.uuid === vmId || vm.name === vmId)
        .map((record) => ({
          backupId: record.backupId,
          vmId: record.vm.uuid,
          owner: record.owner,
          created: record.created,
          state: record.state === 'ended' ? 'ending' : record.state,
          error: record.error,
          quiesced: record.quiesced,
          checkpoint: record.checkpoint,
          disks: record.disks.map(backupDisk),
          lease: shownLease(clock, record.lease),
        })),
    };
  };
