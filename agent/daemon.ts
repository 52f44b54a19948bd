#!/usr/bin/env node
import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { Command } from 'commander';
import { apiInfo } from './api/schemas.js';
import { type Config, defaultConfigFile, loadConfig } from './config/config.js';
import { ConfigError } from './config/error.js';
import { showConfig } from './config/show.js';
import { PendingThaws } from './domains/freeze.js';
import { HostFacts } from './domains/host-facts.js';
import { adoptExports } from './exports/adopt.js';
import { BackupPreparation } from './exports/backups.js';
import type { ExportsContext } from './exports/context.js';
import { ExportPreparation } from './exports/prepare.js';
import { exportRegistry, readerOf } from './exports/registry.js';
import { watchExports } from './exports/watch.js';
import { DirectoryInUseError, lockDirectory } from './host/directory-lock.js';
import { KeyedLocks } from './host/locks.js';
import { childProcesses } from './host/process-child.js';
import { NewerRecordError } from './host/records.js';
import { connectLibvirt, type LibvirtClient } from './libvirt/index.js';
import { createLog } from './log.js';
import { adoptBackups } from './points-in-time/adopt-backups.js';
import { adoptSnapshots, sweepSnapshots } from './points-in-time/adopt-snapshots.js';
import { backupRegistry } from './points-in-time/backup-record.js';
import { checkpointRegistry } from './points-in-time/checkpoint-record.js';
import { SnapshotCreation } from './points-in-time/create-snapshot.js';
import { SnapshotDeletion } from './points-in-time/delete-snapshot.js';
import { jobRegistry } from './points-in-time/job-record.js';
import { RunningJobs } from './points-in-time/running-jobs.js';
import { snapshotRegistry } from './points-in-time/snapshot-record.js';
import { watchBackups } from './points-in-time/watch-backups.js';
import { createRpcServer } from './rpc/server.js';
import { verbTable } from './verbs/index.js';

/** Milliseconds that the start waits for libvirt. */
const FIRST_ATTEMPT_MS = 3000;

async function main(): Promise<void> {
  // The daemon shares its host with VMs: V8 would rather let garbage pile up than collect it (reading a map of
  // 600,000 extents page by page grew it by 70 to 170 MiB; with this by 20 to 45, for a third more time).
  setFlagsFromString('--optimize-for-size');
  const program = new Command('vmdiskd')
    .description("Gives backup, scan and restore tools access to VMs' disks over NBD.")
    .version(apiInfo.version)
    .option(
      '--config <file>',
      `TOML file (default ${defaultConfigFile}); conf.d/*.toml beside it is read after it`,
    )
    .option('--check-config', 'say whether the configuration is in order, and end')
    .option('--show-config', 'print the configuration with all defaults, and end')
    .parse();
  const options = program.opts<{ config?: string; checkConfig?: boolean; showConfig?: boolean }>();
  const config = loadConfig(options.config);
  if (options.checkConfig) process.stdout.write('The configuration is in order.\n');
  else if (options.showConfig) process.stdout.write(showConfig(config));
  else await serve(config);
}

/** Loads, wires, adopts, listens, waits for a signal, stops. Exports live on without the daemon. */
async function serve(config: Config): Promise<void> {
  const log = createLog(config.log);
  const unlock = await lockDirectories(config.paths);
  const { uri, socket } = config.libvirt;
  const libvirt = connectLibvirt({ uri, ...(socket !== '' && { socket }) });
  libvirt.on('lost', (error) => log.warn({ err: error }, 'libvirt is gone'));
  libvirt.on('back', () => log.info('libvirt is back'));
  const { run, state, scratch } = config.paths;
  const { allowedRoots } = config.images;
  const registry = exportRegistry(state);
  const exports: ExportsContext = {
    registry,
    backups: backupRegistry(state),
    checkpoints: checkpointRegistry(state),
    snapshots: snapshotRegistry(state),
    jobs: jobRegistry(state),
    thaws: new PendingThaws(),
    running: new RunningJobs(),
    readerOf: (files) => readerOf(registry, files),
    libvirt,
    processes: childProcesses,
    locks: new KeyedLocks(),
    log,
    settings: {
      hostId: config.hostId,
      run,
      allowedRoots,
      qemuGroup: config.qemu.group,
      maxExports: config.limits.exports,
    },
    points: {
      run,
      scratch,
      allowedRoots,
      qemuUser: config.qemu.user,
      scratchReserve: config.limits.scratchReserve,
      mergeRate: config.limits.mergeBytesPerSecond,
    },
  };
  for (const registry of [
    exports.registry,
    exports.backups,
    exports.checkpoints,
    exports.snapshots,
    exports.jobs,
  ]) {
    for (const aside of await registry.load()) log.error(aside, 'set an unreadable record aside');
  }
  const hostFacts = new HostFacts(libvirt);
  const preparation = new ExportPreparation(exports);
  const backupPreparation = new BackupPreparation(exports);
  const snapshotCreation = new SnapshotCreation(exports);
  const snapshotDeletion = new SnapshotDeletion(exports);
  await firstAttempt(libvirt).catch((error) => log.warn({ err: error }, 'libvirt cannot be reached yet'));
  await adoptBackups(exports);
  await adoptExports(exports);
  adoptSnapshots(exports, snapshotDeletion);
  const watches = [watchBackups(exports), watchExports(exports), sweepSnapshots(exports)];
  const rpc = createRpcServer({
    verbs: verbTable({
      config,
      exports,
      preparation,
      backupPreparation,
      snapshotCreation,
      snapshotDeletion,
      hostFacts,
    }),
    limits: config.limits,
    log,
  });
  await hostFacts.refresh();
  await rpc.listenUnix(config.rpc.socket, { group: config.rpc.group });
  log.info({ socket: config.rpc.socket, version: apiInfo.version }, 'ready');
  await stopSignal();
  log.info('stopping; exports and merges live on');
  for (const watch of watches) watch.close();
  await rpc.close();
  await exports.running.close();
  await libvirt.close();
  await unlock();
}

/**
 * Returns when libvirt answers, and throws when it has not: whoever calls right after the start should not meet a
 * daemon that is still connecting, and getHostInfo must be answered though libvirt is down or hangs.
 */
async function firstAttempt(libvirt: LibvirtClient): Promise<void> {
  const over = new AbortController();
  const signal = over.signal;
  try {
    const failed = once(libvirt, 'attemptFailed', { signal }).then(([error]) => Promise.reject(error));
    await Promise.race([libvirt.ready({ timeoutMs: FIRST_ATTEMPT_MS, signal }), failed]);
  } finally {
    over.abort();
  }
}

/** Both at once, so that a mistake in one path does not let two daemons at the same sockets. */
async function lockDirectories({ state, run }: Config['paths']): Promise<() => Promise<void>> {
  const unlock: (() => Promise<void>)[] = [];
  for (const directory of new Set([state, run])) unlock.push(await lockDirectory(directory));
  return async () => {
    for (const one of unlock) await one();
  };
}

function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
}

main().catch((error: unknown) => {
  const expected =
    error instanceof ConfigError || error instanceof NewerRecordError || error instanceof DirectoryInUseError;
  // What the host has in the way (a socket, a path, a permission) is for its operator; a trace is for a mistake of ours.
  const ofHost = error instanceof Error && (error.constructor === Error || 'code' in error);
  console.error(expected || ofHost ? `vmdiskd: ${error.message}` : error);
  process.exit(expected ? 2 : 1);
});
