/**
 * Names and strings as callers and operators may choose them, through the real parts: paths of images, bitmaps, serials and
 * names of VMs mean to a shell, to XML, to QEMU's option parser or to a command line what they do not mean to us.
 */
import { writeFileSync } from 'node:fs';
import t from 'tap';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { failureOf, MiB, prepare, remains, sha256OfExport, sha256OfImage, verb } from './rig.js';

t.setTimeout(600_000);

const SIZE = 4 * MiB;
const DIRECTORY = '/var/lib/libvirt/images';
/** What each of them is to somebody. */
const FILES = [
  'a,b=c,file.locking=off.qcow2',
  '--help',
  '-x y.qcow2',
  'json:{"driver":"null-co"}',
  'nbd:unix:somewhere',
  '$(touch x);`id`|&.qcow2',
  `'quotes"and\\slashes.qcow2`,
  '<disk type="file">&amp;.qcow2',
  '%s%n%%.qcow2',
  '#?query=1.qcow2',
  'ünï çødé 💾.qcow2',
];
const BITMAPS = [
  '--help',
  'a,b=c',
  'x y',
  '$(id)',
  `'"`,
  '<b>&amp;',
  '%s',
  ':',
  'ünï 💾',
  'qemu:dirty-bitmap:x',
  '[]{}',
  'long'.repeat(255),
];

let host: Host;
let daemon: DaemonHandle;

t.before(async () => {
  host = await startHost(t);
  daemon = await host.startDaemon();
});

const io = (path: string, command: string) => host.must('qemu-io', ['-f', 'qcow2', '-c', command, path]);

t.test('paths and bitmaps', async (t) => {
  for (const [index, name] of FILES.entries()) {
    const path = `${DIRECTORY}/${name}`;
    const bitmap = BITMAPS[index % BITMAPS.length] ?? '';
    await host.createImage({ name, format: 'qcow2', size: SIZE });
    await io(path, `write -P ${index + 1} 0 1M`);
    // Options come before `--`: a bitmap may be called like one.
    await host.must('qemu-img', ['bitmap', '--add', '--', path, bitmap]);
    await io(path, `write -P ${index + 101} 1M 64k`);
    const made = await prepare(daemon, { exportId: `n${index}`, path, format: 'qcow2', since: { bitmap } });
    t.match(
      made.cbt,
      {
        ...{ mode: 'incremental', origin: 'bitmap', since: { bitmap }, changedBytes: 65536 },
        metaContext: `qemu:dirty-bitmap:${bitmap}`,
      },
      JSON.stringify(name),
    );
    t.strictSame(
      made.cbt.extents.filter(({ dirty }) => dirty),
      [{ start: MiB, length: 65536, dirty: true, zero: false }],
    );
    t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, path, 'qcow2'));
    t.match(await verb(daemon, 'getExport', { exportId: `n${index}` }), { path });
    await verb(daemon, 'teardownBackupDisk', { exportId: `n${index}` });
  }
  t.strictSame(await remains(host), []);
});

t.test('what cannot be a name is refused, and names what is wrong', async (t) => {
  for (const [params, told] of [
    [{ exportId: 'x', path: `${DIRECTORY}/nul\0byte`, format: 'qcow2' }, /path/],
    [{ exportId: 'x', path: `${DIRECTORY}/two\nlines`, format: 'qcow2' }, /control characters/],
    [{ exportId: 'x', path: `${DIRECTORY}/${'long/'.repeat(900)}`, format: 'qcow2' }, /path/],
    [{ exportId: '../x', path: DIRECTORY, format: 'qcow2' }, /exportId/],
    [{ exportId: 'x\n', path: DIRECTORY, format: 'qcow2' }, /exportId/],
    [{ exportId: '-x', path: DIRECTORY, format: 'qcow2' }, /exportId/],
    [{ exportId: 'x', path: `${DIRECTORY}/--help`, format: 'qcow2', since: { bitmap: '' } }, /since/],
    [
      { exportId: 'x', path: `${DIRECTORY}/--help`, format: 'qcow2', since: { bitmap: 'b'.repeat(1024) } },
      /since/,
    ],
    [{ exportId: 'x', path: `${DIRECTORY}/--help`, format: 'qcow2,x=y' }, /format/],
  ] as const) {
    const failure = await failureOf(prepare(daemon, params as object));
    t.match({ code: failure.code, told: JSON.stringify(failure.data) }, { code: -32602, told });
  }
  t.strictSame(await remains(host), []);
});

t.test('a VM whose name and disk are full of them: live, as a snapshot, merged', async (t) => {
  const [vm, serial, file] = [`x & <"y">' --z,a=b %s $(id)`, 's .x-1+_', `d,isk's "<&>" %.qcow2`];
  const path = await host.createImage({ name: file, format: 'qcow2', size: SIZE });
  await io(path, 'write -P 7 0 1M');
  const escaped = (text: string): string =>
    text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`);
  writeFileSync(
    host.path('/run/strange.xml'),
    `<domain type='qemu'><name>${escaped(vm)}</name><memory unit='MiB'>32</memory>
      <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>
        <controller type='usb' model='none'/><memballoon model='none'/>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
          <source file='${escaped(path)}'/><target dev='vda' bus='virtio'/><serial>${escaped(serial)}</serial></disk>
      </devices></domain>`,
  );
  await host.virsh('define', '/run/strange.xml');
  await host.virsh('start', '--paused', vm);
  const truth = await sha256OfImage(host, path, 'qcow2');
  const ask = { vmId: vm, disk: serial };
  const live = await prepare(daemon, { exportId: 'live', ...ask, checkpoint: 'one' });
  t.equal(await sha256OfExport(host, live.uri), truth);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'live', outcome: 'success' });
  await verb(daemon, 'createSnapshot', { snapshotId: 'snap', vmId: vm, quiesce: 'no' });
  const config = await verb(daemon, 'getSnapConfig', { snapshotId: 'snap', vmId: vm });
  t.match(config.domainXml, /x &amp; &lt;/);
  const frozen = await prepare(daemon, { exportId: 'frozen', ...ask, snapshotId: 'snap' });
  t.equal(await sha256OfExport(host, frozen.uri), truth);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'frozen' });
  const { jobId } = await verb(daemon, 'deleteSnapshot', { snapshotId: 'snap', vmId: vm });
  await poll(
    'the merge to end',
    60_000,
    async () => (await verb(daemon, 'getJob', { jobId })).state !== 'running',
  );
  t.match(await verb(daemon, 'getJob', { jobId }), { state: 'done' });
  await verb(daemon, 'deleteCheckpoint', { vmId: vm, checkpoint: 'one' });
  t.match(await verb(daemon, 'listDisks', { vmId: vm }), {
    disks: [{ target: 'vda', serial, chain: [{ path }] }],
  });
  await host.virsh('destroy', vm);
  t.strictSame(await remains(host), []);
});
