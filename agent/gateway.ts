#!/usr/bin/env node
import { Command } from 'commander';
import { apiInfo } from './api/schemas.js';
import { type Config, defaultConfigFile, loadConfig } from './config/config.js';
import { ConfigError } from './config/error.js';
import { reloadOnHangup } from './config/reload.js';
import { gatewayFiles, makeGatewayDirectory } from './gateway/files.js';
import { serveGateway } from './gateway/server.js';
import { DirectoryInUseError, lockDirectory } from './host/directory-lock.js';
import { InheritedSockets, StaleSocketsError } from './host/inherited-sockets.js';
import { serviceOf } from './host/service.js';
import { createLog, moduleLog, setLevel } from './log.js';

async function main(): Promise<void> {
  const program = new Command('vmdiskd-gateway')
    .description('The TLS gateway in front of the exports of vmdiskd.')
    .version(apiInfo.version)
    .option(
      '--config <file>',
      `TOML file, that of vmdiskd (default ${defaultConfigFile}); conf.d/*.toml beside it is read after it`,
    )
    .parse();
  const { config } = program.opts<{ config?: string }>();
  await serve(() => loadConfig(config));
}

/** Listens until a signal comes. It needs no daemon: what it has to know is in files. */
async function serve(load: () => Config): Promise<void> {
  const config = load();
  const log = createLog({ ...config.log, identifier: 'vmdiskd-gateway' });
  const service = serviceOf(process.env, log);
  const { listen } = config.gateway;
  if (listen.length === 0) {
    throw new ConfigError(
      'gateway.listen is empty: there is nothing to listen on; allowed: a list of addresses with ports',
    );
  }
  await makeGatewayDirectory(config.paths.run);
  const unlock = await lockDirectory(gatewayFiles(config.paths.run).dir);
  const gateway = await serveGateway(config, moduleLog(log, 'gateway'), InheritedSockets.ofProcess());
  log.info({ listen, version: apiInfo.version }, 'ready');
  const takeOver = (fresh: Config) => {
    gateway.reload(fresh);
    setLevel(log, fresh.log);
  };
  reloadOnHangup(config, load, takeOver, log);
  const watchdog = service.watchdog();
  await service.tell('--ready');
  await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve));
  log.info('stopping; clients are cut');
  void service.tell('STOPPING=1');
  await gateway.close();
  watchdog.close();
  await unlock();
}

main().catch((error: unknown) => {
  const expected =
    error instanceof ConfigError ||
    error instanceof StaleSocketsError ||
    error instanceof DirectoryInUseError;
  // What the host has in the way (a port, a file, a permission) is for its operator; a trace is for a mistake of ours.
  const ofHost = error instanceof Error && (error.constructor === Error || 'code' in error);
  console.error(expected || ofHost ? `vmdiskd-gateway: ${error.message}` : error);
  process.exit(expected ? 2 : 1);
});
