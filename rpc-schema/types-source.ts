/** Writes the TypeScript types of verbs, shared types and configuration. */
import { compile } from 'json-schema-to-typescript';
import type { JsonSchema } from '../agent/api/schema.js';
import type { SchemaFiles } from './load.js';

/** @returns the text of `agent/api/generated.ts`, not yet formatted. */
export async function typesSource({ types, verbs, config }: SchemaFiles): Promise<string> {
  const definitions: Record<string, JsonSchema> = {};
  for (const [title, schema] of Object.entries(types)) definitions[title] = typeView(schema);
  const verbTypes: Record<string, JsonSchema> = {};
  for (const verb of verbs) {
    const name = typeName(verb.name);
    definitions[`${name}Params`] = {
      ...typeView(verb.params as unknown as JsonSchema),
      description: `Params of ${verb.name}, checked and with defaults filled in.`,
    };
    const result = typeView(verb.result);
    definitions[`${name}Result`] = { ...result, description: `Result of ${verb.name}.` };
    verbTypes[verb.name] = {
      description: verb.summary,
      tsType: `{ params: ${name}Params; result: ${name}Result }`,
    };
  }
  definitions.Config = typeView(config);
  const root = {
    title: 'Verbs',
    description: 'The verbs by name.',
    type: 'object',
    additionalProperties: false,
    required: Object.keys(verbTypes),
    properties: verbTypes,
    definitions,
  };
  const source = await compile(root as Parameters<typeof compile>[0], 'Verbs', {
    bannerComment: '// Generated from rpc-schema/ by `npm run generate`. Do not edit.',
    unreachableDefinitions: true,
    unknownAny: true,
    additionalProperties: false,
    format: false,
  });
  return tidy(source);
}

/** Drops the remarks on where a definition was found, puts a comment of one line on one line, and names emptiness. */
function tidy(source: string): string {
  return source
    .replace(/(?:\n \* ?)?\n \* This interface was referenced by .*\n \* via the `definition` .*/g, '')
    .replace(/\/\*\*\n\s*\* (.*)\n\s*\*\//g, '/** $1 */')
    .replace(/export interface (\w+) \{\s*\}/g, 'export type $1 = Record<string, never>;');
}

/** `prepareBackupDisk` → `PrepareBackupDisk`, `rpc.discover` → `RpcDiscover`. */
function typeName(verb: string): string {
  return verb
    .split('.')
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
    .join('');
}

/**
 * A schema as the types see it: references are type names; a member with a default is always there, since
 * validation fills it in; rules over several members are left to validation.
 */
function typeView(schema: JsonSchema): JsonSchema {
  return view(schema) as JsonSchema;
}

function view(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(view);
  if (typeof node !== 'object' || node === null) return node;
  const schema = node as JsonSchema;
  if (typeof schema.$ref === 'string') {
    const name = schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1);
    return { description: schema.description, tsType: name };
  }
  const out: JsonSchema = {};
  for (const [key, value] of Object.entries(schema)) {
    if (key === 'default' || key === 'x-rule' || key === 'discriminator') continue;
    if (key === 'allOf' && (value as JsonSchema[]).every((rule) => 'x-rule' in rule)) continue;
    out[key] = key === 'enum' || key === 'required' || key === 'const' ? value : view(value);
  }
  const properties = schema.properties;
  if (typeof properties === 'object' && properties !== null && schema.type === 'object') {
    const required = new Set((schema.required as string[] | undefined) ?? []);
    for (const [name, member] of Object.entries(properties)) {
      if ('default' in (member as JsonSchema)) required.add(name);
    }
    out.required = [...required];
  }
  return out;
}
