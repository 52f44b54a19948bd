/** Writes the schemas as TypeScript constants, so that the running programs read no schema files. */
import type { SchemaFiles } from './load.js';

/** @returns the text of `agent/api/schemas.ts`, not yet formatted. */
export function schemasSource({ info, types, verbs, config, errors }: SchemaFiles): string {
  const constant = (comment: string, name: string, type: string, value: unknown): string =>
    `/** ${comment} */\nexport const ${name}: ${type} = ${JSON.stringify(value, null, 2)};\n`;
  return [
    '// Generated from rpc-schema/ by `npm run generate`. Do not edit.\n',
    "import type { ErrorName } from '../errors.js';",
    "import type { Verbs } from './generated.js';",
    "import type { ApiInfo, JsonSchema, VerbSchema } from './schema.js';\n",
    constant('Title and version of the API.', 'apiInfo', 'ApiInfo', info),
    constant('Shared types by name.', 'typeSchemas', 'Readonly<Record<string, JsonSchema>>', types),
    constant(
      'The verbs by name, those of the main flow first.',
      'verbSchemas',
      '{ readonly [N in keyof Verbs]: VerbSchema }',
      Object.fromEntries(verbs.map((verb) => [verb.name, verb])),
    ),
    constant('What each error means.', 'errorMeanings', 'Readonly<Record<ErrorName, string>>', errors),
    constant('The configuration.', 'configSchema', 'JsonSchema', config),
  ].join('\n');
}
