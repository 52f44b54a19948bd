import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import type { Config as GeneratedConfig } from '../api/generated.js';
import type { JsonSchema } from '../api/schema.js';
import { configSchema } from '../api/schemas.js';
import { checkNetwork } from './check-network.js';
import { type Config, frozen } from './config.js';

export interface Reloaded {
  /** What is in force from now on. */
  config: Config;
  /** Keys (`limits.exports`) that have another value now. */
  changed: string[];
  /** Keys whose new value is not in force before a restart. */
  needRestart: string[];
}

/**
 * What a running program takes over of a new configuration: options that the schema marks `x-reload`; all others stay as they
 * were.
 * @param fixed keys that the sandbox is made of, and that stay as they are for that
 * @throws ConfigError where the new ones do not go together with those that stay; nothing is to be taken over then
 */
export function reloaded(before: Config, fresh: Config, fixed: ReadonlySet<string> = new Set()): Reloaded {
  const changed: string[] = [];
  const needRestart: string[] = [];
  const merge = (schema: JsonSchema, old: unknown, now: unknown, path: string[]): unknown => {
    if (schema.type === 'object') {
      const members = Object.entries((schema.properties ?? {}) as Record<string, JsonSchema>);
      const merged = members.map(([name, member]) => {
        return [name, merge(member, memberOf(old, name), memberOf(now, name), [...path, name])];
      });
      return Object.fromEntries(merged);
    }
    if (isDeepStrictEqual(old, now)) return old;
    const key = path.join('.');
    const takenOver = schema['x-reload'] === true && !fixed.has(key);
    (takenOver ? changed : needRestart).push(key);
    return takenOver ? now : old;
  };
  const config = merge(configSchema, before, fresh, []) as Config;
  checkNetwork(config as unknown as GeneratedConfig, () => undefined);
  return { config: frozen(config), changed, needRestart };
}

/**
 * Reads the configuration again at each SIGHUP. All of it that can be taken over is, or nothing.
 * @param load throws where the files are not in order
 * @param apply takes a configuration over, in one go; throws where it cannot (a certificate that cannot be read), having changed
 * nothing
 */
export function reloadOnHangup(
  first: Config,
  load: () => Config,
  apply: (config: Config) => void,
  log: Logger,
): void {
  let inForce = first;
  const fixed = sandboxedKeys(first);
  process.on('SIGHUP', () => {
    try {
      const { config, changed, needRestart } = reloaded(inForce, load(), fixed);
      apply(config);
      inForce = config;
      log.info({ changed }, 'the configuration and the certificates were read again');
      if (needRestart.length > 0) log.warn({ needRestart }, `needs a restart: ${needRestart.join(', ')}`);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      log.error(`the configuration could not be taken over, and all of it stays as it was: ${why}`);
    }
  });
}

/** A service without other hosts has no network in its unit (`daemonDropIn`), and gets one by a restart alone. */
function sandboxedKeys({ hotplug }: Config): ReadonlySet<string> {
  const isUnit = process.env.INVOCATION_ID !== undefined;
  return new Set(isUnit && hotplug.allowedHosts.length === 0 ? ['hotplug.allowedHosts'] : []);
}

const memberOf = (table: unknown, name: string): unknown => (table as Record<string, unknown>)[name];
