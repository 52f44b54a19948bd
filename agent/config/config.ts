/** The configuration: read at the start and at each reload, checked, complete; each a value that is never changed. */
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Config as GeneratedConfig } from '../api/generated.js';
import { checkOptions } from './check.js';
import { checkNetwork } from './check-network.js';
import { type MergedFiles, readFiles } from './files.js';

type DeepReadonly<T> = T extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

/** Every option has a value here; `rpc-schema/config.json` says what each is for. */
export type Config = DeepReadonly<GeneratedConfig>;

/** Where the configuration is looked for when no `--config` names another place. */
export const defaultConfigFile = '/etc/vmdiskd/vmdiskd.toml';

/**
 * Reads `file` and, over it, `conf.d/*.toml` beside it in the order of their names.
 * Without `file` the default one is read, and may be absent: every option has a default.
 * @throws ConfigError that names file, key and what is allowed; all mistakes at once, one a line.
 */
export function loadConfig(file?: string): Config {
  return resolveConfig(readFiles(file ?? defaultConfigFile, { mayBeAbsent: file === undefined }));
}

/** A complete configuration from parts of one, for embedding and tests. @throws ConfigError */
export function configFrom(options: object): Config {
  return resolveConfig({
    options: structuredClone(options) as MergedFiles['options'],
    fileOf: () => undefined,
  });
}

function resolveConfig(files: MergedFiles): Config {
  const config = checkOptions(files);
  checkNetwork(config, files.fileOf);
  return frozen({ ...config, hostId: config.hostId || defaultHostId() });
}

/**
 * machine-id(5) asks not to show the machine id itself to others, and to derive one's own from it by a keyed hash.
 * Where there is none (a bare container) the host's name has to do.
 */
function defaultHostId(): string {
  let machineId: string;
  try {
    machineId = readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    machineId = '';
  }
  return createHmac('sha256', machineId || hostname())
    .update('vmdiskd')
    .digest('hex')
    .slice(0, 32);
}

/** The same, all through never to be changed. */
export function frozen<T extends object>(value: T): T {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) frozen(member);
  }
  return Object.freeze(value);
}
