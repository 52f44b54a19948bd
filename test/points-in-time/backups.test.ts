/** Live backups of running VMs through the daemon: real guests, libvirt's pull-mode jobs, libnbd as the reader. Needs root. */
import t from 'tap';
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { defineVm, failureOf, joinBy, MiB, prepare, refused, sha256OfExport, verb } from '../exports/rig.js';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  Copies,
  checkpointsOf,
  jobOf,
  remains,
  type StartParams,
  sha256,
  smallImage,
  startBackup,
  virtio,
} from './rig.js';

t.setTimeout(900_000);

const SIZE = 16 * MiB;
/** What the file system of the scratch files must have free; the machine's may be nearly full. */
const config: DaemonConfig = { limits: { scratchReserve: MiB } };
let host: Host;
let daemon: DaemonHandle;
let web: Guest;
let copies: Copies;
let webUuid = '';

t.before(async () => {
  host = await startHost(t);
  copies = new Copies(host);
  const [vda, sda, vdb] = await Promise.all([
    host.createImage({ name: 'vda.qcow2', format: 'qcow2', size: SIZE }),
    host.createImage({ name: 'sda.qcow2', format: 'qcow2', size: SIZE }),
    host.createImage({ name: 'vdb.raw', format: 'raw', size: SIZE }),
  ]);
  web = await host.startGuest({
    name: 'web',
    agent: true,
    disks: [virtio('vda', vda), { ...virtio('sda', sda), bus: 'scsi' }, virtio('vdb', vdb, 'raw')],
  });
  webUuid = (await host.virsh('domuuid', 'web')).trim();
  for (const disk of ['vda', 'sda', 'vdb']) await web.sh(`write-random /dev/${disk} 1048576 1048576 ${disk}`);
  daemon = await host.startDaemon(config);
});

const start = (params: StartParams) => startBackup(daemon, params);
const stop = (backupId: string, outcome?: 'success' | 'failed', force = false) =>
  verb(daemon, 'stopBackup', { backupId, force, ...(outcome !== undefined && { outcome }) });
const tearDown = (exportId: string, outcome?: 'success' | 'failed') =>
  verb(daemon, 'teardownBackupDisk', { exportId, ...(outcome !== undefined && { outcome }) });
const exportOf = (backupId: string, disk: string) =>
  prepare(daemon, { exportId: `${backupId}-${disk}`, vmId: 'web', disk, backupId });
const allDisks = [{ disk: 'vda' }, { disk: 'sda' }, { disk: 'vdb' }];
/** The number that the guest's writer left in the first sector, as a client of the export reads it. */
const counterIn = async ({ uri }: PrepareBackupDiskResult): Promise<number> =>
  Number(await host.must('nbdsh', ['-u', uri, '-c', 'print(h.pread(512, 0).decode())']));
const last: Record<string, string> = {};

t.test('several disks at one instant, while the guest writes the same counter to both in turn', async (t) => {
  await web.sh(
    'cat >/tmp/writer <<"."\n' +
      'i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); printf %0512d $i >/tmp/n\n' +
      'for d in vda sda; do dd if=/tmp/n of=/dev/$d bs=512 oflag=direct conv=notrunc status=none; done\n' +
      'echo $i >/tmp/i.new; mv /tmp/i.new /tmp/i; done\n.\n' +
      'sh /tmp/writer >/dev/null 2>&1 &',
  );
  const written = async () => Number(await web.sh('cat /tmp/i 2>/dev/null || echo 0'));
  await poll('the writer to write', 60_000, async () => (await written()) > 3);
  const before = await written();
  const made = await start({ backupId: 'one', vmId: 'web', disks: allDisks, checkpoint: 'monday' });
  const after = await written();
  t.match(made, {
    backupId: 'one',
    vmId: webUuid,
    quiesced: true,
    checkpoint: 'monday',
    disks: [
      { disk: 'vda', mode: 'full', tracked: true },
      { disk: 'sda', mode: 'full', tracked: true },
      { disk: 'vdb', mode: 'full', tracked: false },
    ],
  });
  const exports = {
    vda: await exportOf('one', 'vda'),
    sda: await exportOf('one', 'sda'),
    vdb: await exportOf('one', 'vdb'),
  };
  await poll('the writer to go on', 60_000, async () => (await written()) > after + 3);
  const [first, second] = [await counterIn(exports.vda), await counterIn(exports.sda)];
  t.ok(first === second || first === second + 1, `vda holds ${first} and sda ${second}`);
  t.ok(before <= first && first <= after + 1, `between ${before} and ${after}`);
  await poll('the writer to go on', 60_000, async () => (await written()) > after + 6);
  t.equal(await counterIn(exports.vda), first, 'and so it stays');
  t.equal(await counterIn(exports.sda), second);
  await web.sh('touch /tmp/stop');
  for (const [disk, made] of Object.entries(exports)) {
    t.match(made.cbt, { mode: 'full', origin: 'allocation', metaContext: 'base:allocation' });
    last[disk] = await copies.take(t, made, null);
  }
  t.match(await verb(daemon, 'listBackups', { vmId: 'web' }), {
    backups: [{ backupId: 'one', vmId: webUuid, state: 'running', checkpoint: 'monday' }],
  });
  const inUse = await failureOf(stop('one', 'success'));
  t.equal(inUse.data.name, 'ExportInUse');
  for (const disk of ['vda', 'sda', 'vdb']) await tearDown(`one-${disk}`);
  const unsaid = await failureOf(stop('one'));
  t.equal(unsaid.code, -32602, 'an outcome is required');
  t.match(unsaid.message, /outcome.*"monday"/);
  const ended = { backupId: 'one', checkpoint: { id: 'monday', state: 'kept' } };
  t.strictSame(await stop('one', 'success'), ended);
  t.strictSame(await stop('one', 'failed'), ended, 'what the first end decided');
  t.strictSame(await remains(host), []);
});

t.test(
  'what changed since, on each bus; a raw disk full with the reason; data, zeroes and discards',
  async (t) => {
    await web.sh(
      'write-random /dev/vda 4194304 131072 a; zero-range /dev/vda 1048576 65536; discard-range /dev/vda 1310720 131072;' +
        'write-random /dev/sda 8388608 65536 b; discard-range /dev/sda 1048576 1048576;' +
        'write-random /dev/vdb 0 65536 c; sync',
    );
    const since = { checkpoint: 'monday' };
    const disks = ['vda', 'sda', 'vdb'].map((disk) => ({ disk, since, ifUntracked: 'full' as const }));
    const made = await start({ backupId: 'two', vmId: 'web', disks, checkpoint: 'tuesday', quiesce: 'no' });
    t.match(made.disks, [
      { disk: 'vda', mode: 'incremental', since: 'monday', tracked: true },
      { disk: 'sda', mode: 'incremental', since: 'monday', tracked: true },
      { disk: 'vdb', mode: 'full', reason: { name: 'NotTracked' }, tracked: false },
    ]);
    t.equal(made.quiesced, false);
    const frozen = await Promise.all(['vda', 'sda', 'vdb'].map((disk) => web.sha256(`/dev/${disk}`)));
    await web.sh('for d in vda sda vdb; do write-random /dev/$d 0 3145728 later; done; sync');
    for (const [index, disk] of ['vda', 'sda', 'vdb'].entries()) {
      const one = await exportOf('two', disk);
      const copy = await copies.take(t, one, disk === 'vdb' ? null : (last[disk] ?? null));
      t.equal(sha256(copy), frozen[index], `${disk} as the guest saw it at the instant`);
      last[disk] = copy;
      if (disk === 'vdb') t.match(one.cbt, { mode: 'full', reason: { name: 'NotTracked' } });
      else
        t.match(one.cbt, {
          mode: 'incremental',
          since,
          origin: 'bitmap',
          metaContext: 'qemu:dirty-bitmap:monday',
        });
      if (disk !== 'vda') continue;
      t.strictSame(
        joinBy(one.cbt.extents, 'dirty').filter(({ value }) => value),
        [
          { start: 0, length: 65536, value: true },
          { start: 1048576, length: 65536, value: true },
          { start: 1310720, length: 131072, value: true },
          { start: 4194304, length: 131072, value: true },
        ],
        'the counter, the zeroes, the discard and the data, and no more',
      );
      t.ok(
        one.cbt.extents.some(({ start, dirty, zero }) => start === 1310720 && dirty && zero),
        'a discard is both',
      );
      t.equal(one.cbt.changedBytes, 65536 + 65536 + 131072 + 131072);
    }
    t.strictSame(await stop('two', 'success', true), {
      backupId: 'two',
      checkpoint: { id: 'tuesday', state: 'kept' },
    });
    t.strictSame(await remains(host), [], 'force has torn its exports down');
  },
);

t.test('one disk with a job of its own; whoever else wants one is told at once who is busy', async (t) => {
  await web.sh('write-random /dev/vda 6291456 65536 d; sync');
  const state = await web.sha256('/dev/vda');
  const wanted = {
    exportId: 'own',
    vmId: 'web',
    disk: 'vda',
    since: { checkpoint: 'tuesday' },
    checkpoint: 'wednesday',
  };
  const [one, two] = await Promise.all([prepare(daemon, wanted), prepare(daemon, wanted)]);
  t.strictSame(one, two, 'asked twice at the same time, made once');
  t.equal(one.drive.name, 'own');
  await web.sh('write-random /dev/vda 0 1048576 e; sync');
  t.equal(sha256(await copies.take(t, one, last.vda ?? null)), state);
  const began = Date.now();
  await refused(
    t,
    host,
    'BackupBusy',
    () => start({ backupId: 'late', vmId: 'web', disks: allDisks }),
    /the live export "own"/,
  );
  await refused(
    t,
    host,
    'BackupBusy',
    () => prepare(daemon, { exportId: 'late', vmId: 'web', disk: 'sda' }),
    /web has the live export "own".*teardownBackupDisk/,
  );
  t.ok(Date.now() - began < 25_000, 'and not after the 30 s that libvirt would wait');
  t.strictSame(
    (await verb(daemon, 'listBackups', {})).backups,
    [],
    'a job of its own is no backup of the callers',
  );
  t.equal((await failureOf(tearDown('own'))).code, -32602);
  const ended = { exportId: 'own', checkpoint: { id: 'wednesday', state: 'deleted' } };
  t.strictSame(await tearDown('own', 'failed'), ended);
  t.strictSame(await tearDown('own', 'success'), ended);
  t.strictSame(await checkpointsOf(host, 'web'), ['monday', 'tuesday']);
  t.equal((await failureOf(prepare(daemon, wanted))).data.name, 'AlreadyExists', 'the id has ended');
  t.strictSame(await remains(host), []);
});

t.test("another product's job is named, and never ended", async (t) => {
  await start({ backupId: 'three', vmId: 'web', disks: [{ disk: 'vda' }] });
  await stop('three');
  const xml =
    '<domainbackup mode="pull"><server transport="unix" socket="/run/theirs.sock"/><disks>' +
    '<disk name="vda" backup="yes" type="file"><scratch file="/var/lib/libvirt/images/theirs"/></disk>' +
    '<disk name="sda" backup="no"/><disk name="vdb" backup="no"/></disks></domainbackup>';
  await host.must('sh', ['-c', 'cat >/run/theirs.xml; chmod 777 /run'], { input: xml });
  await host.virsh('backup-begin', 'web', '/run/theirs.xml');
  const began = Date.now();
  await refused(
    t,
    host,
    'BackupBusy',
    () => start({ backupId: 'four', vmId: 'web', disks: allDisks, checkpoint: 'thursday' }),
    /web has a backup that another program began/,
    { retryable: true },
  );
  t.ok(Date.now() - began < 25_000);
  t.strictSame(await stop('three'), { backupId: 'three', checkpoint: null });
  t.strictSame(await stop('never-known'), { backupId: 'never-known', checkpoint: null });
  t.match(await jobOf(host, 'web'), /theirs\.sock/, 'it still runs');
  await host.virsh('domjobabort', 'web');
  t.strictSame(await remains(host), []);
});

t.test('the guest is frozen as asked for, and always thawed', async (t) => {
  await web.sh('mkfs.ext4 -q /dev/vdb && mkdir -p /mnt/fs && mount /dev/vdb /mnt/fs');
  for (const quiesce of ['require', 'try', 'no'] as const) {
    const { quiesced } = await start({
      backupId: `q-${quiesce}`,
      vmId: 'web',
      disks: [{ disk: 'vdb' }],
      quiesce,
    });
    t.equal(quiesced, quiesce !== 'no');
    await web.sh(`echo ${quiesce} >/mnt/fs/file; sync`);
    await stop(`q-${quiesce}`);
  }
  await web.sh('umount /mnt/fs');
  t.match(daemon.log(), /"filesystems":1.*guest frozen/);
});

t.test('without a guest agent: require fails with the remedy, try goes on', async (t) => {
  await defineVm(host, {
    name: 'mute',
    disks: [virtio('vda', await smallImage({ host, name: 'mute.qcow2' }))],
  });
  await host.virsh('start', 'mute');
  const wanted = { vmId: 'mute', disks: [{ disk: 'vda' }], checkpoint: 'first' };
  await refused(
    t,
    host,
    'FreezeGuestFSFailed',
    () => start({ backupId: 'm1', ...wanted, quiesce: 'require' }),
    /guest agent of mute .*org\.qemu\.guest_agent\.0/,
    { retryable: false },
  );
  t.strictSame(await remains(host), []);
  t.strictSame(await checkpointsOf(host, 'mute'), [], 'and no checkpoint');
  t.equal((await start({ backupId: 'm1', ...wanted, quiesce: 'try' })).quiesced, false, 'the id is free');
  await stop('m1', 'failed');
});

t.test(
  'the same call again is the same answer; another under the same id, or after its end, is refused',
  async (t) => {
    const wanted = { backupId: 'again', vmId: 'mute', disks: [{ disk: 'vda' }], checkpoint: 'again' };
    const [one, two] = await Promise.all([start(wanted), start(wanted)]);
    t.strictSame(one, two);
    const uuid = (await host.virsh('domuuid', 'mute')).trim();
    t.strictSame(
      await start({ ...wanted, vmId: uuid, quiesce: 'try' }),
      one,
      'defaults and the VM by its UUID',
    );
    await refused(t, host, 'AlreadyExists', () => start({ ...wanted, checkpoint: 'other' }), /other params/);
    const second = { ...wanted, backupId: 'second', vmId: 'web' };
    await refused(
      t,
      host,
      'NoSuchDisk',
      () => prepare(daemon, { exportId: 'x', vmId: 'web', disk: 'nope', backupId: 'again' }),
      /no disk/,
    );
    await refused(
      t,
      host,
      'NoSuchBackup',
      () => prepare(daemon, { exportId: 'x', vmId: 'web', disk: 'vda', backupId: 'again' }),
      /web has no backup "again"/,
    );
    await refused(
      t,
      host,
      'AlreadyExists',
      () => start({ ...second, checkpoint: 'monday' }),
      /checkpoint "monday" already/,
    );
    await stop('again', 'success');
    await refused(t, host, 'AlreadyExists', () => start(wanted), /ended within the last hour/);
    await refused(
      t,
      host,
      'NoSuchBackup',
      () => prepare(daemon, { exportId: 'x', vmId: 'mute', disk: 'vda', backupId: 'again' }),
      /it has ended/,
    );
    await host.virsh('destroy', 'mute');
    await refused(t, host, 'VMNotRunning', () => start({ ...wanted, backupId: 'off' }), /does not run/);
    t.strictSame(await remains(host), []);
  },
);

t.test(
  'one socket for the disks of a backup: one user may connect beside root, and another is refused',
  async (t) => {
    const twice = await failureOf(
      start({ backupId: 'twice', vmId: 'web', disks: [{ disk: 'vda' }, { disk: 'virtio-disk0' }] }),
    );
    t.equal(twice.code, -32602);
    t.match(twice.message, /\/disks\/1\/disk names vda again, which "vda" names already/);
    await start({ backupId: 'users', vmId: 'web', disks: [{ disk: 'vda' }, { disk: 'sda' }] });
    const base = { vmId: 'web', backupId: 'users' };
    const named = (user: string) => ({ type: 'unix' as const, user });
    const one = await prepare(daemon, { exportId: 'u1', disk: 'vda', ...base, transport: named('nobody') });
    const info = (user: string) => host.run('nbdinfo', ['--size', one.uri], { user });
    t.equal((await info('nobody')).stdout.trim(), String(SIZE));
    t.not((await info('daemon')).exitCode, 0);
    const failure = await failureOf(
      prepare(daemon, { exportId: 'u2', disk: 'sda', ...base, transport: named('daemon') }),
    );
    t.equal(failure.code, -32602);
    t.match(failure.message, /another user \(daemon\).*nobody/);
    const two = await prepare(daemon, { exportId: 'u2', disk: 'sda', ...base, transport: named('nobody') });
    await tearDown('u1');
    t.equal(
      (await host.run('nbdinfo', ['--size', two.uri], { user: 'nobody' })).exitCode,
      0,
      'u2 still lets it in',
    );
    await tearDown('u2');
    const both = await Promise.allSettled([
      prepare(daemon, { exportId: 'u3', disk: 'vda', ...base, transport: named('nobody') }),
      prepare(daemon, { exportId: 'u4', disk: 'sda', ...base, transport: named('daemon') }),
    ]);
    t.strictSame(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], 'one of two at once');
    await tearDown('u3');
    await tearDown('u4');
    t.not((await info('nobody')).exitCode, 0, 'with the last export its access ends');
    await stop('users');
  },
);

t.test(
  'a live export is plugged into another VM while the first writes, and never into its own',
  async (t) => {
    const app = await host.startGuest({ name: 'app', scsiController: true });
    const state = await web.sha256('/dev/vda');
    await start({ backupId: 'plug', vmId: 'web', disks: [{ disk: 'vda' }] });
    const { drive } = await exportOf('plug', 'vda');
    await refused(
      t,
      host,
      'HotplugDiskFailed',
      () => verb(daemon, 'hotplugDisk', { vmId: 'web', drive }),
      /wait for itself/,
    );
    const plugged = await verb(daemon, 'hotplugDisk', { vmId: 'app', drive });
    await web.sh('write-random /dev/vda 2097152 4194304 f; sync');
    t.equal(await app.sha256(await app.sh(`disk-by-serial ${plugged.serial}`)), state);
    t.equal((await failureOf(tearDown('plug-vda'))).data.name, 'ExportInUse');
    t.equal((await failureOf(stop('plug'))).data.name, 'ExportInUse');
    await stop('plug', undefined, true);
    t.notMatch(await app.xml(), new RegExp(plugged.serial), 'force takes it out of the VM first');
    await app.destroy();
    t.strictSame(await remains(host), []);
  },
);

t.test('a backup lives through restarts of libvirtd and of the daemon', async (t) => {
  const wanted = {
    backupId: 'lives',
    vmId: 'web',
    disks: [{ disk: 'vda', since: { checkpoint: 'tuesday' } }],
    checkpoint: 'friday',
  };
  const made = await start(wanted);
  const one = await exportOf('lives', 'vda');
  const state = await sha256OfExport(host, one.uri);
  await web.sh('write-random /dev/vda 9437184 1048576 g; sync');
  const lives = async (what: string) => {
    t.equal(await sha256OfExport(host, one.uri), state, `${what}: read`);
    t.strictSame(await start(wanted), made, `${what}: startBackup again`);
    t.strictSame(await exportOf('lives', 'vda'), one, `${what}: prepareBackupDisk again, the same map`);
  };
  await host.killLibvirtd('SIGKILL');
  t.equal(await sha256OfExport(host, one.uri), state, 'without libvirt');
  await host.startLibvirtd();
  await lives('libvirtd killed');
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await daemon.kill(signal);
    t.equal(await sha256OfExport(host, one.uri), state, 'without the daemon');
    daemon = await host.startDaemon(config);
    await lives(`daemon ended by ${signal}`);
  }
  t.strictSame(await stop('lives', 'success', true), {
    backupId: 'lives',
    checkpoint: { id: 'friday', state: 'kept' },
  });
  t.strictSame(await remains(host), []);
});
