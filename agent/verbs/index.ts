import { listBackups, startBackup, stopBackup } from './backups.js';
import { confirmCheckpoint, deleteCheckpoint, listCheckpoints, redefineCheckpoints } from './checkpoints.js';
import { drain } from './drain.js';
import { getChangedBlocks } from './get-changed-blocks.js';
import { getHostInfo } from './get-host-info.js';
import { hotplugDisk, hotunplugDisk } from './hotplug-disk.js';
import { cancelJob, getJob, listJobs } from './jobs.js';
import { listDisks } from './list-disks.js';
import { getExport, listExports } from './list-exports.js';
import { mountDisk, unmountDisk } from './mount-disk.js';
import { prepareBackupDisk } from './prepare-backup-disk.js';
import { renewBackup, renewExport } from './renew.js';
import type { Services } from './services.js';
import { createSnapshot, deleteSnapshot, getSnapConfig, listSnapshots } from './snapshots.js';
import { teardownBackupDisk } from './teardown-backup-disk.js';
import type { VerbTable } from './verb.js';
import { waitEvents } from './wait-events.js';

/** All verbs, on these services. */
export function verbTable(services: Services): VerbTable {
  return {
    prepareBackupDisk: prepareBackupDisk(services),
    teardownBackupDisk: teardownBackupDisk(services),
    mountDisk: mountDisk(services),
    unmountDisk: unmountDisk(services),
    hotplugDisk: hotplugDisk(services),
    hotunplugDisk: hotunplugDisk(services),
    getChangedBlocks: getChangedBlocks(services),
    startBackup: startBackup(services),
    stopBackup: stopBackup(services),
    listBackups: listBackups(services),
    listCheckpoints: listCheckpoints(services),
    confirmCheckpoint: confirmCheckpoint(services),
    deleteCheckpoint: deleteCheckpoint(services),
    redefineCheckpoints: redefineCheckpoints(services),
    createSnapshot: createSnapshot(services),
    getSnapConfig: getSnapConfig(services),
    listSnapshots: listSnapshots(services),
    deleteSnapshot: deleteSnapshot(services),
    getJob: getJob(services),
    listJobs: listJobs(services),
    cancelJob: cancelJob(services),
    drain: drain(services),
    listExports: listExports(services),
    getExport: getExport(services),
    renewExport: renewExport(services),
    renewBackup: renewBackup(services),
    listDisks: listDisks(services),
    getHostInfo: getHostInfo(services),
    waitEvents: waitEvents(services),
  };
}
