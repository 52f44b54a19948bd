/** `--show-config`: the configuration in force, as a TOML file that says what each option is for. */
import { stringify } from 'smol-toml';
import type { JsonSchema } from '../api/schema.js';
import { configSchema } from '../api/schemas.js';
import type { Config } from './config.js';

export function showConfig(config: Config): string {
  return `${section(configSchema, config, '', '').trim()}\n`;
}

/** The file to begin with: every option with its default, put out of force, so that a new default counts. */
export function exampleConfig(defaults: Config): string {
  const heading =
    '# The configuration of vmdiskd: see vmdiskd.toml(5). What is not set has the value that stands here.\n' +
    '# [reload]: a change is taken over by `systemctl reload vmdiskd vmdiskd-gateway`; any other needs a restart.';
  return `${heading}\n\n${section(configSchema, { ...defaults, hostId: '' }, '', '#').trim()}\n`;
}

/** A table's options, and after them the tables in it, as TOML wants it. */
function section(schema: JsonSchema, values: object, name: string, before: string): string {
  const members = Object.entries((schema.properties ?? {}) as Record<string, JsonSchema>);
  const value = (key: string): unknown => (values as Record<string, unknown>)[key];
  const options = members
    .filter(([, member]) => member.type !== 'object')
    .map(
      ([key, member]) =>
        `${comment(member, reloadMark(member))}\n${before}${stringify({ [key]: value(key) })}`,
    );
  const tables = members
    .filter(([, member]) => member.type === 'object')
    .map(([key, member]) => {
      const full = name === '' ? key : `${name}.${key}`;
      return `${comment(member)}\n[${full}]\n${section(member, value(key) as object, full, before)}`;
    });
  return [...options, ...tables].join('\n');
}

const reloadMark = (schema: JsonSchema): string => (schema['x-reload'] === true ? ' [reload]' : '');

function comment(schema: JsonSchema, mark = ''): string {
  const words = `${schema.description}${mark}`.split(' ');
  const lines: string[] = [];
  let line = '#';
  for (const word of words) {
    if (line.length + word.length > 98) {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return [...lines, line].join('\n');
}
