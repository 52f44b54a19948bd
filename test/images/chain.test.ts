import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readChain } from '../../agent/images/chain.js';

const dir = mkdtempSync('/tmp/vmd-chain-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: dir, encoding: 'utf8' });
const roots = [dir];

t.test('a chain of three layers: formats, capacities and bitmaps as qemu-img made them', async (t) => {
  qemuImg('create', '-f', 'raw', 'base.raw', '8M');
  qemuImg('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'middle.qcow2', '8M');
  qemuImg('create', '-f', 'qcow2', '-b', at('middle.qcow2'), '-F', 'qcow2', 'top.qcow2', '16M');
  qemuImg('bitmap', '--add', '-g', '128k', 'top.qcow2', 'monday');
  qemuImg('bitmap', '--add', '--disable', 'top.qcow2', 'größe 2');
  qemuImg('bitmap', '--add', 'middle.qcow2', 'sunday');
  const chain = await readChain({ path: at('top.qcow2'), format: 'qcow2' }, roots);
  t.match(chain, [
    { path: at('top.qcow2'), format: 'qcow2', capacity: 16 << 20 },
    { path: at('middle.qcow2'), format: 'qcow2', capacity: 8 << 20 },
    { path: at('base.raw'), format: 'raw', capacity: 8 << 20, bitmaps: [] },
  ]);
  t.same(chain[0]?.bitmaps, [
    { name: 'monday', granularity: 131072, recording: true, inconsistent: false },
    { name: 'größe 2', granularity: 65536, recording: false, inconsistent: false },
  ]);
  t.match(chain[1]?.bitmaps, [{ name: 'sunday' }]);
});

t.test('a bitmap directory of many clusters', async (t) => {
  qemuImg('create', '-f', 'qcow2', '-o', 'cluster_size=512', 'many.qcow2', '1M');
  const names = Array.from({ length: 40 }, (_, i) => `checkpoint-${i}`);
  for (const name of names) qemuImg('bitmap', '--add', 'many.qcow2', name);
  const chain = await readChain({ path: at('many.qcow2'), format: 'qcow2' }, roots);
  t.same(chain[0]?.bitmaps.map(({ name }) => name).sort(), [...names].sort());
});

t.test('what is not safe or not possible to open is refused by name', async (t) => {
  qemuImg('create', '-f', 'qcow2', 'plain.qcow2', '1M');
  symlinkSync('/etc/hostname', at('link.raw'));
  writeFileSync(at('noise'), 'not an image at all');
  execFileSync('mkfifo', [at('fifo')]);
  mkdirSync(at('folder'));
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'folder', '-F', 'raw', 'above-folder.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'nbd://127.0.0.1:1/x', '-F', 'raw', 'protocol.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'json:{"driver":"null-co"}', '-F', 'raw', 'json.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', '/etc/passwd', '-F', 'raw', 'outside.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'circle-b.qcow2', '-F', 'qcow2', 'circle-a.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'circle-a.qcow2', '-F', 'qcow2', 'circle-b.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'gone.qcow2', '-F', 'qcow2', 'orphan.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'plain.qcow2', '-F', 'vmdk', 'vmdk-below.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-o', `data_file=${at('data.raw')}`, 'data-file.qcow2', '1M');
  qemuImg('create', '-f', 'qcow2', '-u', '-b', 'plain.qcow2', '-F', 'qcow2', 'no-format.qcow2', '1M');
  const header = readFileSync(at('no-format.qcow2'));
  header.writeUInt32BE(0x12345678, header.indexOf('e2792aca', 'hex')); // an extension that nobody knows
  writeFileSync(at('no-format.qcow2'), header);
  qemuImg('create', '-f', 'qcow2', 'cut.qcow2', '1M');
  truncateSync(at('cut.qcow2'), 90);
  qemuImg('create', '-f', 'qcow2', 'cut-behind.qcow2', '1M');
  truncateSync(at('cut-behind.qcow2'), 70_000); // the header is whole, the L1 table is gone
  const cases: [path: string, format: 'qcow2' | 'raw', name: string, says: RegExp][] = [
    [at('absent.qcow2'), 'qcow2', 'NoSuchImage', /check the path/],
    ['relative.qcow2', 'qcow2', 'PathNotAllowed', /absolute/],
    [
      '/etc/hostname',
      'raw',
      'PathNotAllowed',
      new RegExp(
        `^The image /etc/hostname lies under none of the allowed roots \\(${dir}\\); add its directory to \\[images\\] allowedRoots\\.$`,
      ),
    ],
    ['/etc', 'raw', 'PathNotAllowed', /^The image \/etc lies under none of the allowed roots/],
    [`${dir}/../${dir.split('/').at(-1)}-else`, 'raw', 'NoSuchImage', /cannot be found/],
    [
      at('link.raw'),
      'raw',
      'PathNotAllowed',
      /^The image .*\/link\.raw is \/etc\/hostname, which lies under none of the allowed roots/,
    ],
    [
      `${dir}/`,
      'raw',
      'PathNotAllowed',
      /^The path .*\/ is an allowed root itself and no image; give the path of an image under it\.$/,
    ],
    [
      at('folder'),
      'qcow2',
      'UnsafeImage',
      new RegExp(
        `^The path .*/folder is a directory and no image; give the path of an image file or a block device under an allowed root \\(${dir}\\)\\.$`,
      ),
    ],
    [at('fifo'), 'raw', 'UnsafeImage', /is a FIFO and no image/],
    [at('above-folder.qcow2'), 'qcow2', 'UnsafeImage', /folder, which .* names .* is a directory/],
    [at('noise'), 'qcow2', 'WrongFormat', /format that it really has/],
    [at('protocol.qcow2'), 'qcow2', 'UnsafeImage', /protocol/],
    [at('json.qcow2'), 'qcow2', 'UnsafeImage', /protocol/],
    [
      at('outside.qcow2'),
      'qcow2',
      'PathNotAllowed',
      /passwd, which .*outside\.qcow2 names as its backing file, lies under none .*if that name is/,
    ],
    [at('circle-a.qcow2'), 'qcow2', 'UnsafeImage', /leads back/],
    [at('orphan.qcow2'), 'qcow2', 'NoSuchImage', /gone\.qcow2, which .*orphan\.qcow2 names/],
    [at('vmdk-below.qcow2'), 'qcow2', 'WrongFormat', /vmdk/],
    [at('data-file.qcow2'), 'qcow2', 'UnsafeImage', /data file/],
    [at('no-format.qcow2'), 'qcow2', 'WrongFormat', /rebase -u -F/],
    [at('cut.qcow2'), 'qcow2', 'UnsafeImage', /cut short/],
    [at('cut-behind.qcow2'), 'qcow2', 'UnsafeImage', /L1 table/],
  ];
  for (const [path, format, name, message] of cases) {
    await t.rejects(readChain({ path, format }, roots), { name, message }, `${path} is ${name}`);
  }
});

t.test('a bitmap in use, and bitmaps that another program has passed over, are inconsistent', async (t) => {
  qemuImg('create', '-f', 'qcow2', 'used.qcow2', '1M');
  qemuImg('bitmap', '--add', 'used.qcow2', 'b');
  // qemu-io's abort is a writer's death: the bitmaps that it had loaded stay marked as in use.
  spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 0 64k', '-c', 'abort', at('used.qcow2')]);
  const used = await readChain({ path: at('used.qcow2'), format: 'qcow2' }, roots);
  t.same(used[0]?.bitmaps, [{ name: 'b', granularity: 65536, recording: true, inconsistent: true }]);

  qemuImg('create', '-f', 'qcow2', 'passed.qcow2', '1M');
  qemuImg('bitmap', '--add', 'passed.qcow2', 'b');
  const header = readFileSync(at('passed.qcow2'));
  header.writeBigUInt64BE(0n, 88); // a writer that knows no bitmaps clears the autoclear bits
  writeFileSync(at('passed.qcow2'), header);
  const passed = await readChain({ path: at('passed.qcow2'), format: 'qcow2' }, roots);
  t.match(passed[0]?.bitmaps, [{ name: 'b', inconsistent: true }]);
});
