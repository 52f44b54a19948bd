/** What `--help` of a subcommand says of its params, from the schema. */
import { membersOf, typeText } from '../api/describe.js';
import { resolve, variantsOf } from '../api/resolve.js';
import type { JsonSchema, VerbSchema } from '../api/schema.js';
import { verbSchemas } from '../api/schemas.js';
import { kebab, plain } from './names.js';
import { itemsOf, kindOf } from './value.js';

const WIDTH = 100;
const verbNames = Object.keys(verbSchemas);

/** What the option is for, what it takes, and what holds without it. */
export function valueText(verb: VerbSchema, schema: JsonSchema, isRequired: boolean): string {
  const whole = resolve(schema);
  const words = plain(String(schema.description ?? whole.description ?? ''), paramsOf(verb), verbNames);
  return (
    words +
    notes([
      isRequired ? 'required' : '',
      kindOf(schema) === 'object' ? '' : takes(whole),
      'default' in whole ? `default: ${shown(whole.default)}` : '',
    ])
  );
}

/** The lines after the options: what the members of objects are, and the rules over several params. */
export function moreHelp(verb: VerbSchema): string {
  const objects = Object.entries(verb.params.properties).flatMap(([name, schema]) => {
    const object = kindOf(schema) === 'list' ? itemsOf(schema) : schema;
    return kindOf(object) === 'object'
      ? [`Members of --${kebab(name)}:`, ...memberLines(object, ''), '']
      : [];
  });
  const rules = (verb.params.allOf ?? []).map((rule) =>
    wrapped(`- ${spoken(verb, rule['x-rule'])}.`, '  ', '    '),
  );
  const how =
    'An <object> is member=value,… (inner.member=value for those within), or JSON, or @FILE with JSON in it ' +
    '(@-: the standard input).';
  return [
    ...(objects.length > 0 ? ['', wrapped(how, '', ''), '', ...objects.slice(0, -1)] : []),
    ...(rules.length > 0 ? ['', 'Rules:', ...rules] : []),
  ].join('\n');
}

function memberLines(schema: JsonSchema, prefix: string): string[] {
  const variants = variantsOf(schema);
  return variants.flatMap((variant, index) => {
    const members = Object.entries(membersOf(variant));
    const required = (variant.required as string[] | undefined) ?? [];
    const lines = members.flatMap(([name, member]) => {
      const whole = resolve(member);
      const text = String(member.description ?? whole.description ?? '').replaceAll('`', '');
      const told = text + notes([required.includes(name) ? '' : 'optional', takes(whole)]);
      const line = wrapped(`${prefix}${name}  ${told.trim()}`, '  ', '      ');
      return [line, ...(variantsOf(member).length > 0 ? memberLines(member, `${prefix}${name}.`) : [])];
    });
    return index === 0 ? lines : [`  or`, ...lines];
  });
}

/** ` (required; integer 1..10)`; nothing where there is nothing to say. That a text is text goes without saying. */
function notes(parts: readonly string[]): string {
  const told = parts.filter((part) => part !== '' && part !== 'text');
  return told.length === 0 ? '' : ` (${told.join('; ')})`;
}

/** `integer 0..10000`, `raw or qcow2`, `text`. */
function takes(whole: JsonSchema): string {
  if (variantsOf(whole).length > 0) return 'object';
  if (whole.type === 'array') return `list of ${takes(resolve(itemsOf(whole)))}`;
  const { pattern: _, maxLength: __, ...rest } = whole;
  return typeText(
    rest,
    (name) => name,
    (value) => value.replaceAll('"', ''),
  ).replace(/^string/, 'text');
}

/** A rule names params without marks. */
function spoken(verb: VerbSchema, rule: string): string {
  const params = paramsOf(verb);
  return rule.replace(/\b[a-z]+[A-Z]\w*\b/g, (name) => (params.includes(name) ? `--${kebab(name)}` : name));
}

function paramsOf(verb: VerbSchema): string[] {
  return Object.keys(verb.params.properties);
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Breaks a line at spaces. */
export function wrapped(text: string, first: string, rest: string): string {
  const lines: string[] = [];
  let line = first;
  for (const word of text.split(' ')) {
    if (line.trim() !== '' && line.length + word.length > WIDTH) {
      lines.push(line.trimEnd());
      line = rest;
    }
    line += `${word} `;
  }
  return [...lines, line.trimEnd()].join('\n');
}

/** What the subcommand does, at length. */
export function summaryText(verb: VerbSchema): string {
  return plain(`${shortSummary(verb)}. ${verb.description}`, paramsOf(verb), verbNames);
}

/** In a line; a summary names verbs without marks. */
export function shortSummary({ summary }: VerbSchema): string {
  return summary.replace(/\b[a-z]+[A-Z]\w*\b/g, (name) => (verbNames.includes(name) ? kebab(name) : name));
}
