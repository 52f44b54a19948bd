/** Which files a process has open. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { fileAt, filesOf, isSameFile } from '../../agent/host/open-files.js';
import { poll } from '../host/poll.js';

t.test('files of a process, by any name; of one that is gone there are none', async (t) => {
  const path = `${t.testdir()}/file`;
  writeFileSync(path, '');
  const child = spawn('sleep', ['60'], { stdio: ['ignore', openSync(path, 'r'), 'ignore'] });
  const { pid } = child;
  if (pid === undefined) throw new Error('sleep did not start');
  const ended = once(child, 'exit');
  const file = await fileAt(path);
  await poll('the file to be found', 10_000, async () =>
    (await filesOf(pid)).some((one) => file !== undefined && isSameFile(one, file) && one.path === path),
  );
  child.kill('SIGKILL');
  await ended;
  t.strictSame(await filesOf(pid), []);
});
