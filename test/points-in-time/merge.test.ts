// Snapshots of real guests, merged away: under load, cut short in every way, and with the VM off. Needs root.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type {
  GetChangedBlocksResult,
  JobRow,
  ListJobsResult,
  ListSnapshotsResult,
} from '../../agent/api/generated.js';
import { defineVm } from '../exports/rig.js';
import type { RpcFailure } from '../host/daemon.js';
import { startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { editSnapshots, MergeRig, MiB } from './merge-rig.js';
import { io, point, smallImage, virtio, writeTo } from './rig.js';

t.setTimeout(900_000);

const KiB64 = 1 << 16;
const IMAGES = '/var/lib/libvirt/images';

async function failure(call: Promise<unknown>): Promise<RpcFailure['data'] & { message: string }> {
  try {
    await call;
  } catch (error) {
    const { data, message } = error as RpcFailure;
    return { ...data, message };
  }
  throw new Error('the call succeeded');
}

t.test('live, a middle and then the active layer, while the guest writes', async (t) => {
  const rig = await MergeRig.start(t, 0);
  const { daemon, guest } = rig;
  /** A checkpoint, made as users make it. */
  const checkpoint = async (name: string) => {
    await daemon.call('startBackup', {
      backupId: `for-${name}`,
      vmId: 'web',
      disks: [{ disk: 'vda' }],
      checkpoint: name,
      quiesce: 'no',
    });
    await daemon.call('stopBackup', { backupId: `for-${name}`, outcome: 'success' });
  };
  const mark = (at: number) => guest.sh(`write-random /dev/vda ${at * MiB} ${KiB64} mark${at}`);
  await guest.sh(`write-random /dev/vda 0 ${8 * MiB} base; write-random /dev/sda 0 ${8 * MiB} base`);
  await checkpoint('c1');
  await mark(56);
  const first = await rig.snapshot('s1');
  await mark(57);
  await checkpoint('c2');
  await mark(58);
  await rig.fill('s1', 8, 8);
  const second = await rig.snapshot('s2');
  await mark(59);
  const frozen = await rig.read(await rig.prepare('s2', { snapshotId: 's2' }));
  t.match(
    await failure(rig.delete('s1')),
    { name: 'SnapshotInUse', exportId: 's2' },
    'its layers are being read',
  );
  t.strictSame(await rig.states(), [
    ['s1', 'ready'],
    ['s2', 'ready'],
  ]);
  await rig.tearDown('s2');

  const stop = await rig.load();
  const before = await rig.written();
  const middle = await rig.delete('s1');
  t.match(await rig.done(t, middle), { kind: 'deleteSnapshot', subject: 's1' });
  t.strictSame(await rig.states(), [['s2', 'ready']]);
  t.notOk(first.disks.some(({ active }) => rig.images().includes(active.slice(IMAGES.length + 1))));
  const { snapshots } = await daemon.call<ListSnapshotsResult>('listSnapshots', { vmId: 'web' });
  t.strictSame(
    snapshots[0]?.disks.map(({ frozen }) => frozen),
    [rig.qcow2, rig.raw],
    'what s2 froze lies in the lower files now',
  );
  t.equal(await rig.read(await rig.prepare('s2-again', { snapshotId: 's2' })), frozen, 'and is the same');
  await rig.tearDown('s2-again');
  t.equal(await rig.delete('s1'), middle, 'deleted already: the job that did it');

  const active = await rig.delete('s2');
  const { progress } = await rig.done(t, active);
  t.equal(progress.current, progress.total);
  // How often is for the machine to say: both are over in seconds.
  t.ok((await rig.written()) > before, 'the guest wrote meanwhile');
  t.ok((await stop()) > 0, 'and reads what it wrote');
  t.strictSame(await rig.states(), []);
  t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  t.ok(second.disks.length === 2);

  // Whose bitmaps went through two snapshots and two merges.
  for (const [since, changed, same] of [
    ['c1', [56, 57, 58, 59], [60]],
    ['c2', [58, 59], [56, 57, 60]],
  ] as const) {
    const exportId = `since-${since}`;
    await rig.prepare(exportId, { since: { checkpoint: since } });
    const isDirty = async (at: number) =>
      (
        await daemon.call<GetChangedBlocksResult & { extents: { dirty: boolean }[] }>('getChangedBlocks', {
          exportId,
          offset: at * MiB,
          length: KiB64,
        })
      ).extents.every(({ dirty }) => dirty);
    for (const at of changed) t.equal(await isDirty(at), true, `${at} MiB changed since ${since}`);
    for (const at of same) t.equal(await isDirty(at), false, `${at} MiB did not since ${since}`);
    await rig.tearDown(exportId);
  }
  const inGuest = await rig.disks();
  await guest.shutdown();
  t.strictSame(await rig.onHost(), inGuest);
  await rig.host.must('qemu-img', ['check', '-f', 'qcow2', rig.qcow2]);
  const info = JSON.parse(await rig.host.must('qemu-img', ['info', '--output=json', rig.qcow2]));
  t.strictSame(
    info['format-specific'].data.bitmaps.map(({ name, flags }: { name: string; flags: string[] }) => [
      name,
      flags,
    ]),
    [
      ['c1', ['auto']],
      ['c2', ['auto']],
    ],
    'stored whole, and recording',
  );
});

t.test('cut short, and finished', async (t) => {
  const rig = await MergeRig.start(t, 2 * MiB);
  await rig.guest.sh(`write-random /dev/vda 0 ${16 * MiB} base; write-random /dev/sda 0 ${16 * MiB} base`);

  await t.test('one at a time, progress, cancel', async (t) => {
    await rig.snapshot('s1');
    await rig.fill('one', 10, 4);
    const stop = await rig.load();
    const jobId = await rig.delete('s1');
    t.equal(await rig.delete('s1'), jobId, 'a retry finds the running job');
    await rig.middle(jobId);
    for (const call of [
      rig.snapshot('s2'),
      rig.daemon.call('startBackup', { backupId: 'b', vmId: 'web', disks: [{ disk: 'vda' }] }),
    ]) {
      const began = Date.now();
      t.match(await failure(call), {
        name: 'BackupBusy',
        message: new RegExp(`deleteSnapshot "s1" .*${jobId}`),
      });
      t.ok(Date.now() - began < 5000, 'not after libvirt’s 30 s');
    }
    t.match(await failure(rig.prepare('e', { snapshotId: 's1' })), { name: 'SnapshotInUse' });
    const cancelled = await rig.daemon.call<JobRow>('cancelJob', { jobId });
    t.match(cancelled, { jobId, state: 'cancelled' });
    t.strictSame(await rig.daemon.call('cancelJob', { jobId }), cancelled, 'again is success');
    t.strictSame(await rig.states(), [['s1', 'merging']]);
    t.match(await failure(rig.prepare('e', { snapshotId: 's1' })), {
      name: 'SnapshotInUse',
      retryable: false,
    });
    t.match(await failure(rig.snapshot('s1')), { name: 'AlreadyExists' });

    const again = await rig.delete('s1');
    t.not(again, jobId);
    await rig.middle(again);

    // kill -9 of the daemon: the merge goes on in QEMU, and the job with the next daemon.
    await rig.daemon.kill('SIGKILL');
    await rig.startDaemon();
    t.match(await rig.job(again), { state: 'running' });
    t.equal(await rig.delete('s1'), again);
    await rig.middle(again);
    const before = await rig.written();
    await rig.done(t, again);
    t.ok((await rig.written()) > before);
    t.ok((await stop()) > 0);
    t.strictSame(await rig.states(), []);
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  });

  await t.test('a daemon that is stopped lets the merge go on', async (t) => {
    await rig.snapshot('calm');
    await rig.fill('calm', 8, 1);
    const jobId = await rig.delete('calm');
    await rig.middle(jobId);
    await rig.daemon.kill('SIGTERM');
    t.match(await rig.host.virsh('blockjob', 'web', 'vda', '--raw'), /Active Block Commit/);
    await rig.startDaemon();
    await rig.done(t, jobId);
  });

  await t.test('QEMU is killed; finished while the VM is off', async (t) => {
    await rig.snapshot('s3');
    await rig.fill('three', 10, 4);
    const before = await rig.disks();
    const jobId = await rig.delete('s3');
    await rig.middle(jobId);
    const qemu = (await rig.host.processes()).find(({ comm }) => comm.startsWith('qemu-system'));
    await rig.host.must('kill', ['-9', `${qemu?.pid}`]);
    // libvirt may be asking QEMU something in that moment, and say of that how it failed.
    t.match(await rig.ended(jobId), {
      state: 'failed',
      error: { name: 'MergeFailed', message: /call deleteSnapshot again|Unable to read from monitor/ },
    });
    t.strictSame(await rig.states(), [['s3', 'merging']]);
    await rig.done(t, await rig.delete('s3'));
    t.strictSame(await rig.states(), []);
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
    t.strictSame(await rig.onHost(), before);
    await rig.guest.start();
    t.strictSame(await rig.disks(), before);
  });

  await t.test('the VM stops when one disk is done and the other is not', async (t) => {
    await rig.snapshot('s4');
    await rig.fill('four', 1, 8);
    const before = await rig.disks();
    const jobId = await rig.delete('s4');
    await poll(
      'the first disk to be done',
      60_000,
      async () =>
        (await rig.guest.xml()).includes(`file='${rig.qcow2}'`) &&
        !/vda[\s\S]*mirror[\s\S]*sda/.test(await rig.guest.xml()) &&
        (await rig.guest.xml()).includes('mirror'),
    );
    await rig.guest.destroy();
    t.match(await rig.ended(jobId), { state: 'failed', error: { name: 'MergeFailed' } });
    await rig.done(t, await rig.delete('s4'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
    t.strictSame(await rig.onHost(), before);
    t.strictSame(await rig.states(), []);
  });

  await t.test('all of it while the VM is off, a lower layer first', async (t) => {
    await rig.guest.start();
    await rig.snapshot('s5');
    await rig.fill('five', 2, 2);
    await rig.snapshot('s6');
    await rig.fill('six', 1, 1);
    const before = await rig.disks();
    await rig.guest.shutdown();
    await rig.done(t, await rig.delete('s5'));
    t.strictSame(await rig.states(), [['s6', 'ready']]);
    await rig.done(t, await rig.delete('s6'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
    t.strictSame(await rig.onHost(), before);
    await rig.guest.start();
    t.strictSame(await rig.disks(), before);
  });

  await t.test('what is gone, and what never was', async (t) => {
    for (const params of [
      { vmId: 'web', snapshotId: 's1' },
      { vmId: 'web', snapshotId: 'never' },
      { vmId: 'nobody', snapshotId: 'never' },
    ]) {
      const { jobId } = await rig.daemon.call<{ jobId: string }>('deleteSnapshot', params);
      t.match(await rig.job(jobId), { state: 'done' });
      t.strictSame(await rig.daemon.call('deleteSnapshot', params), { jobId });
    }
    const { jobs } = await rig.daemon.call<ListJobsResult>('listJobs', { vmId: 'web' });
    t.ok(jobs.length >= 8 && jobs.every(({ ended }) => ended !== null));
    t.strictSame(await rig.host.leftovers(), []);
  });
});

t.test('a snapshot that another program made', async (t) => {
  const rig = await MergeRig.start(t, 0);
  await rig.host.virsh('snapshot-create-as', 'web', 'theirs', '--disk-only');
  await rig.fill('theirs', 1, 1);
  const before = await rig.disks();
  await rig.done(t, await rig.delete('theirs'));
  t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  await rig.guest.shutdown();
  t.strictSame(await rig.onHost(), before);
});

t.test('an overlay that is not in its chain is neither merged nor removed', async (t) => {
  const host = await startHost(t);
  const [vda, vdb] = [
    await smallImage({ host, name: 'a.qcow2' }),
    await smallImage({ host, name: 'b.qcow2' }),
  ];
  await defineVm(host, { name: 'web', disks: [virtio('vda', vda), virtio('vdb', vdb)] });
  const start = () => host.virsh('start', '--paused', 'web');
  await start();
  const rig = MergeRig.around(host, await host.startDaemon({ limits: { mergeBytesPerSecond: MiB / 4 } }));
  const { disks } = await rig.snapshot('s');
  const overlay = disks.find(({ disk }) => disk === 'vdb')?.active ?? '';
  const write = (at: number) => writeTo(host, 'web', `virtio-disk${at}`, 'write -P 7 1M 4M');
  await Promise.all([write(0), write(1)]);
  const untouched = async (t: Test, told: RegExp, disk: string) => {
    t.match(await failure(rig.delete('s')), { name: 'MergeFailed', disk, message: told });
    t.equal(rig.images().length, 4, 'no file is gone');
  };

  await host.virsh('destroy', 'web');
  await point(host, 'web', overlay, vdb);
  await untouched(t, /b\.qcow2\.vmdiskd-.* vdb of web .*virsh edit web/, 'vdb');
  t.strictSame(await rig.states(), [['s', 'ready']], 'it can still be exported');
  await start();
  await untouched(t, /vdb of web/, 'vdb');
  await host.virsh('destroy', 'web');
  await point(host, 'web', vdb, overlay);

  await start();
  const cancelled = await rig.delete('s');
  await rig.middle(cancelled);
  // It was about to pivot, which QEMU was not ready for: that is over with the cancel.
  await rig.daemon.kill('SIGKILL');
  editSnapshots(host, (record) => ({
    ...record,
    disks: record.disks.map((disk) => ({ ...disk, goingOver: disk.target === 'vda' })),
  }));
  await rig.startDaemon();
  t.match(await rig.daemon.call('cancelJob', { jobId: cancelled }), { state: 'cancelled' });
  await host.virsh('destroy', 'web');
  await host.virsh('detach-disk', 'web', 'vdb', '--config');
  await untouched(t, /vdb of web/, 'vdb');
  await host.virsh('attach-disk', 'web', overlay, 'vdb', '--config', '--subdriver', 'qcow2');
  await rig.done(t, await rig.delete('s'));
  t.strictSame(rig.images(), ['a.qcow2', 'b.qcow2']);
  for (const image of [vda, vdb]) {
    t.notMatch(await io(host, image, 'read -P 7 1M 4M'), /verification failed/, `${image} has the writes`);
  }

  /** Somebody writes to an image of the VM that is off, which the merge waits for, until he is let go. */
  const heldOff = async (): Promise<{ jobId: string; letGo: () => Promise<unknown> }> => {
    const script =
      'exec 3>>"$0"; touch /run/held; while [ ! -e /run/go ]; do sleep 0.01; done; rm /run/held /run/go';
    const writer = host.must('sh', ['-c', script, vda]);
    await poll('it to be held', 10_000, () => existsSync(host.path('/run/held')));
    const jobId = await rig.delete('off');
    await sleep(1000);
    const letGo = () => {
      writeFileSync(host.path('/run/go'), '');
      return writer;
    };
    return { jobId, letGo };
  };

  await t.test('cancelled in the moment before libvirt merges a VM that is off', async (t) => {
    await rig.snapshot('off');
    const { jobId, letGo } = await heldOff();
    const cancelled = rig.daemon.call<JobRow>('cancelJob', { jobId });
    await letGo();
    t.match(await cancelled, { jobId, state: 'cancelled' });
    t.strictSame(await rig.states(), [['off', 'merging']]);
  });

  await t.test('records that cannot be written: no job is left running', async (t) => {
    const state = (kind: string) => host.path(`/var/lib/vmdiskd/${kind}`);
    const withoutRecords = async (kind: string, work: () => Promise<unknown>) => {
      renameSync(state(kind), `${state(kind)}.away`);
      await work().finally(() => renameSync(`${state(kind)}.away`, state(kind)));
    };
    await withoutRecords('snapshots', async () => {
      t.match(await failure(rig.delete('off')), { name: 'LimitReached' }, 'it cannot begin');
    });
    const { jobs } = await rig.daemon.call<ListJobsResult>('listJobs', { vmId: 'web' });
    t.notOk(jobs.some((job) => job.state === 'running'));

    const { jobId, letGo } = await heldOff();
    await withoutRecords('jobs', async () => {
      t.match(
        await rig.daemon.call('cancelJob', { jobId }),
        { state: 'running' },
        'its end cannot be written',
      );
    });
    await letGo();
    t.match(await rig.ended(jobId), { state: 'failed', error: { message: /call deleteSnapshot again/ } });
    await rig.done(t, await rig.delete('off'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.qcow2']);
  });
});

t.test('files that disks of other VMs depend on', async (t) => {
  const host = await startHost(t);
  const image = await smallImage({ host, name: 'a.qcow2' });
  await defineVm(host, { name: 'web', disks: [virtio('vda', image)] });
  await host.virsh('start', '--paused', 'web');
  const rig = MergeRig.around(host, await host.startDaemon());
  const overlay = (await rig.snapshot('s')).disks[0]?.active ?? '';
  /** A VM that is off, with an image whose header says that. */
  const above = async (name: string, backing: string) => {
    const path = `${IMAGES}/${name}.qcow2`;
    const create = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', backing, path, '8M'];
    await host.must('qemu-img', create);
    await defineVm(host, { name, disks: [virtio('vda', path)] });
  };

  const refusedFor = async (name: string) => {
    const told = new RegExp(`vda of ${name} has .*a\\.qcow2 in its backing chain.*vda of web`);
    t.match(await failure(rig.delete('s')), { name: 'SnapshotInUse', message: told });
    t.strictSame(await rig.states(), [['s', 'ready']]);
  };

  await above('clone', image);
  await refusedFor('clone');
  await host.virsh('undefine', 'clone');
  const file = { driver: 'file', filename: overlay };
  await above('odd', `json:${JSON.stringify({ driver: 'qcow2', file })}`);
  await refusedFor('odd');

  // What it names now nobody can tell.
  const odd = host.path(`${IMAGES}/odd.qcow2`);
  const content = readFileSync(odd, 'latin1');
  writeFileSync(odd, content.replace('json:{', 'json:<'), 'latin1');
  await rig.done(t, await rig.delete('s'));
  t.ok(rig.images().includes(basename(overlay)), 'merged, and left for the one that may need it');
  t.match(rig.daemon.log(), /left a merged overlay alone: a VM's chain that cannot be read/);
});

t.test('a snapshot that is taken back is not read meanwhile, and waits for those who read it', async (t) => {
  const host = await startHost(t);
  const image = await smallImage({ host, name: 'a.qcow2' });
  await defineVm(host, { name: 'web', disks: [virtio('vda', image)] });
  await host.virsh('start', '--paused', 'web');
  const rig = MergeRig.around(host, await host.startDaemon());
  await rig.snapshot('s');
  const frozen = await rig.read(await rig.prepare('reader', { snapshotId: 's' }));
  await writeTo(host, 'web', 'virtio-disk0', 'write -P 7 1M 1M');
  await rig.daemon.kill('SIGKILL');
  editSnapshots(host, (record) => ({ ...record, state: 'making' }));
  await rig.startDaemon();
  await poll('it to be tried', 60_000, () => /export \\?"reader\\?" reads an image/.test(rig.daemon.log()));
  t.equal(rig.images().length, 2);
  t.match(await failure(rig.prepare('late', { snapshotId: 's' })), {
    name: 'SnapshotInUse',
    retryable: true,
    message: /is being made or taken back/,
  });
  const uri = 'nbd+unix:///reader?socket=/run/vmdiskd/exports/reader/nbd.sock';
  t.equal((await host.must('sh', ['-c', 'nbdcopy "$0" - | sha256sum', uri])).slice(0, 64), frozen);
  await rig.tearDown('reader');
  // The file goes before the record that explains it.
  await poll('it to be taken back', 60_000, async () => (await rig.states()).length === 0);
  t.equal(rig.images().length, 1);
});
