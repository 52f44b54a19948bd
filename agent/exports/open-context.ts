import type { Config } from '../config/config.js';
import { PendingThaws } from '../domains/freeze.js';
import { thawRegistry } from '../domains/thaw-record.js';
import type { EventJournal } from '../events/journal.js';
import { bootClock } from '../host/boot-clock.js';
import { isSystemdBooted } from '../host/booted.js';
import { KeyedLocks } from '../host/locks.js';
import { childProcesses } from '../host/process-child.js';
import { unitProcesses } from '../host/process-unit.js';
import { findConfinement } from '../images/find-confinement.js';
import { type Log, moduleLog } from '../log.js';
import { backupRegistry } from '../points-in-time/backup-record.js';
import { checkpointRegistry } from '../points-in-time/checkpoint-record.js';
import { DrainGate } from '../points-in-time/drain-gate.js';
import { jobRegistry } from '../points-in-time/job-record.js';
import { RunningJobs } from '../points-in-time/running-jobs.js';
import { snapshotRegistry } from '../points-in-time/snapshot-record.js';
import type { ExportsContext } from './context.js';
import { driveRegistry } from './drive-record.js';
import { exportRegistry, readerOf, writerOf } from './registry.js';
import { exportSettings, pointsSettings } from './settings.js';

/**
 * Reads the records and finds what this host has to run servers by.
 * @throws NewerRecordError for a record of a later version
 */
export async function openContext(
  config: Config,
  { libvirt, events, log }: { libvirt: ExportsContext['libvirt']; events: EventJournal; log: Log },
): Promise<ExportsContext> {
  const { run, state } = config.paths;
  // Only root is obeyed by systemd.
  const by = process.geteuid?.() === 0 && (await isSystemdBooted()) ? 'units' : 'namespaces';
  const registry = exportRegistry(state);
  const thaws = thawRegistry(state);
  const context: ExportsContext = {
    registry,
    drives: driveRegistry(state),
    backups: backupRegistry(state),
    checkpoints: checkpointRegistry(state),
    snapshots: snapshotRegistry(state),
    jobs: jobRegistry(state),
    thaws: new PendingThaws(thaws),
    running: new RunningJobs(),
    drains: new DrainGate(),
    events,
    readerOf: (files) => readerOf(registry, files),
    writerOf: (files) => writerOf(registry, files),
    libvirt,
    processes: by === 'units' ? unitProcesses : childProcesses,
    locks: new KeyedLocks(),
    log: moduleLog(log, 'exports'),
    clock: await bootClock(),
    settings: exportSettings(config),
    points: pointsSettings(config, await findConfinement(by, config.images.user, run, log)),
  };
  for (const registry of [
    context.registry,
    context.drives,
    context.backups,
    context.checkpoints,
    context.snapshots,
    context.jobs,
    thaws,
  ]) {
    for (const aside of await registry.load()) log.error(aside, 'set an unreadable record aside');
  }
  return context;
}
