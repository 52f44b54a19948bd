/** A VM whose snapshots are merged, while its guest writes. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Test } from 'tap';
import type {
  CreateSnapshotResult,
  JobRow,
  ListSnapshotsResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import type { SnapshotRecord } from '../../agent/points-in-time/snapshot-record.js';
import { type DaemonHandle, RpcFailure } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';

export const MiB = 1 << 20;
const IMAGES = '/var/lib/libvirt/images';

/** Changes the records of snapshots, while there is no daemon. */
export function editSnapshots(host: Host, edit: (record: SnapshotRecord) => SnapshotRecord): void {
  const dir = host.path('/var/lib/vmdiskd/snapshots');
  for (const name of readdirSync(dir)) {
    const record: SnapshotRecord = JSON.parse(readFileSync(`${dir}/${name}`, 'utf8'));
    writeFileSync(`${dir}/${name}`, JSON.stringify(edit(record)));
  }
}

/** A guest with a qcow2 disk on virtio and a raw one on SCSI, and the daemon. */
export class MergeRig {
  daemon!: DaemonHandle;
  guest!: Guest;
  qcow2 = '';
  raw = '';

  private constructor(
    readonly host: Host,
    readonly mergeBytesPerSecond: number,
  ) {}

  static async start(t: Test, mergeBytesPerSecond: number): Promise<MergeRig> {
    const rig = new MergeRig(await startHost(t), mergeBytesPerSecond);
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

  /** Around a host whose VM `web` and whose daemon are there already. */
  static around(host: Host, daemon: DaemonHandle): MergeRig {
    const rig = new MergeRig(host, 0);
    rig.daemon = daemon;
    return rig;
  }

  async startDaemon(): Promise<void> {
    this.daemon = await this.host.startDaemon({ limits: { mergeBytesPerSecond: this.mergeBytesPerSecond } });
  }

  snapshot(snapshotId: string): Promise<CreateSnapshotResult> {
    return this.daemon.call('createSnapshot', { snapshotId, vmId: 'web', quiesce: 'no' });
  }

  /** As a client that has patience: libvirtd may be back, and the daemon not know it yet. */
  async delete(snapshotId: string): Promise<string> {
    let jobId = '';
    await poll('the daemon to have libvirt back', 60_000, async () => {
      try {
        const params = { vmId: 'web', snapshotId };
        ({ jobId } = await this.daemon.call<{ jobId: string }>('deleteSnapshot', params));
        return true;
      } catch (error) {
        if (error instanceof RpcFailure && error.data.name === 'LibvirtUnavailable') return false;
        throw error;
      }
    });
    return jobId;
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

  /** How often the load has written to both disks by now. */
  async written(): Promise<number> {
    return Number(await this.guest.sh('cat /tmp/count'));
  }

  /**
   * Writes to both disks, and the same to files in memory, until it is told to stop; returns how often.
   * @param pause seconds after each write: a merge that is slower than the guest does not end
   */
  async load(pause = 0): Promise<() => Promise<number>> {
    await this.guest.sh(
      'dd if=/dev/vda of=/tmp/vda bs=64k count=128 status=none; dd if=/dev/sda of=/tmp/sda bs=64k count=128 status=none; rm -f /tmp/stop; echo 0 >/tmp/count',
    );
    const writer = this.guest.sh(
      'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); o=$((n*37%128)); ' +
        'dd if=/dev/urandom of=/tmp/block bs=64k count=1 status=none; for d in vda sda; do ' +
        'dd if=/tmp/block of=/dev/$d bs=64k seek=$o conv=notrunc,fsync status=none; ' +
        'dd if=/tmp/block of=/tmp/$d bs=64k seek=$o conv=notrunc status=none; done; sleep ' +
        pause +
        '; echo $n >/tmp/count; done; echo $n',
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
