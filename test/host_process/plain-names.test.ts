import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { ConfinedView } from '../../agent/host/confine.js';
import { plainlyNamed } from '../../agent/host/plain-names.js';

const run = mkdtempSync('/tmp/vmd-plain-');
const root = join(run, 'root');
t.teardown(() => rmSync(run, { recursive: true, force: true }));
const view = (...paths: string[]): ConfinedView => ({
  confinement: { by: 'units', uid: 1, gid: 1, root },
  files: paths.map((path, i) => ({ path, id: `1:${i}`, write: i === 0 })),
});

t.test('names that systemd takes as they stand are left alone', async (t) => {
  const given = view('/var/lib/libvirt/images/a-1_b+c@d,e=f.qcow2');
  t.equal(await plainlyNamed(given, async (named) => named), given);
});

t.test('others are links for as long as it takes, in their places', async (t) => {
  const odd = ['/i/a b', '/i/a:b', "/i/Bob's", '/i/a"b', '/i/a\\b', '/i/a\tb', '/i/a\nb', '/i/a%n', '/i/ä'];
  await plainlyNamed(view('/i/plain', ...odd), async ({ files }) => {
    t.strictSame(files[0], { path: '/i/plain', id: '1:0', write: true });
    t.strictSame(
      files.slice(1).map(({ path }) => readlinkSync(path)),
      odd,
    );
    for (const { path } of files) t.match(path, /^[\w./-]+$/);
    t.strictSame(
      files.map(({ id }) => id),
      files.map((_, i) => `1:${i}`),
    );
  });
  t.strictSame(readdirSync(run), []);
  await t.rejects(
    plainlyNamed(view('/i/a b'), async () => {
      t.equal(readdirSync(run).length, 1);
      throw new Error('no');
    }),
    /^no$/,
  );
  t.strictSame(readdirSync(run), [], 'also when it fails');
});
