#!/usr/bin/env node
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Command } from 'commander';
import { AccessPolicy } from './access/policy.js';
import { RoleTable } from './access/role-table.js';
import { apiInfo } from './api/schemas.js';
import { type Config, configFrom, defaultConfigFile, loadConfig } from './config/config.js';
import { ConfigError } from './config/error.js';
import { reloadOnHangup } from './config/reload.js';
import { exampleConfig, showConfig } from './config/show.js';
import { keepUnits, writeUnits } from './config/units.js';
import { HostFacts } from './domains/host-facts.js';
import { EventJournal } from './events/journal.js';
import { EventWaits } from './events/waits.js';
import { BackupPreparation } from './exports/backups.js';
import { HostDrain } from './exports/drain.js';
import { openContext } from './exports/open-context.js';
import { ExportPreparation } from './exports/prepare.js';
import { Recovery } from './exports/recovery.js';
import { exportSettings, pointsSettings } from './exports/settings.js';
import { watchAll } from './exports/watch-all.js';
import { whatLivesOn } from './exports/what-lives-on.js';
import { DirectoryInUseError, lockDirectory } from './host/directory-lock.js';
import { InheritedSockets, StaleSocketsError } from './host/inherited-sockets.js';
import { NewerRecordError } from './host/records.js';
import { serviceOf } from './host/service.js';
import { connectLibvirt } from './libvirt/index.js';
import { createLog, moduleLog, setLevel } from './log.js';
import { createGauges } from './metrics/gauges.js';
import { createInstruments } from './metrics/instruments.js';
import { listenMetrics } from './metrics/listen.js';
import { SnapshotCreation } from './points-in-time/create-snapshot.js';
import { SnapshotDeletion } from './points-in-time/delete-snapshot.js';
import { createRpcServer } from './rpc/server.js';
import { verbTable } from './verbs/index.js';

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
    .option('--example-config', 'print a configuration file to begin with, and end')
    .option(
      '--write-units <directory>',
      "write what systemd's generator is to make of the configuration, and end",
    )
    .parse();
  const options = program.opts<Options>();
  if (options.exampleConfig) return void process.stdout.write(exampleConfig(configFrom({})));
  const load = () => loadConfig(options.config);
  const config = load();
  if (options.checkConfig) process.stdout.write('The configuration is in order.\n');
  else if (options.showConfig) process.stdout.write(showConfig(config));
  else if (options.writeUnits !== undefined) writeUnits(options.writeUnits, config);
  else await serve(config, load);
}

interface Options {
  config?: string;
  checkConfig?: boolean;
  showConfig?: boolean;
  exampleConfig?: boolean;
  writeUnits?: string;
}

/** Loads, wires, listens, recovers, waits for a signal, stops. Exports live on without the daemon. */
async function serve(config: Config, load: () => Config): Promise<void> {
  const log = createLog(config.log);
  const service = serviceOf(process.env, moduleLog(log, 'host'));
  const inherited = InheritedSockets.ofProcess();
  const unlock = await lockDirectories(config.paths);
  const { events: kept, eventBytes, eventWaiters } = config.limits;
  const events = await EventJournal.open(
    join(config.paths.state, 'events'),
    { events: kept, bytes: eventBytes },
    moduleLog(log, 'events'),
  );
  const { uri, socket } = config.libvirt;
  const libvirtLog = moduleLog(log, 'libvirt');
  const instruments = createInstruments(apiInfo.version);
  const libvirt = connectLibvirt({
    uri,
    ...(socket !== '' && { socket }),
    onCall: (procedure, ms, error) => {
      const outcome = outcomeOf(error);
      instruments.libvirtCall(procedure, outcome, ms);
      libvirtLog.debug({ procedure, outcome, ms: Math.round(ms) }, 'a call to libvirt');
    },
  });
  libvirt.on('lost', (error) => {
    libvirtLog.warn({ err: error }, 'libvirt is gone');
    events.emit({ kind: 'libvirtLost', reason: error.message });
  });
  libvirt.on('back', () => {
    libvirtLog.info('libvirt is back');
    events.emit({ kind: 'libvirtBack' });
  });
  const exports = await openContext(config, { libvirt, events, log });
  const hostFacts = new HostFacts(libvirt);
  const preparation = new ExportPreparation(exports);
  const backupPreparation = new BackupPreparation(exports);
  const snapshotCreation = new SnapshotCreation(exports);
  const snapshotDeletion = new SnapshotDeletion(exports);
  const hostDrain = new HostDrain(exports);
  const recovery = new Recovery();
  const eventWaits = new EventWaits(events, eventWaiters);
  const access = new AccessPolicy(exports);
  let inForce = config;
  const limits = { ...config.limits };
  const services = { config: () => inForce, access, exports, recovery, hostFacts, eventWaits };
  const rpc = createRpcServer({
    verbs: verbTable({
      ...services,
      preparation,
      backupPreparation,
      snapshotCreation,
      snapshotDeletion,
      hostDrain,
    }),
    limits,
    log: moduleLog(log, 'rpc'),
    recovering: () => !recovery.isDone,
    observe: instruments.verb,
    authorize: (name, params, identity, signal) => access.check(name, params as never, identity, signal),
  });
  const stopped = stopSignal();
  let stopping = false;
  // Before the recovery: a caller that comes right after the start is told to wait, and not that nobody is there.
  await rpc.listenUnix(config.rpc.socket, { group: config.rpc.group, fd: inherited.take('rpc') });
  const roles = new RoleTable(config.roles);
  const network = await rpc.listenNetwork({
    addresses: config.rpc,
    certificates: config.tls,
    inherited,
    identify: (identities) => roles.callerOf(identities),
  });
  const metrics = await listenMetrics(
    { at: config.metrics.listen, group: config.rpc.group, inherited },
    instruments.registry,
    createGauges(instruments.registry, exports),
    log,
  );
  inherited.assertAllTaken();
  // Of systemd: only a unit has one.
  const { RUNTIME_DIRECTORY } = process.env;
  if (RUNTIME_DIRECTORY !== undefined) keepUnits(RUNTIME_DIRECTORY, config);
  const takeOver = (fresh: Config) => {
    network.reload(fresh.tls);
    // Nothing fails from here on: all of it is taken over in one go.
    roles.reload(fresh.roles);
    Object.assign(limits, fresh.limits);
    Object.assign(exports.settings, exportSettings(fresh));
    Object.assign(exports.points, pointsSettings(fresh, exports.points.confinement));
    setLevel(log, fresh.log);
    inForce = fresh;
  };
  reloadOnHangup(config, load, takeOver, log);
  const watchdog = service.watchdog();
  await service.tell('--ready');
  log.info({ socket: config.rpc.socket, version: apiInfo.version }, 'ready');
  const watches: { close(): void }[] = [];
  const recovered = recovery.run(exports, snapshotDeletion, hostDrain).then(() => {
    if (!stopping) watches.push(...watchAll(exports));
  });
  void hostFacts.refresh();
  await stopped;
  stopping = true;
  const livesOn = whatLivesOn(exports);
  log.info(livesOn);
  void service.tell('STOPPING=1', `STATUS=${livesOn}`);
  for (const watch of watches) watch.close();
  events.release();
  await metrics.close();
  await rpc.close();
  await exports.running.close();
  await libvirt.close();
  await recovered;
  await events.close();
  watchdog.close();
  await unlock();
}

function outcomeOf(error: unknown): string {
  if (error === undefined) return 'done';
  return error instanceof Error ? error.name : 'Error';
}

/** Both at once, so that a mistake in one path does not let two daemons at the same sockets. */
async function lockDirectories({ state, run }: Config['paths']): Promise<() => Promise<void>> {
  const unlock: (() => Promise<void>)[] = [];
  for (const directory of new Set([state, run])) unlock.push(await lockDirectory(directory));
  return async () => {
    for (const one of unlock) await one();
  };
}

/** A second signal changes nothing: the end takes its bounded time, and what is to be written is written. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    process.on('SIGTERM', resolve);
    process.on('SIGINT', resolve);
  });
}

main().catch((error: unknown) => {
  const expected =
    error instanceof ConfigError ||
    error instanceof StaleSocketsError ||
    error instanceof NewerRecordError ||
    error instanceof DirectoryInUseError;
  // What the host has in the way (a socket, a path, a permission) is for its operator; a trace is for a mistake of ours.
  const ofHost = error instanceof Error && (error.constructor === Error || 'code' in error);
  console.error(expected || ofHost ? `vmdiskd: ${error.message}` : error);
  process.exit(expected ? 2 : 1);
});
