/**
 * Reads the schema files into one object. References between files (`../types/id.json`, which any editor can
 * follow) become references within it (`#/components/schemas/Id`), the place where OpenRPC keeps them too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ApiInfo, JsonSchema, VerbSchema } from '../agent/api/schema.js';

export interface SchemaFiles {
  readonly info: ApiInfo;
  /** Shared types by title. */
  readonly types: Readonly<Record<string, JsonSchema>>;
  readonly verbs: readonly VerbSchema[];
  readonly config: JsonSchema;
  /** Error name → what it means. */
  readonly errors: Readonly<Record<string, string>>;
}

const folder = fileURLToPath(new URL('.', import.meta.url));

const verbOrder = [
  'prepareBackupDisk',
  'teardownBackupDisk',
  'hotplugDisk',
  'hotunplugDisk',
  'getChangedBlocks',
];

export function loadSchemas(): SchemaFiles {
  const titles = new Map<string, string>();
  for (const file of jsonFiles('types')) titles.set(basename(file), String(readJson(file).title));

  const resolveRefs = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(resolveRefs);
    if (typeof node !== 'object' || node === null) return node;
    return Object.fromEntries(
      Object.entries(node).map(([key, value]) => {
        if (key !== '$ref') return [key, resolveRefs(value)];
        const title = titles.get(basename(String(value)));
        if (title === undefined) throw new Error(`no such type: ${String(value)}`);
        return [key, `#/components/schemas/${title}`];
      }),
    );
  };

  const types: Record<string, JsonSchema> = {};
  for (const file of jsonFiles('types')) {
    types[String(titles.get(basename(file)))] = resolveRefs(readJson(file)) as JsonSchema;
  }
  const verbs = jsonFiles('verbs').map((file) => checkVerb(file, resolveRefs(readJson(file)) as JsonSchema));
  verbs.sort((a, b) => rank(a.name) - rank(b.name) || (a.name < b.name ? -1 : 1));
  return {
    info: readJson('api.json') as unknown as ApiInfo,
    types,
    verbs,
    config: withDeadlines(readJson('config.json'), verbs),
    errors: readJson('errors.json') as Record<string, string>,
  };
}

/** The verbs of the main flow come first, in the order of their use; the others by name. */
function rank(name: string): number {
  const index = verbOrder.indexOf(name);
  return index === -1 ? verbOrder.length : index;
}

let validateVerb: ReturnType<Ajv2020['compile']> | undefined;

function checkVerb(file: string, verb: JsonSchema): VerbSchema {
  validateVerb ??= new Ajv2020({ allErrors: true, strict: false }).compile(readJson('verb.schema.json'));
  if (!validateVerb(verb)) throw new Error(`${file}: ${JSON.stringify(validateVerb.errors)}`);
  if (`${String(verb.name)}.json` !== basename(file)) throw new Error(`${file}: the name is not the file's`);
  return verb as unknown as VerbSchema;
}

/** Puts an option for each verb's deadline into the configuration, with the verb's own default. */
function withDeadlines(config: JsonSchema, verbs: readonly VerbSchema[]): JsonSchema {
  const deadlines = (
    config as { properties: { limits: { properties: { deadlineSeconds: { properties: JsonSchema } } } } }
  ).properties.limits.properties.deadlineSeconds;
  for (const verb of verbs) {
    deadlines.properties[verb.name] = {
      description: `For ${verb.name}.`,
      'x-reload': true,
      type: 'integer',
      minimum: 1,
      maximum: 86400,
      default: verb.deadlineSeconds,
    };
  }
  return config;
}

function jsonFiles(subfolder: string): string[] {
  return readdirSync(join(folder, subfolder))
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => join(subfolder, name));
}

function readJson(file: string): JsonSchema {
  return JSON.parse(readFileSync(join(folder, file), 'utf8')) as JsonSchema;
}
