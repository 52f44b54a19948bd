/** Writes `docs/reference.md`: verbs, types, errors and configuration, for people. */
import { typeText as describedType, membersOf as members } from '../agent/api/describe.js';
import type { JsonSchema, VerbSchema } from '../agent/api/schema.js';
import { errorRegistry } from '../agent/errors.js';
import type { SchemaFiles } from './load.js';

export function referencePage(files: SchemaFiles): string {
  const verbIndex = files.verbs.map(
    (verb) => `| [\`${verb.name}\`](#${anchor(verb.name)}) | ${verb.summary} |`,
  );
  return `${[
    '<!-- Generated from rpc-schema/ by `npm run generate`. Do not edit. -->',
    `# ${files.info.title} API ${files.info.version}: reference`,
    files.info.description,
    'A message is one JSON value and a newline, both ways; answers may come in any order. What is not on this page is refused: a verb with -32601, a member with -32602.',
    '## Verbs',
    ['| verb | what it does |', '|---|---|', ...verbIndex].join('\n'),
    ...files.verbs.map(verbSection),
    '## Types',
    ...Object.entries(files.types).map(typeSection),
    '## Errors',
    "`error.code` is a number, `error.message` one sentence with the fact and the remedy, `error.data` = `{name, retryable, vmId?, disk?, exportId?, libvirt?: {code, domain, message}, stderr?}`. *Retry*: the same call, unchanged, may succeed later; where that depends on the case, `error.data.retryable` says which it is. Any verb may end with `Timeout` or `LimitReached`. Codes below 5000 are VDSM's for the same fault.",
    errorTable(files.errors),
    'From the protocol: -32700 not JSON; -32600 not a request (answered under its `id` where that is a string or a number of at most 2^53-1, else under null; a message or a batch over the limit has one answer, under null); -32601 no such verb; -32602 bad params, with `error.data.issues[]` = `{path, message}`, `path` a JSON pointer; -32603 an internal error, with `error.data.reference`, which is in the log.',
    '## Configuration',
    '`/etc/vmdiskd/vmdiskd.toml`, then `/etc/vmdiskd/conf.d/*.toml` in the order of their names. A later file wins, member by member; a list is replaced whole. *Reload*: a change is taken over at SIGHUP (`systemctl reload`); any other counts from the next start on.',
    configTable(files.config),
  ].join('\n\n')}\n`;
}

function verbSection(verb: VerbSchema): string {
  const nature = [
    verb.changes ? 'Changes something: a notification to it is refused.' : 'Changes nothing.',
    verb.undoes ? 'Undoes: what is already gone is success.' : '',
    verb.alwaysAdmitted
      ? 'Answered also when as many verbs as may be are at work, and not counted among them.'
      : '',
    `Deadline: ${verb.deadlineSeconds} s (\`limits.deadlineSeconds\`).`,
  ];
  const rules = (verb.params.allOf ?? []).map((rule) => `- ${rule['x-rule']}.`);
  const params = memberTable(verb.params as unknown as JsonSchema, 'param');
  return [
    `### ${verb.name}`,
    `${verb.summary}.`,
    verb.description,
    nature.filter(Boolean).join(' '),
    params ?? 'No params.',
    rules.join('\n'),
    '**Result**',
    memberTable(verb.result, 'member') ??
      (String(verb.result.description ?? '') || `${typeText(verb.result)}.`),
    verb.errors.length > 0
      ? `**Errors**: ${verb.errors.map((name) => `[\`${name}\`](#errors)`).join(', ')}.`
      : '',
  ]
    .filter(Boolean)
    .join('\n\n');
}

function typeSection([name, schema]: [string, JsonSchema]): string {
  const { propertyName } = (schema.discriminator ?? {}) as { propertyName?: string };
  if (propertyName !== undefined) return unionSection(name, schema, propertyName);
  const variants = (schema.oneOf as JsonSchema[] | undefined) ?? [schema];
  const tables = variants.map(
    (variant) => memberTable(variant, 'member') ?? `${capital(typeText(variant))}.`,
  );
  return [`### ${name}`, String(schema.description), ...tables].join('\n\n');
}

/** A type of several kinds, told apart by one member: what all have, then each. */
function unionSection(name: string, schema: JsonSchema, tag: string): string {
  const variants = schema.oneOf as JsonSchema[];
  const text = (variant: JsonSchema, member: string): string => JSON.stringify(members(variant)[member]);
  const [model = {}] = variants;
  const common = Object.keys(members(model)).filter(
    (member) => member !== tag && variants.every((one) => text(one, member) === text(model, member)),
  );
  const only = (variant: JsonSchema, isShown: (member: string) => boolean): JsonSchema => ({
    ...variant,
    properties: Object.fromEntries(Object.entries(members(variant)).filter(([member]) => isShown(member))),
  });
  const kinds = variants.flatMap((variant) => [
    `#### ${String(members(variant)[tag]?.const)}`,
    String(variant.description ?? ''),
    memberTable(
      only(variant, (member) => member !== tag && !common.includes(member)),
      'member',
    ) ?? '',
  ]);
  const shared = memberTable(
    only(model, (member) => common.includes(member)),
    'member',
  );
  const all = shared === undefined ? '' : `Of every kind:\n\n${shared}`;
  const told = `\`${tag}\` says which kind it is.`;
  return [`### ${name}`, String(schema.description), told, all, ...kinds].filter(Boolean).join('\n\n');
}

/** A table of an object schema's members, nested objects as `outer.inner`; undefined if it has none. */
function memberTable(schema: JsonSchema, heading: string): string | undefined {
  const rows = memberRows(schema, '');
  if (rows.length === 0) return undefined;
  return [`| ${heading} | type | meaning |`, '|---|---|---|', ...rows].join('\n');
}

function memberRows(schema: JsonSchema, prefix: string): string[] {
  const required = (schema.required as string[] | undefined) ?? [];
  return Object.entries(members(schema)).flatMap(([name, member]) => {
    const optional = required.includes(name) ? '' : '?';
    const fallback = 'default' in member ? ` Default: \`${JSON.stringify(member.default)}\`.` : '';
    const row = `| ${prefix}${name}${optional} | ${cell(typeText(member))} | ${cell(`${member.description ?? ''}${fallback}`)} |`;
    return [row, ...memberRows(member, `${prefix}${name}.`)];
  });
}

function configTable(config: JsonSchema): string {
  const rows = (schema: JsonSchema, prefix: string): string[] =>
    Object.entries(members(schema)).flatMap(([name, member]) =>
      member.type === 'object'
        ? rows(member, `${prefix}${name}.`)
        : [
            `| ${prefix}${name} | ${cell(typeText(member))} | \`${JSON.stringify(member.default)}\` | ${member['x-reload'] === true ? 'yes' : ''} | ${cell(String(member.description))} |`,
          ],
    );
  return ['| key | type | default | reload | meaning |', '|---|---|---|---|---|', ...rows(config, '')].join(
    '\n',
  );
}

function errorTable(meanings: Readonly<Record<string, string>>): string {
  const rows = Object.entries(errorRegistry).map(
    ([name, error]) =>
      `| \`${name}\` | ${error.code} | ${'depends' in error ? 'depends' : error.retryable ? 'yes' : ''} | ${meanings[name]} |`,
  );
  return ['| name | code | retry | meaning |', '|---|---|---|---|', ...rows].join('\n');
}

function typeText(schema: JsonSchema): string {
  return describedType(schema, (name) => `[${name}](#${anchor(name)})`);
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

/** GitHub's anchor of a heading. */
function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll('.', '');
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
