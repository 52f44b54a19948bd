/** Reads and merges the configuration files, remembering which file each option came from. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { ConfigError } from './error.js';

export type Options = { [key: string]: unknown };

export interface MergedFiles {
  readonly options: Options;
  /** The file that set the option at `path` (`['rpc', 'socket']`), or the nearest table around it. */
  fileOf(path: readonly string[]): string | undefined;
}

/** A file larger than this is not a configuration (a device, a log by mistake). */
const maxFileBytes = 1024 * 1024;

export function readFiles(file: string, { mayBeAbsent }: { mayBeAbsent: boolean }): MergedFiles {
  const options: Options = {};
  const origins = new Map<string, string>();
  const main = readToml(file, mayBeAbsent);
  if (main !== undefined) mergeInto(options, main, file, [], origins);
  for (const part of confFiles(join(dirname(file), 'conf.d'))) {
    const table = readToml(part, false);
    if (table !== undefined) mergeInto(options, table, part, [], origins);
  }
  return {
    options,
    fileOf(path) {
      for (let length = path.length; length > 0; length--) {
        const origin = origins.get(originKey(path.slice(0, length)));
        if (origin !== undefined) return origin;
      }
      return undefined;
    },
  };
}

function confFiles(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.toml'))
      .sort()
      .map((name) => join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new ConfigError(`${folder}: cannot be read (${(error as Error).message})`, { cause: error });
  }
}

function readToml(file: string, mayBeAbsent: boolean): Options | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (mayBeAbsent && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ConfigError(`${file}: cannot be read (${(error as Error).message})`, { cause: error });
  }
  if (text.length > maxFileBytes) throw new ConfigError(`${file}: larger than ${maxFileBytes} bytes`);
  try {
    return parse(text) as Options;
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    throw new ConfigError(`${file}:${error.line}:${error.column}: not valid TOML: ${what}`, { cause: error });
  }
}

/** Tables are merged member by member; anything else, lists too, is replaced whole. */
function mergeInto(
  target: Options,
  source: Options,
  file: string,
  path: readonly string[],
  origins: Map<string, string>,
): void {
  for (const [key, value] of Object.entries(source)) {
    const here = [...path, key];
    origins.set(originKey(here), file);
    const old = Object.hasOwn(target, key) ? target[key] : undefined;
    if (isTable(value)) {
      const table: Options = isTable(old) ? old : {};
      // Not an assignment: a key `__proto__` must be a member like any other, to be refused by name.
      Object.defineProperty(target, key, {
        value: table,
        enumerable: true,
        writable: true,
        configurable: true,
      });
      mergeInto(table, value, file, here, origins);
    } else {
      Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
    }
  }
}

function isTable(value: unknown): value is Options {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function originKey(path: readonly string[]): string {
  return JSON.stringify(path);
}
