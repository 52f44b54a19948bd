import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { DirectoryInUseError, lockDirectory } from '../../agent/host/directory-lock.js';
import { identityOf } from '../../agent/host/identity.js';

const source = fileURLToPath(new URL('../../agent/host/directory-lock.ts', import.meta.url));

/** A process that locks and then waits until its stdin ends; says `locked` or the error's name. */
function contender(state: string) {
  const code = `import { lockDirectory } from ${JSON.stringify(source)};
    try { await lockDirectory(${JSON.stringify(state)}); console.log('locked'); process.stdin.resume(); }
    catch (error) { console.log(error.name); }`;
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', code], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const said = new Promise<string>((resolve) =>
    createInterface({ input: child.stdout }).once('line', resolve),
  );
  const ended = new Promise((resolve) => child.once('close', resolve));
  return { child, said, ended };
}

t.test('one process alone works with a state directory, until it lets go', async (t) => {
  const state = join(t.testdir(), 'state');
  const unlock = await lockDirectory(state);
  await t.rejects(lockDirectory(state), {
    name: 'DirectoryInUseError',
    message: /pid \d+.*stop that one first/,
  });
  t.same(readdirSync(state), ['lock.json'], 'the one that was refused leaves nothing');
  await unlock();
  await unlock();
  t.notOk(existsSync(join(state, 'lock.json')));
  await (await lockDirectory(state))();
});

t.test('a lock that a killed process, another boot or half a write left is taken over', async (t) => {
  const state = t.testdir();
  const { child, said, ended } = contender(state);
  t.equal(await said, 'locked');
  await t.rejects(lockDirectory(state), DirectoryInUseError);
  child.kill('SIGKILL');
  await ended;
  await (await lockDirectory(state))();

  const self = await identityOf(process.pid);
  for (const left of [JSON.stringify({ ...self, bootId: 'another' }), '{"pid": 1', '']) {
    writeFileSync(join(state, 'lock.json'), left);
    await (await lockDirectory(state))();
  }
  t.same(readdirSync(state), []);
});

t.test('what starts that were killed have left beside the lock goes with the next one', async (t) => {
  const state = t.testdir();
  const self = await identityOf(process.pid);
  const dead = { ...self, bootId: 'another' };
  const beside = (name: string, content: string) => writeFileSync(join(state, `lock.json.${name}`), content);
  beside('of-999999998', JSON.stringify(dead));
  beside('of-999999999', '{"pid": 1');
  beside('left-999999997', JSON.stringify(dead));
  beside('of-1', '{"pid": 1'); // of one that lives, which is just writing it
  beside('of-2', JSON.stringify(self));
  const unlock = await lockDirectory(state);
  t.same(readdirSync(state).sort(), ['lock.json', 'lock.json.of-1', 'lock.json.of-2']);
  await unlock();
});

t.test('of many that start at once over a left lock exactly one gets it', async (t) => {
  const state = t.testdir();
  mkdirSync(state, { recursive: true });
  writeFileSync(join(state, 'lock.json'), '{"pid": 1, "startTime": 1, "bootId": "another"}');
  const all = Array.from({ length: 6 }, () => contender(state));
  const answers = await Promise.all(all.map(({ said }) => said));
  t.equal(answers.filter((answer) => answer === 'locked').length, 1, answers.join(', '));
  t.equal(answers.filter((answer) => answer === 'DirectoryInUseError').length, 5);
  for (const { child } of all) child.stdin.end();
  await Promise.all(all.map(({ ended }) => ended));
});
