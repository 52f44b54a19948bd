import { spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';

import { AgentError } from '../../agent/errors.js';
import { identityOf, isAlive, parseStat, readStat, waitForExit } from '../../agent/host/identity.js';
import type { ProcessSpec, ServerProcess } from '../../agent/host/process.js';
import { childProcesses, gate } from '../../agent/host/process-child.js';
import { cutStderr, readStderrTail } from '../../agent/host/process-log.js';
import { findTool, runTool, ToolError } from '../../agent/host/process-tool.js';
import { pause, poll, within } from '../../agent/host/process-wait.js';

const soon = { timeoutMs: 10_000 };
const stopOptions = { timeoutMs: 10_000, graceMs: 5_000 };
const started: ServerProcess[] = [];
let folder = '';
let count = 0;

t.before(async () => {
  folder = await mkdtemp('/tmp/vmdiskd-process-');
  await chmod(folder, 0o777);
});
t.after(async () => {
  for (const server of started) await childProcesses.stop(server, { timeoutMs: 10_000, graceMs: 0 });
  await rm(folder, { recursive: true });
});

/** A shell as the server: `script` runs with `args`. */
async function start(script: string, extra: Partial<ProcessSpec> = {}): Promise<ServerProcess> {
  count += 1;
  const server = await childProcesses.start(
    {
      name: `vmdiskd-test-${process.pid}-${count}`,
      program: 'sh',
      args: ['-c', script],
      stderrFile: join(folder, `stderr-${count}`),
      ...extra,
    },
    soon,
  );
  started.push(server);
  return server;
}

const textOf = (path: string) =>
  within('the file', soon, (signal) =>
    poll(signal, async () => (await readFile(path, 'utf8').catch(() => '')) || undefined),
  );

t.test(
  'a server runs apart: own session, /, no stdin, little environment, the umask asked for',
  async (t) => {
    const out = join(folder, 'apart');
    const script = `{ umask; pwd; readlink /proc/self/fd/0 /proc/self/fd/1; tr '\\0' '\\n' </proc/$$/environ; ls /proc/$$/fd; } >${out}.tmp; mv ${out}.tmp ${out}; exec sleep 60`;
    const server = await start(script, { umask: 0o177, env: { EXTRA: 'yes' } });
    const text = await textOf(out);
    const lines = text.trim().split('\n');
    t.equal(lines[0], '0177');
    t.equal(lines[1], '/');
    t.equal(lines[2], '/dev/null');
    t.match(text, /^EXTRA=yes$/m);
    t.match(text, new RegExp(`^VMDISKD_PROCESS=${server.name}$`, 'm'));
    // (tap's own variables get through: it patches spawn.)
    t.notMatch(text, /^(HOME|USER|PWD=\/.+)/m, 'nothing of our own environment');
    t.equal((await stat(out)).mode & 0o777, 0o600, 'the umask holds');
    const fields = (await readFile(`/proc/${server.identity.pid}/stat`, 'latin1')).split(') ')[1]?.split(' ');
    t.equal(Number(fields?.[3]), server.identity.pid, 'a session of its own');
  },
);

t.test('a server runs as another user without groups', async (t) => {
  await chmod(folder, 0o777);
  const server = await start(`{ id -u; id -g; id -G; } >${folder}/passed; exec sleep 60`, {
    user: { uid: 65534, gid: 65534 },
  });
  const text = await within('ids', soon, (signal) =>
    poll(signal, async () => {
      const got = await readFile(join(folder, 'passed'), 'utf8').catch(() => '');
      return got.split('\n').length === 4 ? got : undefined;
    }),
  );
  t.equal(text, '65534\n65534\n65534\n');
  t.same(await childProcesses.find(server.name), server, 'found though it belongs to another user');
});

t.test('a server is found by its name alone, its children are not, and once dead it is not', async (t) => {
  t.equal(await childProcesses.find(`vmdiskd-test-${process.pid}-none`), undefined);
  const server = await start('sleep 60 & wait');
  t.same(await childProcesses.find(server.name), server);
  t.ok(await childProcesses.isAlive(server));
  // A shell leaves its child behind: end it by its session.
  process.kill(-server.identity.pid, 'SIGKILL');
  await childProcesses.waitForExit(server, soon);
  // The child, which was killed with it, may be a moment longer in dying, and has its environment.
  await within('the child to be gone', soon, (signal) =>
    poll(signal, async () => ((await childProcesses.find(server.name)) === undefined ? true : undefined)),
  );
});

t.test('stop: SIGTERM suffices; is repeated without harm; returns when the process is gone', async (t) => {
  const server = await start('exec sleep 60');
  await childProcesses.stop(server, stopOptions);
  t.notOk(await childProcesses.isAlive(server));
  await childProcesses.stop(server, stopOptions);
});

t.test('stop: SIGKILL for one that does not listen', async (t) => {
  const ready = join(folder, 'deaf');
  const server = await start(`trap '' TERM; echo x >${ready}; while :; do sleep 0.1; done`);
  await textOf(ready);
  await childProcesses.stop(server, { timeoutMs: 10_000, graceMs: 50 });
  t.notOk(await childProcesses.isAlive(server));
});

t.test('stop and isAlive never take another process for ours', async (t) => {
  const server = await start('exec sleep 60');
  const { identity } = server;
  const older = { ...identity, startTime: identity.startTime - 1 };
  const otherBoot = { ...identity, bootId: '00000000-0000-0000-0000-000000000000' };
  for (const stranger of [older, otherBoot]) {
    t.notOk(await isAlive(stranger));
    await childProcesses.stop({ name: server.name, identity: stranger }, stopOptions);
  }
  t.ok(await isAlive(identity), 'the process of the same pid was left alone');
  await t.rejects(waitForExit(identity, { timeoutMs: 20 }), { name: 'Timeout', code: 5016 });
  const leave = new AbortController();
  leave.abort(new Error('caller left'));
  await t.rejects(waitForExit(identity, { ...soon, signal: leave.signal }), { message: 'caller left' });
});

t.test('a zombie is dead', async (t) => {
  // The shell leaves a child that it never waits for: exec makes sleep its parent, before the child ends.
  const parent = spawn('/bin/sh', ['-c', 'sleep 1 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => parent.kill('SIGKILL'));
  const [line] = await parent.stdout.take(1).toArray();
  const pid = Number(String(line).trim());
  const zombie = await within('the zombie', soon, (signal) =>
    poll(signal, async () => {
      const now = await readStat(pid);
      return now?.state === 'Z' ? now : undefined;
    }),
  );
  process.kill(pid, 0);
  t.equal(await identityOf(pid), undefined, 'although kill(pid, 0) succeeds');
  const bootId = (await identityOf(process.pid))?.bootId ?? '';
  t.notOk(await isAlive({ pid, startTime: zombie.startTime, bootId }));
});

t.test(
  'the daemon is killed before the gate opens: no server; after it: the server lives and is found',
  async (t) => {
    const touched = join(folder, 'touched');
    // What a dying daemon leaves: the shell at the gate, whose stdin then ends.
    const orphan = spawn('/bin/sh', ['-c', gate, 'x', '077', '/usr/bin/touch', touched], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    orphan.stdin.destroy();
    await new Promise((resolve) => orphan.once('exit', resolve));
    await t.rejects(stat(touched), { code: 'ENOENT' });

    const name = `vmdiskd-test-${process.pid}-orphan`;
    const daemon = join(folder, 'daemon.mts');
    const module = new URL('../../agent/host/process-child.ts', import.meta.url).href;
    await writeFile(
      daemon,
      `import { childProcesses } from ${JSON.stringify(module)};
     await childProcesses.start({ name: '${name}', program: 'sleep', args: ['60'], stderrFile: '${folder}/orphan.err' }, { timeoutMs: 9000 });
     process.kill(process.pid, 'SIGKILL');`,
    );
    const child = spawn(process.execPath, ['--import=tsx', daemon], { cwd: process.cwd(), stdio: 'inherit' });
    const [, signal] = await new Promise<unknown[]>((resolve) =>
      child.once('exit', (...how) => resolve(how)),
    );
    t.equal(signal, 'SIGKILL');
    const server = await childProcesses.find(name);
    t.ok(server, 'it outlived the one that started it');
    if (server) await childProcesses.stop(server, stopOptions);
    t.equal(await childProcesses.find(name), undefined);
  },
);

t.test('a program that cannot run: missing, not executable, or a user that may not be taken', async (t) => {
  await t.rejects(start('', { program: 'qemu-storage-demon' }), { name: 'ToolMissing', code: 5022 });
  const script = join(folder, 'broken');
  await writeFile(script, '#!/no/such/interpreter\n', { mode: 0o755 });
  const server = await start('', { program: script });
  await childProcesses.waitForExit(server, soon);
  t.match(await readStderrTail(join(folder, `stderr-${count}`)), /not found/);
  await t.rejects(start('', { name: 'a/b' }), TypeError);
  const leave = new AbortController();
  leave.abort(new Error('caller left'));
  const spec = { name: 'x', program: 'true', args: [], stderrFile: join(folder, 'left') };
  await t.rejects(childProcesses.start(spec, { ...soon, signal: leave.signal }), { message: 'caller left' });
});

t.test('stderr: the tail without a torn line, and a cut that the writer does not notice', async (t) => {
  const path = join(folder, 'log');
  t.equal(await readStderrTail(path), '');
  t.notOk(await cutStderr(path, 10));
  const go = join(folder, 'go');
  const script = `seq 1 2000 >&2; while ! [ -e ${go} ]; do sleep 0.02; done; echo after >&2; exec sleep 60`;
  await start(script, { stderrFile: path });
  await within('lines', soon, (signal) =>
    poll(signal, async () => ((await readStderrTail(path, 100)).endsWith('2000') ? true : undefined)),
  );
  t.equal(await readStderrTail(path, 12), '1999\n2000');
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.notOk(await cutStderr(path, 1_000_000));
  t.ok(await cutStderr(path, 100));
  await writeFile(go, '');
  t.equal(await textOf(path), 'after\n', 'no hole before it');
});

t.test('stat of a process with a name made to confuse', async (t) => {
  const tail = Array.from({ length: 40 }, (_, i) => i + 4).join(' ');
  t.same(parseStat(`12 (a) S 1 (b\n) R ${tail}\n`), { pid: 12, state: 'R', startTime: 22 });
  t.throws(() => parseStat('rubbish'), /not of the known form/);
  t.equal(await readStat(2 ** 22 + 1), undefined);
});

t.test('runTool: output, failure with stderr, limits, time, absence', async (t) => {
  const options = { timeoutMs: 10_000, maxOutput: 10_000 };
  t.same(await runTool('sh', ['-c', 'echo out; echo err >&2; pwd'], options), {
    stdout: 'out\n/',
    stderr: 'err',
  });
  t.equal((await runTool('cat', [], { ...options, input: 'through' })).stdout, 'through');
  const error = await runTool('sh', ['-c', 'echo why >&2; exit 3'], options).catch(
    (reason: unknown) => reason,
  );
  t.ok(error instanceof ToolError);
  t.match(error, { exitCode: 3, stderr: 'why', message: 'sh ended with 3: why' });
  await t.rejects(runTool('sh', ['-c', 'kill -9 $$'], options), { message: 'sh was ended by SIGKILL' });
  await t.rejects(runTool('seq', ['1', '100000'], { ...options, maxOutput: 100 }), {
    message: /more than it may/,
  });
  await t.rejects(runTool('sleep', ['60'], { ...options, timeoutMs: 50 }), { name: 'Timeout' });
  const leave = new AbortController();
  const left = runTool('sleep', ['60'], { ...options, signal: leave.signal });
  leave.abort(new Error('caller left'));
  await t.rejects(left, { message: 'caller left' });
  const missing = await findTool('qemu-immage').catch((reason: unknown) => reason);
  t.ok(missing instanceof AgentError);
  t.match(missing, { name: 'ToolMissing', message: /qemu-immage is not installed on this host: install it/ });
  t.equal(await findTool('qemu-img'), '/usr/bin/qemu-img');
});

t.test('within and pause: the deadline, the caller, and nothing left behind', async (t) => {
  await t.rejects(
    within('work', { timeoutMs: 10 }, (signal) => pause(10_000, signal)),
    { name: 'Timeout', message: 'work took longer than 10 ms; try again.' },
  );
  const outer = new AbortController();
  const work = within('work', { ...soon, signal: outer.signal }, (signal) => pause(10_000, signal));
  outer.abort(new Error('caller left'));
  await t.rejects(work, { message: 'caller left' });
  t.equal(await within('work', soon, async () => 7), 7);
});
