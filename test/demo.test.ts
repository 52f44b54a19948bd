// `npm run demo` without its set-up: to its end, and broken off. Needs root.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Teardown } from './host/host.js';

t.setTimeout(600_000);

const root = fileURLToPath(new URL('..', import.meta.url));

interface Run {
  child: ChildProcess;
  output: string;
  /** Settles when the demo has printed the text, or has ended. */
  said(text: string): Promise<void>;
  code: Promise<number | null>;
}

function startDemo(t: Teardown): Run {
  const child = spawn(process.execPath, ['--import=tsx', 'test/demo.ts'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const code = once(child, 'close').then(([exit]) => exit as number | null);
  const run: Run = {
    child,
    output: '',
    code,
    async said(text) {
      while (!run.output.includes(text)) {
        const ended = await Promise.race([once(child, 'printed').then(() => false), code.then(() => true)]);
        if (ended) return;
      }
    },
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      run.output += text;
      child.emit('printed');
    });
  }
  return run;
}

/** The private host's directory, which the demo names. */
const directoryIn = (output: string): string => /\/var\/tmp\/vmd-\w+/.exec(output)?.[0] ?? '';

/** The process whose command line has these two texts. */
function pidOf(...texts: string[]): number {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if (texts.every((text) => line.includes(text))) return Number(pid);
    } catch {
      // It ended while we looked.
    }
  }
  throw new Error(`No process has ${texts.join(' and ')} in its command line`);
}

t.test('to the end: every step holds, in plain text, and nothing is left', async (t) => {
  const run = startDemo(t);
  t.equal(await run.code, 0, run.output);
  t.notMatch(run.output, /WRONG|FAILED/);
  t.equal(run.output.includes('\x1b'), false, 'no colours where there is no terminal');
  const verbs = ['prepareBackupDisk', 'hotplugDisk', 'hotunplugDisk', 'teardownBackupDisk'];
  for (const verb of [
    ...verbs,
    'createSnapshot',
    'getSnapConfig',
    'deleteSnapshot',
    'deleteCheckpoint',
    'mountDisk',
  ]) {
    t.match(run.output, new RegExp(`^   > ${verb} .* \\d+ ms$`, 'm'), `${verb} in a line, with its time`);
  }
  t.match(
    run.output,
    '|....####...#####.................+..............####...........#|',
    'the map of what was written',
  );
  t.match(
    run.output,
    '|.....#..........+....#..................#........0..............|',
    'and of what was changed',
  );
  t.match(run.output, /to be read: 3.25 MiB; NOT to be read: 60.75 MiB of 64 MiB \(94 %\)/);
  t.match(run.output, /> getJob .* -> running, \d+ % +\d+ ms\n/, 'the merge, while it runs');
  t.match(run.output, /> getJob .* -> done, 100 % +\d+ ms\n/, 'and done');
  t.match(run.output, /ok: the appliance has mounted it, and replayed the journal/);
  t.match(run.output, /written to the throw-away layer: [\d.]+ KiB, of at most/);
  t.match(directoryIn(run.output), /vmd-/);
  t.notOk(existsSync(directoryIn(run.output)));
});

t.test('something goes wrong: it says what, ends with 1, and nothing is left', async (t) => {
  const run = startDemo(t);
  await run.said('2. A full backup');
  const dir = directoryIn(run.output);
  process.kill(pidOf('guest=shop,', dir), 'SIGKILL');
  t.equal(await run.code, 1, run.output);
  t.match(run.output, /\nFAILED: .+\n$/, 'its last word');
  t.notOk(existsSync(dir));
});

t.test('interrupted while guests run: it says so and takes everything down', async (t) => {
  const run = startDemo(t);
  await run.said('2. A full backup');
  const dir = directoryIn(run.output);
  t.ok(existsSync(dir));
  run.child.kill('SIGINT');
  run.child.kill('SIGINT'); // as from a terminal and from npm at once
  t.equal(await run.code, 130);
  t.match(run.output, /SIGINT: taking everything down\n$/, 'its last word');
  t.notOk(existsSync(dir));
});
