// Snapshots of real guests, merged away: under load, cut short in every way, and with the VM off. Needs root.
import { readdirSync } from 'node:fs';
import t, { type Test } from 'tap';
import type {
  CreateSnapshotResult,
  GetChangedBlocksResult,
  JobRow,
  ListJobsResult,
  ListSnapshotsResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import type { DaemonHandle, RpcFailure } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';

t.setTimeout(900_000);

const MiB = 1 << 20;
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

/** A guest with a qcow2 disk on virtio and a raw one on SCSI, and the daemon. */
class Rig {
  daemon!: DaemonHandle;
  guest!: Guest;
  qcow2 = '';
  raw = '';

  private constructor(
    readonly host: Host,
    readonly mergeBytesPerSecond: number,
  ) {}

  static async start(t: Test, mergeBytesPerSecond: number): Promise<Rig> {
    const rig = new Rig(await startHost(t), mergeBytesPerSecond);
    rig.qcow2 = await rig.host.createImage({ name: 'a.qcow2', format: 'qcow2', size: 64 * MiB });
    rig.raw = await rig.host.createImage({ name: 'b.raw', format: 'raw', size: 32 * MiB });
    rig.guest = await rig.host.startGuest({
      name: 'web',
      disks: [
        { target: 'vda', path: rig.qcow2, format: 'qcow2' },
        { target: 'sda', bus: 'scsi', path: rig.raw, format: 'raw' },
      ],
    });
    await rig.startDaemon();
    return rig;
  }

  async startDaemon(): Promise<void> {
    this.daemon = await this.host.startDaemon({ limits: { mergeBytesPerSecond: this.mergeBytesPerSecond } });
  }

  snapshot(snapshotId: string): Promise<CreateSnapshotResult> {
    return this.daemon.call('createSnapshot', { snapshotId, vmId: 'web', quiesce: 'no' });
  }

  async delete(snapshotId: string): Promise<string> {
    return (await this.daemon.call<{ jobId: string }>('deleteSnapshot', { vmId: 'web', snapshotId })).jobId;
  }

  job(jobId: string): Promise<JobRow> {
    return this.daemon.call('getJob', { jobId });
  }

  async ended(jobId: string): Promise<JobRow> {
    await poll('the job to end', 240_000, async () => (await this.job(jobId)).state !== 'running', 200);
    return this.job(jobId);
  }

  async done(t: Test, jobId: string): Promise<JobRow> {
    const row = await this.ended(jobId);
    t.strictSame([row.state, row.error], ['done', undefined]);
    return row;
  }

  /** Returns once that merge is in the middle. */
  async middle(jobId: string): Promise<void> {
    await poll('the middle of the merge', 60_000, async () => {
      const { state, progress } = await this.job(jobId);
      if (state !== 'running') throw new Error(`the job is ${state} already`);
      return progress.current > 0 && progress.current < progress.total;
    });
  }

  async states(): Promise<[string, string][]> {
    const { snapshots } = await this.daemon.call<ListSnapshotsResult>('listSnapshots', { vmId: 'web' });
    return snapshots.map(({ snapshotId, state }) => [snapshotId, state]);
  }

  images(): string[] {
    return readdirSync(this.host.path(IMAGES)).sort();
  }

  prepare(exportId: string, more: object): Promise<PrepareBackupDiskResult> {
    return this.daemon.call('prepareBackupDisk', { exportId, vmId: 'web', disk: 'vda', ...more });
  }

  tearDown(exportId: string): Promise<unknown> {
    return this.daemon.call('teardownBackupDisk', { exportId });
  }

  /** SHA-256 of what an export shows. */
  async read({ exportId, uri }: PrepareBackupDiskResult): Promise<string> {
    const to = `${this.host.dir}/read-${exportId}`;
    await this.host.must('nbdcopy', [uri, to]);
    return (await this.host.must('sha256sum', [to])).slice(0, 64);
  }

  /** SHA-256 of both disks as the guest reads them from the disk, not from its cache. */
  async disks(): Promise<string[]> {
    await this.guest.sh('sync; echo 3 >/proc/sys/vm/drop_caches');
    return [await this.guest.sha256('/dev/vda'), await this.guest.sha256('/dev/sda')];
  }

  /** And of the images on the host, of a VM that is off. */
  async onHost(): Promise<string[]> {
    const sums = [];
    for (const [path, format] of [
      [this.qcow2, 'qcow2'],
      [this.raw, 'raw'],
    ]) {
      const to = `${this.host.dir}/converted`;
      await this.host.must('qemu-img', ['convert', '-f', `${format}`, '-O', 'raw', `${path}`, to]);
      sums.push((await this.host.must('sha256sum', [to])).slice(0, 64));
    }
    return sums;
  }

  /** Fills so many MiB of both disks' overlays. */
  async fill(seed: string, vda: number, sda: number): Promise<void> {
    await this.guest.sh(
      `write-random /dev/vda ${24 * MiB} ${vda * MiB} ${seed}; write-random /dev/sda ${12 * MiB} ${sda * MiB} ${seed}`,
    );
  }

  /** Writes to both disks, and the same to files in memory, until it is told to stop; returns how often. */
  async load(): Promise<() => Promise<number>> {
    await this.guest.sh(
      'dd if=/dev/vda of=/tmp/vda bs=64k count=128 status=none; dd if=/dev/sda of=/tmp/sda bs=64k count=128 status=none; rm -f /tmp/stop',
    );
    const writer = this.guest.sh(
      'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); o=$((n*37%128)); ' +
        'dd if=/dev/urandom of=/tmp/block bs=64k count=1 status=none; for d in vda sda; do ' +
        'dd if=/tmp/block of=/dev/$d bs=64k seek=$o conv=notrunc,fsync status=none; ' +
        'dd if=/tmp/block of=/tmp/$d bs=64k seek=$o conv=notrunc status=none; done; done; echo $n',
      { timeoutMs: 600_000 },
    );
    writer.catch(() => {}); // a guest that goes away is noticed where the writer is stopped
    return async () => {
      await this.guest.sh('touch /tmp/stop');
      const writes = Number(await writer);
      await this.guest.sh('sync; echo 3 >/proc/sys/vm/drop_caches');
      for (const disk of ['vda', 'sda'])
        await this.guest.sh(`head -c 8388608 /dev/${disk} | cmp - /tmp/${disk}`);
      return writes;
    };
  }
}

t.test('live, a middle and then the active layer, while the guest writes', async (t) => {
  const rig = await Rig.start(t, 0);
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
  t.ok((await stop()) > 5, 'the guest wrote all the while, and reads what it wrote');
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
  const rig = await Rig.start(t, 2 * MiB);
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
    await rig.done(t, again);
    t.ok((await stop()) > 5);
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
    t.match(await rig.ended(jobId), {
      state: 'failed',
      error: { name: 'MergeFailed', message: /call deleteSnapshot again/ },
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
  const rig = await Rig.start(t, 0);
  await rig.host.virsh('snapshot-create-as', 'web', 'theirs', '--disk-only');
  await rig.fill('theirs', 1, 1);
  const before = await rig.disks();
  await rig.done(t, await rig.delete('theirs'));
  t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  await rig.guest.shutdown();
  t.strictSame(await rig.onHost(), before);
});
