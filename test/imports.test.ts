/** Holds the one-way order of imports inside agent/, which `docs/architecture.md` describes. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import ts from 'typescript';

const agent = fileURLToPath(new URL('../agent', import.meta.url));

/** From the top down: a unit imports from those below it, and from itself; units of one line know each other. */
const order: readonly (readonly string[])[] = [
  ['daemon.ts', 'gateway.ts', 'cli'],
  ['metrics'],
  ['rpc'],
  ['verbs'],
  ['access'],
  ['exports'],
  ['points-in-time'],
  ['changed-blocks'],
  ['domains'],
  ['images'],
  ['gateway'],
  ['nbd'],
  ['libvirt'],
  ['host'],
  ['events', 'log.ts'],
  ['config', 'journal'],
  ['tls'],
  ['api', 'errors.ts'],
];

const rankOf = (unit: string): number => order.findIndex((units) => units.includes(unit));
const unitOf = (file: string): string => file.split('/')[0] ?? file;

/** File within agent/ → the files of agent/ that it imports, types too. */
function imports(): Map<string, string[]> {
  const files = readdirSync(agent, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  );
  return new Map(
    files.map((file) => {
      const { importedFiles } = ts.preProcessFile(readFileSync(join(agent, file), 'utf8'), true, true);
      const ours = importedFiles
        .filter(({ fileName }) => fileName.startsWith('.'))
        .map(({ fileName }) => relative(agent, join(agent, dirname(file), fileName)).replace(/\.js$/, '.ts'));
      return [file, ours];
    }),
  );
}

const graph = imports();

test('every file belongs to a unit that has its place, and imports files that exist', async (t) => {
  t.ok(graph.size > 10, 'the sources were found');
  for (const [file, targets] of graph) {
    t.not(rankOf(unitOf(file)), -1, `${file} has a place in the order`);
    for (const target of targets) t.ok(graph.has(target), `${file} imports ${target}, which exists`);
  }
});

test('imports run one way', async (t) => {
  const upward: string[] = [];
  for (const [file, targets] of graph) {
    for (const target of targets) {
      if (rankOf(unitOf(target)) < rankOf(unitOf(file))) upward.push(`${file} -> ${target}`);
    }
  }
  t.strictSame(upward, []);
});

test('agent/libvirt imports nothing of ours, agent/nbd only host/ and what is below', async (t) => {
  const wrong: string[] = [];
  for (const [file, targets] of graph) {
    for (const target of targets.filter((other) => unitOf(other) !== unitOf(file))) {
      if (unitOf(file) === 'libvirt') wrong.push(`${file} -> ${target}`);
      if (unitOf(file) === 'nbd' && rankOf(unitOf(target)) < rankOf('host'))
        wrong.push(`${file} -> ${target}`);
    }
  }
  t.strictSame(wrong, []);
});

test('no file imports itself by way of others', async (t) => {
  const done = new Set<string>();
  const cycles: string[] = [];
  const walk = (file: string, way: readonly string[]): void => {
    const at = way.indexOf(file);
    if (at !== -1) cycles.push([...way.slice(at), file].join(' -> '));
    if (at !== -1 || done.has(file)) return;
    for (const target of graph.get(file) ?? []) walk(target, [...way, file]);
    done.add(file);
  };
  for (const file of graph.keys()) walk(file, []);
  t.strictSame(cycles, []);
});
