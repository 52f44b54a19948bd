/** Exports of what external snapshots of a running VM froze, and the disks of VMs as listDisks tells them. Needs root. */
import t from 'tap';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import {
  coversDisk,
  MiB,
  prepare,
  refused,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
  wholeMap,
} from './rig.js';

t.setTimeout(600_000);

const IMAGES = '/var/lib/libvirt/images';
const SIZE = 8 * MiB;
const DISKS = ['vda', 'vdb', 'sda'] as const;
let host: Host;
let daemon: DaemonHandle;
let vm: Guest;

t.before(async () => {
  host = await startHost(t);
  const image = (name: string, format: 'qcow2' | 'raw') => host.createImage({ name, format, size: SIZE });
  const [vda, vdb, sda] = await Promise.all([
    image('a.qcow2', 'qcow2'),
    image('b.raw', 'raw'),
    image('c.qcow2', 'qcow2'),
  ]);
  [daemon, vm] = await Promise.all([
    host.startDaemon(),
    host.startGuest({
      name: 'vm',
      disks: [
        { target: 'vda', path: vda, format: 'qcow2', serial: 'system' },
        { target: 'vdb', path: vdb, format: 'raw' },
        { target: 'sda', bus: 'scsi', path: sda, format: 'qcow2' },
      ],
    }),
  ]);
});

/** An external snapshot of all disks at one instant, the new layers named after it. */
async function snapshot(name: string): Promise<void> {
  const layers = DISKS.flatMap((disk) => [
    '--diskspec',
    `${disk},snapshot=external,file=${IMAGES}/${disk}.${name}`,
  ]);
  await host.virsh('snapshot-create-as', 'vm', name, '--disk-only', '--atomic', ...layers);
}

/** The guest writes something else all over every disk; returns, when it has begun to, how to make it stop. */
async function keepWriting(): Promise<() => Promise<void>> {
  const loop = (disk: string) =>
    `i=0; while [ ! -e /tmp/stop ]; do
      write-random /dev/${disk} $((i * 458752 % 7340032)) 65536 ${disk}$i || exit 1
      : >/tmp/wrote.${disk}; i=$((i + 1)); sleep 0.1
    done`;
  await vm.sh('rm -f /tmp/stop /tmp/wrote.*');
  const loops = Promise.all(DISKS.map((disk) => vm.sh(loop(disk), { timeoutMs: 300_000 })));
  await vm.sh(`while ! [ -e /tmp/wrote.vda -a -e /tmp/wrote.vdb -a -e /tmp/wrote.sda ]; do sleep 0.1; done`);
  return async () => {
    await vm.sh('touch /tmp/stop');
    await loops;
  };
}

const of = (exportId: string, disk: string, snapshotId?: string) => () =>
  prepare(daemon, { exportId, vmId: 'vm', disk, ...(snapshotId !== undefined && { snapshotId }) });
const tearDown = (exportId: string) => verb(daemon, 'teardownBackupDisk', { exportId });

t.test('a snapshot that the VM does not have', async (t) => {
  const vmId = (await host.virsh('domuuid', 'vm')).trim();
  const told = /no snapshot "none".*listSnapshots/;
  await refused(t, host, 'NoSuchSnapshot', of('live', 'vda', 'none'), told, { vmId, disk: 'vda' });
});

t.test('an image above a raw one that a running VM writes to', async (t) => {
  const backing = { path: `${IMAGES}/b.raw`, format: 'raw' } as const;
  const path = await host.createImage({ name: 'above.qcow2', format: 'qcow2', backing });
  const byPath = () => prepare(daemon, { exportId: 'above', path, format: 'qcow2' });
  await refused(t, host, 'DiskInUse', byPath, /vm runs and writes to .*b\.raw/);
  await host.must('rm', [path]);
});

t.test('several disks as they were at a snapshot, while the guest writes on', async (t) => {
  await vm.sh(
    'write-random /dev/vda 1048576 3145728 a; write-random /dev/vdb 0 2097152 b; write-random /dev/sda 4194304 65536 c',
  );
  const frozen = await Promise.all(DISKS.map((disk) => vm.sha256(`/dev/${disk}`)));
  await snapshot('s1');
  const stop = await keepWriting();
  const made = await Promise.all(DISKS.map((disk) => of(`s1-${disk}`, disk, 's1')()));
  t.strictSame(await Promise.all(made.map(({ uri }) => sha256OfExport(host, uri))), frozen);
  const maps = await Promise.all(
    DISKS.map((disk) => wholeMap(daemon, { exportId: `s1-${disk}`, maxExtents: 1 })),
  );
  for (const [index, { cbt, blocksStart, drive }] of made.entries()) {
    t.match({ blocksStart, capacity: drive.capacity }, { blocksStart: false, capacity: SIZE });
    t.match(cbt, { mode: 'full', origin: 'allocation' });
    t.ok(coversDisk(cbt.extents, SIZE));
    t.strictSame(maps[index]?.extents, cbt.extents, 'the map stays the same while the guest writes');
  }
  const { exports } = await verb(daemon, 'listExports', { vmId: 'vm' });
  const rows = exports.map(({ disk, path, format, pointInTime }) => ({ disk, path, format, pointInTime }));
  const at = { kind: 'snapshot', snapshotId: 's1' } as const;
  t.strictSame(
    rows.toSorted((one, two) => ((one.disk ?? '') < (two.disk ?? '') ? -1 : 1)),
    [
      { disk: 'sda', path: `${IMAGES}/c.qcow2`, format: 'qcow2', pointInTime: at },
      { disk: 'vda', path: `${IMAGES}/a.qcow2`, format: 'qcow2', pointInTime: at },
      { disk: 'vdb', path: `${IMAGES}/b.raw`, format: 'raw', pointInTime: at },
    ],
  );

  const middle = await Promise.all(
    DISKS.map((disk) =>
      sha256OfExport(host, `nbd+unix:///s1-${disk}?socket=/run/vmdiskd/exports/s1-${disk}/nbd.sock`),
    ),
  );
  t.strictSame(middle, frozen, 'and again, later');
  await stop();
  const after = await Promise.all(DISKS.map((disk) => vm.sha256(`/dev/${disk}`)));
  t.ok(
    after.every((sum, i) => sum !== frozen[i]),
    'it did write, to every disk',
  );
  await Promise.all(DISKS.map((disk) => tearDown(`s1-${disk}`)));
  t.strictSame(await remains(host), []);
});

t.test(
  'a snapshot above a snapshot: each shows its own state; images that the VM writes to do not',
  async (t) => {
    const second = await Promise.all(DISKS.map((disk) => vm.sha256(`/dev/${disk}`)));
    await snapshot('s2');
    await vm.sh(
      'write-random /dev/vda 0 65536 after; write-random /dev/vdb 0 65536 after; write-random /dev/sda 0 65536 after',
    );
    const made = await Promise.all(
      DISKS.map((disk) => of(`s2-${disk}`, disk === 'vda' ? 'system' : disk, 's2')()),
    );
    t.strictSame(await Promise.all(made.map(({ uri }) => sha256OfExport(host, uri))), second);
    t.match((await verb(daemon, 'getExport', { exportId: 's2-vdb' })).path, `${IMAGES}/vdb.s1`);
    const first = await of('s1-again', 'vdb', 's1')();
    t.equal(await sha256OfExport(host, first.uri), await sha256OfImage(host, `${IMAGES}/b.raw`, 'raw'));
    await Promise.all([...DISKS.map((disk) => tearDown(`s2-${disk}`)), tearDown('s1-again')]);

    for (const [path, format] of [
      [`${IMAGES}/vda.s2`, 'qcow2'],
      [`${IMAGES}/vdb.s2`, 'qcow2'],
      [`${IMAGES}/vdb.s2`, 'raw'],
    ] as const) {
      const byPath = () => prepare(daemon, { exportId: 'path', path, format });
      await refused(t, host, 'DiskInUse', byPath, /vm runs and writes to.*snapshot/);
    }
    const frozenLayer = await prepare(daemon, {
      exportId: 'path',
      path: `${IMAGES}/vda.s1`,
      format: 'qcow2',
    });
    t.equal(await sha256OfExport(host, frozenLayer.uri), second[0], 'a frozen layer by its path');
    await tearDown('path');
  },
);

t.test('listDisks of the running VM: chains, what can be tracked, checkpoints, bitmaps', async (t) => {
  const two = {
    spec: ['--diskspec', 'vda,checkpoint=bitmap', '--diskspec', 'vdb,checkpoint=no', '--diskspec'],
  };
  await host.virsh('checkpoint-create-as', 'vm', 'monday', ...two.spec, 'sda,checkpoint=no');
  await host.virsh('checkpoint-create-as', 'vm', 'tuesday', ...two.spec, 'sda,checkpoint=bitmap');
  const { disks } = await verb(daemon, 'listDisks', { vmId: 'vm' });
  const qcow2 = (name: string) => ({ path: `${IMAGES}/${name}`, format: 'qcow2' });
  t.match(disks, [
    {
      ...{
        target: 'vda',
        alias: 'virtio-disk0',
        bus: 'virtio',
        serial: 'system',
        format: 'qcow2',
        capacity: SIZE,
      },
      ...{ readonly: false, trackable: true, reason: null },
    },
    { target: 'vdb', format: 'qcow2', serial: null, trackable: true, checkpoints: [] },
    { target: 'sda', bus: 'scsi', alias: /^scsi0-0-/, checkpoints: [{ checkpoint: 'tuesday' }] },
  ]);
  t.strictSame(disks[0]?.chain, [qcow2('vda.s2'), qcow2('vda.s1'), qcow2('a.qcow2')]);
  t.strictSame(disks[1]?.chain, [
    qcow2('vdb.s2'),
    qcow2('vdb.s1'),
    { path: `${IMAGES}/b.raw`, format: 'raw' },
  ]);
  t.strictSame(disks[0]?.checkpoints.map(({ checkpoint }) => checkpoint).sort(), ['monday', 'tuesday']);
  // A bitmap of a layer that QEMU writes to reaches the file when QEMU closes it.
  t.ok(
    disks[0]?.bitmaps.every(({ usable, reason }) => !usable && /in use by vm/.test(reason?.message ?? '')),
  );
});

t.test('what a merge has taken away, or is taking away, is no longer exported', async (t) => {
  const slow = ['--active', '--base', `${IMAGES}/a.qcow2`, '--bandwidth', '1', '--bytes'];
  await host.virsh('blockcommit', 'vm', 'vda', ...slow);
  const busy = await refused(
    t,
    host,
    'SnapshotInUse',
    of('merging', 'vda', 's1'),
    /block job runs on vda.*try again/,
    {
      disk: 'vda',
    },
  );
  t.equal(busy.data.retryable, true);
  t.equal((await of('other', 'sda', 's1')()).drive.capacity, SIZE, 'the other disks are free');
  await tearDown('other');
  await host.virsh('blockjob', 'vm', 'vda', '--abort');
  await host.virsh(
    'blockcommit',
    'vm',
    'vda',
    '--active',
    '--base',
    `${IMAGES}/a.qcow2`,
    '--wait',
    '--pivot',
  );
  for (const merged of ['s1', 's2']) {
    const told = /What the snapshot "s\d" froze .* is no longer below vda of vm.*Take a new snapshot/;
    await refused(t, host, 'NoSuchSnapshot', of('merged', 'vda', merged), told, { disk: 'vda' });
  }
  const partial = [
    '--diskspec',
    'vda,snapshot=external',
    '--diskspec',
    'vdb,snapshot=no',
    '--diskspec',
    'sda,snapshot=no',
  ];
  await host.virsh('snapshot-create-as', 'vm', 's3', '--disk-only', ...partial);
  await refused(
    t,
    host,
    'NoSuchSnapshot',
    of('part', 'vdb', 's3'),
    /holds no external snapshot of vdb \(no\)/,
  );
  t.equal((await of('part', 'vda', 's3')()).drive.capacity, SIZE);
  await tearDown('part');
});

t.test('the same VM shut off: its snapshots, its disks and their bitmaps', async (t) => {
  const frozen = await vm.sha256('/dev/vdb');
  await vm.sh('sync');
  const now = await vm.sha256('/dev/sda');
  await vm.destroy();
  const [older, current] = await Promise.all([of('older', 'sda', 's1')(), of('current', 'sda')()]);
  t.match([older.blocksStart, current.blocksStart], [false, true]);
  t.equal(await sha256OfExport(host, current.uri), now);
  t.equal(await sha256OfExport(host, older.uri), await sha256OfImage(host, `${IMAGES}/c.qcow2`, 'qcow2'));
  const raw = await of('raw', 'vdb')();
  t.equal(await sha256OfExport(host, raw.uri), frozen);

  const { disks } = await verb(daemon, 'listDisks', { vmId: 'vm' });
  t.match(disks, [
    { target: 'vda', alias: null },
    { target: 'vdb', alias: null, bitmaps: [] },
    {
      target: 'sda',
      alias: null,
      bitmaps: [{ name: 'tuesday', granularity: 65536, usable: true, reason: null }],
    },
  ]);
  const bitmap = { path: `${IMAGES}/sda.s2`, format: 'qcow2', since: { bitmap: 'tuesday' } } as const;
  const since = await prepare(daemon, { exportId: 'since', ...bitmap });
  t.match(since.cbt, { mode: 'incremental', origin: 'bitmap', changedBytes: 0 }, 'nothing was written since');

  await t.rejects(host.virsh('start', 'vm', '--paused'), /Failed to get "write" lock/);
  await Promise.all(['current', 'raw', 'since'].map(tearDown));
  await host.virsh('start', 'vm', '--paused');
  t.equal(await sha256OfExport(host, older.uri), await sha256OfImage(host, `${IMAGES}/c.qcow2`, 'qcow2'));
  await tearDown('older');
  await host.virsh('destroy', 'vm');
  t.strictSame(await remains(host), []);

  const plain = await host.createImage({ name: 'plain.raw', format: 'raw', size: MiB });
  const old = await host.createImage({
    name: 'old.qcow2',
    format: 'qcow2',
    size: MiB,
    options: ['compat=0.10'],
  });
  await host.virsh('attach-disk', 'vm', plain, 'vde', '--config', '--subdriver', 'raw');
  await host.virsh('attach-disk', 'vm', old, 'vdf', '--config', '--subdriver', 'qcow2', '--mode', 'readonly');
  const more = (await verb(daemon, 'listDisks', { vmId: 'vm' })).disks.filter(({ target }) =>
    /vd[ef]/.test(target),
  );
  const untracked = {
    trackable: false,
    reason: { name: 'NotTracked', message: /cannot hold dirty bitmaps; convert/ },
  };
  t.match(more, [
    { target: 'vde', format: 'raw', capacity: MiB, readonly: false, ...untracked },
    { target: 'vdf', format: 'qcow2', capacity: MiB, readonly: true, ...untracked },
  ]);
});
