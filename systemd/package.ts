/**
 * `npm run package`: makes vmdiskd_VERSION_all.deb in this directory, from the built sources, the schemas and systemd/.
 * `-- --version V` gives it another version than package.json has, `--out DIR` puts it elsewhere.
 * `--tree DIR` lays its files out below a directory instead, for packages of other kinds.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildDeb } from './package/deb.js';
import { layTree } from './package/tree.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const text = { type: 'string' } as const;
const { values } = parseArgs({ options: { version: text, out: text, tree: text } });
const { version: own } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const version = values.version ?? own;
if (!/^\d[A-Za-z0-9.+~]*$/.test(version)) throw new Error(`--version ${version}: not a version of Debian`);
if (values.tree !== undefined) {
  await layTree(root, resolve(values.tree), version);
  process.exit();
}
const tree = mkdtempSync(join(tmpdir(), 'vmdiskd-package-'));
try {
  await layTree(root, tree, version);
  const file = await buildDeb(root, tree, version, resolve(values.out ?? root));
  process.stdout.write(`${file}\n`);
} finally {
  rmSync(tree, { recursive: true, force: true });
}
