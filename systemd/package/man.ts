/** Man pages, from the schemas and the programs' own options. */
import type { Command } from 'commander';
import { membersOf, typeText } from '../../agent/api/describe.js';
import type { JsonSchema, VerbSchema } from '../../agent/api/schema.js';
import { configSchema, errorMeanings, verbSchemas } from '../../agent/api/schemas.js';
import { moreHelp, summaryText } from '../../agent/cli/help.js';
import { kebab } from '../../agent/cli/names.js';
import { createProgram, description } from '../../agent/cli/program.js';
import { errorRegistry } from '../../agent/errors.js';

/** Path below the directory of man pages → text. */
export function manPages(version: string): ReadonlyMap<string, string> {
  return new Map([
    ['man1/vmdiskctl.1', vmdiskctl(version)],
    ['man5/vmdiskd.toml.5', configuration(version)],
    ['man8/vmdiskd.8', daemon(version)],
    ['man8/vmdiskd-gateway.8', gateway(version)],
  ]);
}

function vmdiskctl(version: string): string {
  const program = createProgram(async () => {});
  const commands = program.commands.filter((command) => command.name() !== 'completion');
  return [
    head('vmdiskctl', 1, version, 'call the verbs of vmdiskd'),
    section('SYNOPSIS'),
    `.B vmdiskctl\n${roff('[OPTION]... COMMAND [OPTION]...')}`,
    section('DESCRIPTION'),
    roff(
      `${description} Each verb is a command. Lists are shown as tables, other answers as "member: value".`,
    ),
    section('OPTIONS'),
    options(program),
    section('COMMANDS'),
    ...commands.map((command) => {
      const verb = Object.values<VerbSchema>(verbSchemas).find(({ name }) => kebab(name) === command.name());
      return [
        `.SS ${command.name()}`,
        roff(verb === undefined ? command.description() : summaryText(verb)),
        options(command),
        ...(verb === undefined ? [] : [verbatim(moreHelp(verb))]),
      ].join('\n');
    }),
    section('EXIT STATUS'),
    list([
      ['0', 'done'],
      ['1', 'the daemon has answered with an error that stands, or the job that was waited for has failed'],
      ['2', 'a mistake in the command line, or in a file that it names; nothing was done'],
      [
        '3',
        'no answer from the daemon. A verb that has begun finishes; the same command again tells how it went',
      ],
      ['4', 'an error that may be gone later'],
    ]),
    section('ERRORS'),
    list(
      Object.entries(errorRegistry).map(([name, { code }]) => [
        `${name} (${code})`,
        errorMeanings[name as keyof typeof errorMeanings],
      ]),
    ),
    section('SEE ALSO'),
    '.BR vmdiskd (8),\n.BR vmdiskd.toml (5)',
    '',
  ].join('\n');
}

function configuration(version: string): string {
  const rows = (schema: JsonSchema, table: string): string[] =>
    Object.entries(membersOf(schema)).flatMap(([name, member]) => {
      if (member.type === 'object') {
        const full = table === '' ? name : `${table}.${name}`;
        return [`.SS [${full}]`, roff(String(member.description)), ...rows(member, full)];
      }
      const type = typeText(
        member,
        (of) => of,
        (value) => value,
      );
      const fallback = JSON.stringify(member.default);
      return [
        `.TP\n.B ${roff(name)}\n${roff(`${String(member.description)} (${type}; default: ${fallback}${member['x-reload'] === true ? '; a reload takes changes over' : ''})`)}`,
      ];
    });
  // Options of no table come first, as they have to in the file.
  const plain = Object.entries(membersOf(configSchema)).filter(([, member]) => member.type !== 'object');
  const tables = Object.entries(membersOf(configSchema)).filter(([, member]) => member.type === 'object');
  const sorted = { properties: Object.fromEntries([...plain, ...tables]) };
  return [
    head('vmdiskd.toml', 5, version, 'configuration of vmdiskd and vmdiskd-gateway'),
    section('SYNOPSIS'),
    '/etc/vmdiskd/vmdiskd.toml\n.br\n/etc/vmdiskd/conf.d/*.toml',
    section('DESCRIPTION'),
    roff(
      'TOML. The files in conf.d are read after the first, in the order of their names: a later one wins, member by member, and a list is replaced whole. "vmdiskd --check-config" says what is wrong, "vmdiskd --show-config" what is in force. Where to listen is told to systemd by "systemctl daemon-reload"; then restart the sockets and the services. Where an option says so, "systemctl reload vmdiskd vmdiskd-gateway" takes a change over.',
    ),
    section('OPTIONS'),
    ...rows(sorted, ''),
    section('SEE ALSO'),
    '.BR vmdiskd (8),\n.BR vmdiskd-gateway (8)',
    '',
  ].join('\n');
}

function daemon(version: string): string {
  return [
    head('vmdiskd', 8, version, "access to VMs' disks over NBD"),
    section('SYNOPSIS'),
    `.B vmdiskd\n${roff('[--config FILE] [--check-config | --show-config | --example-config | --write-units DIRECTORY]')}`,
    section('DESCRIPTION'),
    roff(
      'The daemon that exports disks of VMs at a point in time. It is called by JSON-RPC, by vmdiskctl(1) among others. Exports, backups and merges live on when it stops, and its next run finds them again. It is run by systemd as vmdiskd.service.',
    ),
    section('OPTIONS'),
    list([
      [
        '--config FILE',
        'the configuration; conf.d/*.toml beside it is read after it. Default: /etc/vmdiskd/vmdiskd.toml',
      ],
      ['--check-config', 'say whether the configuration is in order, and end'],
      ['--show-config', 'print the configuration with all defaults, and end'],
      ['--example-config', 'print a configuration file to begin with, and end'],
      [
        '--write-units DIRECTORY',
        "what systemd's generator calls: write socket units and drop-ins there, and end",
      ],
    ]),
    section('SIGNALS'),
    list([
      ['SIGTERM, SIGINT', 'stop: verbs at work are finished, exports live on'],
      [
        'SIGHUP',
        'read the configuration and the certificates again; what needs a restart is told in the log, and a mistake leaves all as it was',
      ],
    ]),
    section('EXIT STATUS'),
    list([
      ['0', 'it was told to stop'],
      ['1', 'something of the host is in the way, which is told'],
      ['2', 'the configuration is not in order, or another daemon is at work in the same directories'],
    ]),
    section('FILES'),
    list([
      ['/etc/vmdiskd/vmdiskd.toml', 'the configuration'],
      ['/run/vmdiskd/vmdiskd.sock', 'where it is called; whoever may open it can read every disk'],
      ['/var/lib/vmdiskd', 'records, and scratch files of live backups'],
    ]),
    section('SEE ALSO'),
    '.BR vmdiskctl (1),\n.BR vmdiskd.toml (5),\n.BR vmdiskd-gateway (8)',
    '',
  ].join('\n');
}

function gateway(version: string): string {
  return [
    head('vmdiskd-gateway', 8, version, 'TLS gateway in front of the exports of vmdiskd'),
    section('SYNOPSIS'),
    `.B vmdiskd-gateway\n${roff('[--config FILE]')}`,
    section('DESCRIPTION'),
    roff(
      'One TCP port for all exports that were made for the network, with TLS: a key for each export, or certificates. It reads the configuration of vmdiskd ([gateway] and [tls]) and goes on serving while that restarts. It is run by systemd as vmdiskd-gateway.service, where [gateway] listen is set. SIGHUP has it read that and the certificates again.',
    ),
    section('SEE ALSO'),
    '.BR vmdiskd (8),\n.BR vmdiskd.toml (5)',
    '',
  ].join('\n');
}

function head(name: string, part: number, version: string, does: string): string {
  return `.TH ${name.toUpperCase()} ${part} "" "vmdiskd ${version}"\n.SH NAME\n${roff(`${name} - ${does}`)}`;
}

function section(heading: string): string {
  return `.SH ${heading}`;
}

function options(command: Command): string {
  return list(command.options.map((option) => [option.flags, option.description]));
}

function list(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([term, text]) => `.TP\n.B ${roff(term)}\n${roff(text)}`).join('\n');
}

function verbatim(text: string): string {
  return text.trim() === '' ? '' : `.PP\n.nf\n${text.trim().split('\n').map(roff).join('\n')}\n.fi`;
}

/** Text for troff: no escape, no request, and dashes that can be copied. A line that begins a sentence is one of its own. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('`', '')
    .replaceAll('…', '...')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');
}
