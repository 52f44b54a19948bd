/** Each program as one file that needs nothing but Node, and the licences of what is in it. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

/** Name below /usr/lib/vmdiskd → where it begins, in dist/. */
const PROGRAMS = { vmdiskd: 'daemon.js', 'vmdiskd-gateway': 'gateway.js', vmdiskctl: 'cli/main.js' };

/** What packages of CommonJS call. */
const BANNER = [
  "import { createRequire } from 'node:module';",
  'const require = createRequire(import.meta.url);',
].join('\n');

/** Writes `<name>.mjs` for each program. @returns the names of the packages that went in, in order */
export async function bundle(root: string, into: string): Promise<string[]> {
  const packages = new Set<string>();
  for (const [name, entry] of Object.entries(PROGRAMS)) {
    const file = join(into, `${name}.mjs`);
    const { metafile } = await build({
      entryPoints: [join(root, 'dist', entry)],
      outfile: file,
      absWorkingDir: root,
      bundle: true,
      platform: 'node',
      target: 'node20',
      format: 'esm',
      banner: { js: BANNER },
      // Faster variants with compiled parts, which ws does without.
      external: ['bufferutil', 'utf-8-validate'],
      // A trace in the journal is to name our functions.
      keepNames: true,
      legalComments: 'inline',
      metafile: true,
      logLevel: 'warning',
    });
    // Of the Node that the package depends on, and not of whichever comes first in somebody's PATH.
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^#!.*/, '#!/usr/bin/node'));
    for (const input of Object.keys(metafile.inputs)) {
      const [, found] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input) ?? [];
      if (found !== undefined) packages.add(found);
    }
  }
  return [...packages].sort();
}

/** The licences of packages, whole. @throws Error where one brings none */
export function licences(root: string, packages: readonly string[]): string {
  const parts = packages.map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      version: string;
      license?: string;
    };
    const files = existsSync(folder)
      ? readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file))
      : [];
    const texts = files.map((file) => readFileSync(join(folder, file), 'utf8').trim());
    if (texts.length === 0 && license === undefined) throw new Error(`${name} says nothing of its licence`);
    const heading = `${name} ${version}: ${license ?? 'see below'}`;
    return [heading, '='.repeat(heading.length), '', ...texts].join('\n');
  });
  return `The programs of vmdiskd have these packages in them.\n\n${parts.join('\n\n\n')}\n`;
}
