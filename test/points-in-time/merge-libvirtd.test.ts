// libvirtd goes away in the middle of a merge, comes back, and may have lost sight of what QEMU did meanwhile. Needs root.
import { readFileSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { JobRow } from '../../agent/api/generated.js';
import { type Monitor, withMonitor } from '../host/monitor.js';
import { poll } from '../host/poll.js';
import { MergeRig, MiB } from './merge-rig.js';

t.setTimeout(900_000);

/** Bytes per second: so slow that no merge ends before its libvirtd is killed, however busy the machine. */
const SLOW = 256 * 1024;
const STATUS = '/run/libvirt/qemu/web.xml';

/** Snapshots, fills and begins to merge, until libvirtd is killed under it. */
async function interrupted(
  rig: MergeRig,
  snapshotId: string,
  { below = false, signal = 'SIGKILL' }: { below?: boolean; signal?: NodeJS.Signals } = {},
): Promise<string> {
  await rig.snapshot(snapshotId);
  // One disk's overlay alone has data: the other's merge is over as soon as it has begun.
  await rig.fill(snapshotId, 6, 0);
  if (below) await rig.snapshot('above');
  const jobId = await rig.delete(snapshotId);
  await rig.middle(jobId);
  await rig.host.killLibvirtd(signal);
  return jobId;
}

/** Speaks to the running VM's QEMU, while libvirtd is away. */
async function qemu(rig: MergeRig, work: (monitor: Monitor) => Promise<void>): Promise<void> {
  const id = Number(/<domain type='qemu' id='(\d+)'/.exec(readFileSync(rig.host.path(STATUS), 'utf8'))?.[1]);
  await withMonitor(rig.host, { id, name: 'web' }, work);
}

/** QEMU goes over to the base and forgets the job, as when libvirtd dies before it has written that down. */
async function goOverUnseen(rig: MergeRig): Promise<void> {
  await qemu(rig, async ({ execute, job }) => {
    await execute('job-complete', { id: (await job('ready')).id });
    await execute('job-dismiss', { id: (await job('concluded')).id });
  });
}

async function failed(t: Test, rig: MergeRig, jobId: string, message: RegExp): Promise<JobRow> {
  const row = await rig.ended(jobId);
  t.match(row, { state: 'failed', error: { name: 'MergeFailed', message } });
  t.strictSame(await rig.states(), [[row.subject, 'merging']]);
  return row;
}

/** Does what the messages say: the disk's source is the base. */
async function editSource(rig: MergeRig): Promise<void> {
  const xml = await rig.host.virsh('dumpxml', '--inactive', 'web');
  const file = `${rig.host.dir}/edited.xml`;
  const edited = xml
    .replaceAll(/<source file='[^']*a\.qcow2\.vmdiskd-[^']*'\/>\s*<backingStore[\s\S]*?<\/backingStore>/g, '')
    .replace(
      /(<driver name='qemu' type='qcow2'[^>]*>)(?=\s*<target dev='vda')/,
      `$1<source file='${rig.qcow2}'/>`,
    );
  writeFileSync(file, edited);
  await rig.host.virsh('define', file);
}

t.test('libvirtd goes away during a merge', async (t) => {
  const rig = await MergeRig.start(t, SLOW);
  const { host, guest } = rig;
  await guest.sh(`write-random /dev/vda 0 ${16 * MiB} base; write-random /dev/sda 0 ${16 * MiB} base`);

  await t.test('and is back before it is over; again, and QEMU is ready meanwhile', async (t) => {
    const stop = await rig.load(0.5);
    const jobId = await interrupted(rig, 'active');
    t.match(await rig.job(jobId), { state: 'running' }, 'the job waits for it');
    await host.startLibvirtd();
    t.match(await host.virsh('blockjob', 'web', 'vda', '--raw'), /Active Block Commit/);
    await host.killLibvirtd();
    await qemu(rig, async ({ job }) => void (await job('ready')));
    await host.startLibvirtd();
    await rig.done(t, jobId);
    t.ok((await stop()) > 0);
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  });

  await t.test('and QEMU has merged a lower layer meanwhile; the daemon ends, too', async (t) => {
    const jobId = await interrupted(rig, 'below', { below: true, signal: 'SIGTERM' });
    await qemu(rig, async ({ job }) => void (await job('concluded')));
    await rig.daemon.kill('SIGTERM');
    await host.startLibvirtd();
    await rig.startDaemon();
    await rig.done(t, jobId);
    t.strictSame(await rig.states(), [['above', 'ready']]);
    await rig.done(t, await rig.delete('above'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
  });

  await t.test('and the job is cancelled; the next loses its end', async (t) => {
    const cancelled = await interrupted(rig, 'ended');
    t.match(await rig.daemon.call('cancelJob', { jobId: cancelled }), { state: 'cancelled' });
    await host.startLibvirtd();
    const jobId = await rig.delete('ended');
    await rig.middle(jobId);
    await host.killLibvirtd();
    await goOverUnseen(rig);
    await host.startLibvirtd();
    await guest.sh(`write-random /dev/vda ${20 * MiB} ${MiB} after`);
    await failed(t, rig, jobId, /info block.*virsh edit web/);
    const before = await rig.disks();
    await guest.shutdown();
    await failed(t, rig, await rig.delete('ended'), /which file web wrote to last/);
    await editSource(rig);
    await rig.done(t, await rig.delete('ended'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
    t.strictSame(await rig.onHost(), before);
    await guest.start();
  });

  await t.test('and has lost the VM', async (t) => {
    const jobId = await interrupted(rig, 'vm');
    await goOverUnseen(rig);
    // libvirt 9.0 clears the mirror's job, writes the status, and removes the mirror after that.
    const status = readFileSync(host.path(STATUS), 'utf8');
    writeFileSync(host.path(STATUS), status.replace(/(<mirror [^>]*job=')[^']*'/, "$1'"));
    await host.startLibvirtd();
    await guest.sh(`write-random /dev/vda ${21 * MiB} ${MiB} after`);
    t.equal(await guest.running(), false);
    const { error } = await failed(t, rig, jobId, /libvirt says that web is off, but process \d+/);
    const pid = Number(/process (\d+)/.exec(error?.message ?? '')?.[1]);
    t.ok((await host.processes()).some((one) => one.pid === pid && one.comm.startsWith('qemu-system')));
    const before = await rig.disks();
    // Without its libvirtd, QEMU waits when the guest has powered off: -no-shutdown.
    await guest.sh('sync');
    await host.must('kill', [`${pid}`]);
    await poll('QEMU to end', 60_000, async () => (await host.processes()).every((one) => one.pid !== pid));
    await failed(t, rig, await rig.delete('vm'), /which file web wrote to last/);
    await editSource(rig);
    // libvirt has given no owner back, and will not start QEMU on a file that it takes for another VM's: docs/limits.md.
    await host.must('rm', [`${guest.directory}/console.log`]);
    await rig.done(t, await rig.delete('vm'));
    t.strictSame(rig.images(), ['a.qcow2', 'b.raw']);
    t.strictSame(await rig.onHost(), before);
    t.strictSame(await host.leftovers(), []);
  });
});
