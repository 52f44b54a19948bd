/** What holds for every subcommand: where the daemon is, who calls, how to wait and how to show. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { membersOf } from '../api/describe.js';
import { configSchema } from '../api/schemas.js';
import { type Config, defaultConfigFile, loadConfig } from '../config/config.js';
import { ConfigError } from '../config/error.js';
import type { ClientFiles } from './endpoint.js';
import { UsageError } from './failure.js';

/** As commander hands them over. */
export interface GlobalOptions extends ClientFiles {
  readonly host?: string;
  readonly config?: string;
  readonly json?: true;
  readonly timeout?: number;
  readonly retry?: number;
}

const MAX_SECONDS = 7 * 86_400;

/** The options of the program itself, which may stand before or after the subcommand. */
export function addGlobalOptions(program: Command): void {
  const seconds = (text: string): number => {
    if (!/^\d{1,7}$/.test(text) || Number(text) > MAX_SECONDS) {
      throw new InvalidArgumentError(`It is a number of seconds, at most ${MAX_SECONDS}.`);
    }
    return Number(text);
  };
  program
    .addOption(
      new Option(
        '--host <URI>',
        'the daemon: unix:///path, /path, tls://name:port or https://name:port (default: [rpc] socket of the configuration)',
      ).env('VMDISKCTL_HOST'),
    )
    .addOption(new Option('--cert <file>', 'our certificate, PEM, for tls and https').env('VMDISKCTL_CERT'))
    .addOption(new Option('--key <file>', 'its key, PEM').env('VMDISKCTL_KEY'))
    .addOption(
      new Option('--ca <file>', "the CA of the daemon's certificate, PEM (default: those of the system)").env(
        'VMDISKCTL_CA',
      ),
    )
    .addOption(
      new Option('--config <file>', `where [rpc] socket is looked up (default ${defaultConfigFile})`),
    )
    .addOption(new Option('--json', 'print the answer, or the error, as JSON on one line'))
    .addOption(
      new Option(
        '--timeout <seconds>',
        "how long to wait for an answer (default: the verb's deadline, and a minute)",
      ).argParser(seconds),
    )
    .addOption(
      new Option(
        '--retry <seconds>',
        'go on trying for so long where there is no answer, or an error that may be gone later',
      ).argParser(seconds),
    );
}

/** The URI of the daemon, and the deadlines of its verbs where they are known. */
export interface Target {
  readonly uri: string;
  readonly deadlines: Partial<Readonly<Record<string, number>>>;
}

/** @throws UsageError where the configuration is out of order */
export function targetOf({ host, config: file }: GlobalOptions): Target {
  if (host !== undefined) return { uri: host, deadlines: {} };
  let config: Config;
  try {
    config = loadConfig(file);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    // The group of the socket may well not read the configuration.
    const isDenied = (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EACCES';
    if (file === undefined && isDenied) return { uri: defaultSocket(), deadlines: {} };
    throw new UsageError(`${error.message}\n(--host names the daemon without the configuration.)`, {
      cause: error,
    });
  }
  return { uri: config.rpc.socket, deadlines: config.limits.deadlineSeconds };
}

function defaultSocket(): string {
  return String(membersOf(membersOf(configSchema).rpc ?? {}).socket?.default);
}
