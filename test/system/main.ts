/**
 * `npm run test:system`: boots Debian 13 and Debian 12 with their own systemd, libvirt and QEMU, installs the package there,
 * and goes through what it promises, step by step. `npm run test:system -- trixie` (or `bookworm`): that one alone. A line a
 * step; any failure is a non-zero exit. A run of both writes its result into docs/system.md. Leaves nothing behind but the
 * trees in .cache/system.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { apparmor } from './apparmor.js';
import { makeDirectory, removeDirectory, sweepStaleDirectories } from './directories.js';
import { exposure } from './exposure.js';
import { flow } from './flow.js';
import { install } from './install.js';
import { Machine } from './machine.js';
import { mistake } from './mistake.js';
import { mounts } from './mounts.js';
import { removal } from './removal.js';
import { type Result, writeResult } from './result.js';
import { sandbox } from './sandbox.js';
import { type Outcome, playSteps } from './steps.js';
import { survive } from './survive.js';
import { tracesOf } from './traces.js';
import { watchdog } from './watchdog.js';
import { makePackages, type World } from './world.js';

const RELEASES = ['trixie', 'bookworm'];
const STEPS = [
  install,
  apparmor,
  flow,
  mounts,
  survive,
  watchdog,
  exposure,
  sandbox,
  mistake,
  removal,
].flat();
const TREE_DEADLINE_MS = 1_800_000;
const root = fileURLToPath(new URL('../..', import.meta.url));
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const closers: (() => unknown)[] = [];

async function tearDown(): Promise<void> {
  for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close();
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : RELEASES;
if (wanted.some((release) => !RELEASES.includes(release))) {
  say(`usage: npm run test:system -- ${RELEASES.join('|')}`);
  process.exit(1);
}
let breakingOff = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // More than one may come: Ctrl-C reaches us from the terminal, and again by way of tsx.
  process.on(signal, () => {
    if (breakingOff) return;
    breakingOff = true;
    say(`${signal}: taking everything down`);
    void tearDown().finally(() => process.exit(128 + constants.signals[signal]));
  });
}

const begun = Date.now();
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const results: Result[] = [];
try {
  sweepStaleDirectories();
  const dir = makeDirectory();
  closers.push(() => removeDirectory(dir));
  const versions = [version, `${version}+1`];
  const files = await makePackages(root, dir, versions);
  const packages = files.map((file, at) => ({
    file,
    version: versions[at] ?? '',
    path: `/root/${basename(file)}`,
  }));
  for (const release of wanted) results.push(await play(release, packages));
} finally {
  if (!breakingOff) await tearDown();
}
const failed = results.flatMap(({ outcomes }) => outcomes).filter(({ result }) => result !== 'ok').length;
const steps = results.reduce((sum, { outcomes }) => sum + outcomes.length, 0);
const minutes = ((Date.now() - begun) / 60_000).toFixed(1);
if (wanted === RELEASES) {
  const { stdout: commit } = await execa('git', ['describe', '--always', '--dirty'], { cwd: root });
  const day = new Date().toISOString().slice(0, 10);
  const summary = `${steps - failed} of ${steps} steps passed, in ${minutes} minutes.`;
  writeResult(
    join(root, 'docs/system.md'),
    `${day}, ${commit}, guests emulated on two cores: ${summary}`,
    results,
  );
}
say(`${steps - failed} passed, ${failed} failed or left out, in ${minutes} minutes`);
if (failed > 0) process.exitCode = 1;

async function play(release: string, packages: readonly { file: string; version: string; path: string }[]) {
  say(`== ${release}`);
  const { stdout } = await execa('bash', [join(root, 'test/system/tree.sh'), release], {
    timeout: TREE_DEADLINE_MS,
    stderr: 'inherit',
  });
  const tree = stdout.trim().split('\n').at(-1) ?? '';
  const machine = await Machine.boot(tree, (remove) => closers.push(remove));
  closers.push(() => machine.close());
  const [first, second] = packages;
  if (first === undefined || second === undefined) throw new Error('There are no two packages.');
  for (const { file, path } of packages) machine.put(file, path);
  mkdirSync(machine.path('/run/guests'));
  const world: World = {
    release,
    machine,
    first,
    second,
    before: await tracesOf(machine),
    figures: new Map(),
  };
  const outcomes = await playSteps(STEPS, world, tell, async () => {
    const log = ['journalctl', '-o', 'cat', '-u', 'vmdiskd*', '-n', '12', '--no-pager'];
    return `${(await machine.run(log)).stdout.replace(/^.{0,200}/gm, '         | $&').replace(/(?<=^.{211}).*/gm, '…')}\n`;
  });
  await machine.close();
  return { release, outcomes, figures: world.figures };
}

function tell({ name, result, seconds, words }: Outcome): void {
  say(`${result.padEnd(9)}${name} (${seconds.toFixed(1)} s): ${words}`);
}
