/** Who may connect to a socket, and that nothing but that socket is changed. Needs root. */
import { chownSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { openStderr } from '../../agent/host/process-log.js';
import { setSocketAccess } from '../../agent/host/socket-access.js';

const dir = mkdtempSync('/tmp/vmd-access-');
const socket = join(dir, 'nbd.sock');
const server = createServer();
t.before(() => new Promise<void>((resolve) => void server.listen(socket, resolve)));
t.teardown(() => {
  server.close();
  rmSync(dir, { recursive: true, force: true });
});
const of = (path: string) => {
  const { uid, gid, mode } = statSync(path);
  return [uid, gid, mode & 0o777];
};

t.test('its user, and QEMU’s group for as long as it is plugged in', async (t) => {
  await setSocketAccess(socket, { user: 'nobody', group: 'nogroup' });
  t.strictSame(of(socket), [65534, 65534, 0o660]);
  await setSocketAccess(socket, { user: null, group: null });
  t.strictSame(of(socket), [0, 0, 0o600]);
});

t.test(
  'a link or a file that a server has put there is refused, and what it leads to is as it was',
  async (t) => {
    const secret = join(dir, 'secret');
    writeFileSync(secret, 'x', { mode: 0o640 });
    const before = of(secret);
    for (const target of [secret, socket]) {
      const link = join(dir, `link-to-${target === socket ? 'socket' : 'file'}`);
      symlinkSync(target, link);
      await t.rejects(setSocketAccess(link, { user: 'nobody', group: null }), /is no socket/);
    }
    await t.rejects(setSocketAccess(secret, { user: 'nobody', group: null }), /is no socket/);
    t.strictSame(of(secret), before);
    t.strictSame(of(socket), [0, 0, 0o600]);
  },
);

t.test('a log that a server has made there is no file of ours', async (t) => {
  const log = join(dir, 'overlay.log');
  writeFileSync(log, '');
  chownSync(log, 65534, 65534);
  await t.rejects(openStderr(log), /is no file of ours/);
  await (await openStderr(join(dir, 'own.log'))).close();
});
