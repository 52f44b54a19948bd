/**
 * `npm run generate`: writes what comes from `rpc-schema/` (types, constants, reference page).
 * `npm run generate -- --check` writes nothing and fails, naming the files, if one is stale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { loadSchemas } from './load.js';
import { referencePage } from './reference.js';
import { schemasSource } from './schemas-source.js';
import { typesSource } from './types-source.js';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Path within the repository → the text that belongs there. */
export async function generate(): Promise<ReadonlyMap<string, string>> {
  const files = loadSchemas();
  const [types, schemas] = await Promise.all([
    formatted('agent/api/generated.ts', await typesSource(files)),
    formatted('agent/api/schemas.ts', schemasSource(files)),
  ]);
  return new Map([
    ['agent/api/generated.ts', types],
    ['agent/api/schemas.ts', schemas],
    ['docs/reference.md', referencePage(files)],
  ]);
}

/** Files that are not what `rpc-schema/` says. */
export async function staleFiles(): Promise<string[]> {
  return [...(await generate())].filter(([path, text]) => current(path) !== text).map(([path]) => path);
}

async function formatted(path: string, source: string): Promise<string> {
  const biome = join(root, 'node_modules/.bin/biome');
  const { stdout } = await execa(biome, ['format', `--stdin-file-path=${path}`], {
    cwd: root,
    input: source,
    timeout: 60_000,
  });
  return `${stdout}\n`;
}

function current(path: string): string | undefined {
  try {
    return readFileSync(join(root, path), 'utf8');
  } catch {
    return undefined;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--check')) {
    const stale = await staleFiles();
    if (stale.length > 0) {
      console.error(`Stale: ${stale.join(', ')}. Run "npm run generate" and commit the result.`);
      process.exitCode = 1;
    }
  } else {
    for (const [path, text] of await generate()) writeFileSync(join(root, path), text);
  }
}
