// Snapshots of real guests: what is frozen, when, who is thawed, and what is told of it. Needs root.
import { readdirSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type {
  CreateSnapshotResult,
  GetSnapConfigResult,
  ListSnapshotsResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import type { DaemonHandle, RpcFailure } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';

t.setTimeout(900_000);

const MiB = 1 << 20;
const IMAGES = '/var/lib/libvirt/images';

function images(host: Host): string[] {
  return readdirSync(host.path(IMAGES)).sort();
}

async function failure(call: Promise<unknown>): Promise<RpcFailure['data'] & { message: string }> {
  try {
    await call;
  } catch (error) {
    const { data, message } = error as RpcFailure;
    return { ...data, message };
  }
  throw new Error('the call succeeded');
}

/** What an export shows, as a plain file on the host. */
async function read(host: Host, { uri }: PrepareBackupDiskResult, to: string): Promise<string> {
  await host.must('nbdcopy', [uri, to]);
  return (await host.must('sha256sum', [to])).slice(0, 64);
}

t.test('two disks at one instant, exported by several while the guest writes', async (t) => {
  const host = await startHost(t);
  const qcow2 = await host.createImage({ name: 'disk.qcow2', format: 'qcow2', size: 32 * MiB });
  const raw = await host.createImage({ name: 'disk.raw', format: 'raw', size: 16 * MiB });
  const spare = await host.createImage({ name: 'spare.qcow2', format: 'qcow2', size: MiB });
  const fixed = await host.createImage({ name: 'fixed.raw', format: 'raw', size: MiB });
  const guest = await host.startGuest({
    name: 'web',
    agent: true,
    scsiController: true,
    disks: [
      { target: 'vda', path: qcow2, format: 'qcow2', serial: 'first' },
      { target: 'sda', bus: 'scsi', path: raw, format: 'raw', serial: 'second' },
      { target: 'vdb', path: fixed, format: 'raw', readonly: true },
    ],
    devicesXml: `<graphics type='vnc' passwd='Geheim12'><listen type='socket' socket='/run/guests/web/vnc.sock'/></graphics>`,
  });
  const daemon = await host.startDaemon();
  const uuid = (await host.virsh('domuuid', 'web')).trim();

  await guest.sh('write-random /dev/vda 0 8388608 one; write-random /dev/sda 0 4194304 two');
  const before = { vda: await guest.sha256('/dev/vda'), sda: await guest.sha256('/dev/sda') };
  const params = { snapshotId: 'monday', vmId: 'web' };
  const [first, joined] = await Promise.all([
    daemon.call<CreateSnapshotResult>('createSnapshot', params),
    daemon.call<CreateSnapshotResult>('createSnapshot', params),
  ]);
  t.strictSame(joined, first, 'the same call at the same time is one');
  t.match(first, { snapshotId: 'monday', vmId: uuid, quiesced: true });
  t.strictSame(
    first.disks.map(({ disk, frozen }) => [disk, frozen]),
    [
      ['vda', qcow2],
      ['sda', raw],
    ],
    'disks that cannot take part are left out',
  );
  for (const { active } of first.disks) {
    t.match(active, new RegExp(`^${IMAGES}/disk\\.(qcow2|raw)\\.vmdiskd-[0-9a-f]{12}\\.qcow2$`));
    t.equal(statSync(host.path(active)).mode & 0o777, 0o600, 'as libvirt makes them');
  }
  t.strictSame(
    await daemon.call('createSnapshot', { ...params, vmId: uuid, quiesce: 'try' }),
    first,
    'the same call, the VM by UUID and the default said, is the same answer',
  );
  t.match(await failure(daemon.call('createSnapshot', { ...params, disks: ['vda'] })), {
    name: 'AlreadyExists',
  });

  // A counter that goes to one disk and then the other: at one instant they differ by one at most.
  const writer = guest.try(
    'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); for d in /dev/vda /dev/sda; do ' +
      'printf "%08d" $n | dd of=$d bs=8 seek=0 conv=notrunc,fsync status=none; done; echo $n >/tmp/n; done; echo $n',
    { timeoutMs: 300_000 },
  );
  const writtenBeyond = (count: number) =>
    poll(`the guest to count beyond ${count}`, 60_000, async () => {
      return Number((await guest.try('cat /tmp/n')).stdout) > count;
    });
  await writtenBeyond(2);
  const instant = await daemon.call<CreateSnapshotResult>('createSnapshot', {
    snapshotId: 'tuesday',
    vmId: uuid,
    disks: ['second', 'first'],
    quiesce: 'require',
  });
  t.strictSame(
    instant.disks.map(({ disk }) => disk),
    ['sda', 'vda'],
  );
  const counted = Number((await guest.sh('cat /tmp/n')).trim());
  await writtenBeyond(counted + 1);
  const prepare = (exportId: string, disk: string, snapshotId: string) =>
    daemon.call<PrepareBackupDiskResult>('prepareBackupDisk', { exportId, vmId: 'web', disk, snapshotId });
  const exports = await Promise.all([
    prepare('mon-vda', 'vda', 'monday'),
    prepare('mon-sda', 'sda', 'monday'),
    prepare('mon-again', 'vda', 'monday'),
    prepare('tue-vda', 'vda', 'tuesday'),
    prepare('tue-sda', 'sda', 'tuesday'),
  ]);
  const [monVda, monSda, monAgain, tueVda, tueSda] = await Promise.all(
    exports.map((one, at) => read(host, one, `${host.dir}/read-${at}`)),
  );
  t.same([monVda, monSda, monAgain], [before.vda, before.sda, before.vda], 'as it was');
  t.not(tueVda, before.vda);
  t.not(tueSda, before.sda);
  const counter = async (at: number) =>
    Number(await host.must('head', ['-c', '8', `${host.dir}/read-${at}`]));
  const [vda, sda] = [await counter(3), await counter(4)];
  t.ok(vda > 1 && (vda === sda || vda === sda + 1), `one instant: ${vda} and ${sda}`);
  await guest.sh('touch /tmp/stop');
  t.ok(Number((await writer).stdout) > vda, 'the guest went on writing');
  t.equal(
    await read(host, exports[3] as PrepareBackupDiskResult, `${host.dir}/again`),
    tueVda,
    'and it stays',
  );

  await t.test('the VM as it was, after its hardware has changed', async (t) => {
    await host.virsh(
      ...['attach-disk', 'web', spare, 'sdz', '--live', '--config', '--targetbus', 'scsi'],
      ...['--driver', 'qemu', '--subdriver', 'qcow2'],
    );
    const then = await daemon.call<GetSnapConfigResult>('getSnapConfig', {
      vmId: 'web',
      snapshotId: 'monday',
    });
    t.match(await guest.xml(), /sdz/);
    t.notMatch(then.domainXml, /sdz/);
    t.match(then.domainXml, /^<domain type="(qemu)"/);
    t.match(then.domainXml, `<source file="${qcow2}"`);
    t.match(then.domainXml, /passwd="Geheim12"/, 'this caller is admin');
    t.match(then, {
      snapshotId: 'monday',
      created: first.created,
      disks: first.disks,
      nvram: null,
      tpm: null,
    });
    const record = await host.must('sh', ['-c', 'cat /var/lib/vmdiskd/snapshots/*.json']);
    t.match(record, 'monday');
    t.notMatch(record, 'Geheim12', 'our own records hold no password');
    t.notMatch(daemon.log(), 'Geheim12');
    await host.must('sh', ['-c', 'cat > /run/again.xml && virsh define /run/again.xml'], {
      input: then.domainXml,
    });
    await host.virsh('detach-disk', 'web', 'sdz', '--live');
  });

  await t.test('what is not there', async (t) => {
    const create = (more: object) =>
      failure(daemon.call('createSnapshot', { snapshotId: 'never', vmId: 'web', ...more }));
    t.match(await create({ vmId: 'nobody' }), { name: 'NoSuchVM' });
    t.match(await create({ disks: ['vdq'] }), { name: 'NoSuchDisk' });
    t.match(await create({ disks: ['vdb'] }), { name: 'UnsupportedDisk', disk: 'vdb' });
    t.match(
      await create({ disks: ['vda', 'second', 'first'] }),
      {
        name: 'InvalidParams',
        issues: [{ path: '/disks/2', message: 'names vda again, which "vda" names already' }],
      },
      'once by its target and once by its serial',
    );
    t.match(await failure(daemon.call('getSnapConfig', { vmId: 'web', snapshotId: 'never' })), {
      name: 'NoSuchSnapshot',
    });
    t.match(await failure(daemon.call('getJob', { jobId: 'never' })), { name: 'NoSuchJob' });
  });

  await t.test('others’ snapshots are listed and described too', async (t) => {
    await host.virsh('snapshot-create-as', 'web', 'theirs', '--disk-only', '--diskspec', 'vdb,snapshot=no');
    const { snapshots } = await daemon.call<ListSnapshotsResult>('listSnapshots', { vmId: 'web' });
    t.match(snapshots, [
      {
        snapshotId: 'monday',
        parent: null,
        state: 'ready',
        kind: 'external',
        quiesced: true,
        disks: first.disks,
      },
      { snapshotId: 'tuesday', parent: 'monday', state: 'ready', quiesced: true },
      { snapshotId: 'theirs', parent: 'tuesday', state: 'foreign', kind: 'external', quiesced: null },
    ]);
    t.strictSame(
      snapshots[2]?.disks.map(({ frozen }) => frozen).sort(),
      instant.disks.map(({ active }) => active).sort(),
    );
    const config = await daemon.call<GetSnapConfigResult>('getSnapConfig', {
      vmId: 'web',
      snapshotId: 'theirs',
    });
    t.match(config.domainXml, 'fixed.raw');
    t.match(await failure(daemon.call('createSnapshot', { snapshotId: 'theirs', vmId: 'web' })), {
      name: 'AlreadyExists',
    });
  });

  await t.test('busy with a backup', async (t) => {
    await daemon.call('startBackup', { backupId: 'nightly', vmId: 'web', disks: [{ disk: 'vda' }] });
    const began = Date.now();
    const busy = await failure(daemon.call('createSnapshot', { snapshotId: 'late', vmId: 'web' }));
    t.ok(Date.now() - began < 5000, 'at once, not after libvirt’s 30 s');
    t.match(busy, { name: 'BackupBusy', message: /"nightly"/ });
    await daemon.call('stopBackup', { backupId: 'nightly' });
  });

  for (const exportId of ['mon-vda', 'mon-sda', 'mon-again', 'tue-vda', 'tue-sda']) {
    await daemon.call('teardownBackupDisk', { exportId });
  }
  await guest.destroy();
  await host.virsh('undefine', 'web', '--snapshots-metadata', '--checkpoints-metadata');
  const after = await daemon.call<GetSnapConfigResult>('getSnapConfig', { vmId: uuid, snapshotId: 'monday' });
  t.match(after.domainXml, '<name>web</name>', 'also of a VM that is gone');
  t.notMatch(after.domainXml, 'Geheim12');
  t.strictSame(after.disks, first.disks);
});

t.test('the guest agent: asked, absent, hanging; and always thawed', async (t) => {
  const host = await startHost(t);
  const disk = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: 32 * MiB });
  const other = await host.createImage({ name: 'b.qcow2', format: 'qcow2', size: MiB });
  const [web, mute] = await Promise.all([
    host.startGuest({ name: 'web', agent: true, disks: [{ target: 'vda', path: disk, format: 'qcow2' }] }),
    host.startGuest({ name: 'mute', disks: [{ target: 'vda', path: other, format: 'qcow2' }] }),
  ]);
  await web.sh('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt');
  let daemon = await host.startDaemon();
  const create = (snapshotId: string, vmId: string, quiesce: string) =>
    daemon.call<CreateSnapshotResult>('createSnapshot', { snapshotId, vmId, quiesce });
  /** A frozen file system blocks the writer. */
  const writes = (t: Test, what: string, timeoutMs = 10_000) =>
    t.resolves(web.sh('echo x >/mnt/file && sync', { timeoutMs }), what);

  t.equal((await create('yes', 'web', 'require')).quiesced, true);
  await writes(t, 'thawed');
  t.equal((await create('tried', 'web', 'try')).quiesced, true);
  t.equal((await create('no', 'web', 'no')).quiesced, false);

  const left = images(host);
  t.match(await failure(create('no-agent', 'mute', 'require')), {
    name: 'FreezeGuestFSFailed',
    retryable: false,
    message: /org\.qemu\.guest_agent\.0/,
  });
  t.strictSame(images(host), left, 'and no overlay');
  t.equal(
    (await create('no-agent', 'mute', 'try')).quiesced,
    false,
    'the same id can be used after a failure',
  );

  await web.sh('kill -STOP $(pidof qemu-ga)');
  const waitsForAgent = async (
    busy: () => Promise<unknown>,
    other: () => Promise<unknown>,
    holder: string,
  ) => {
    const hung = failure(busy());
    await sleep(1500); // it has to be at work by then, and waits for the agent for much longer
    t.match(await failure(other()), {
      name: 'BackupBusy',
      message: `${holder} is at work on web, and a VM has one such operation at a time; try again when it has ended.`,
    });
    t.match(await hung, { name: 'FreezeGuestFSFailed', retryable: true });
  };
  const hung = () => create('hung', 'web', 'require');
  const own = { exportId: 'own', vmId: 'web', disk: 'vda', quiesce: 'require' };
  const late = { backupId: 'late', vmId: 'web', disks: [{ disk: 'vda' }] };
  await waitsForAgent(hung, () => daemon.call('startBackup', late), 'createSnapshot "hung"');
  await waitsForAgent(() => daemon.call('prepareBackupDisk', own), hung, 'prepareBackupDisk "own"');
  t.equal((await create('hung', 'web', 'try')).quiesced, false);
  await web.sh('kill -CONT $(pidof qemu-ga)');
  await writes(t, 'never frozen');

  // An agent that takes longer for the freeze than it may: its hook runs before the file systems are frozen.
  const slowAgent = async (seconds: number) => {
    await web.sh(
      `printf '#!/bin/sh\\n[ "$1" = freeze ] && sleep ${seconds}\\nexit 0\\n' >/tmp/hook; chmod +x /tmp/hook; ` +
        '[ -e /usr/bin/real-ga ] || mv /usr/bin/qemu-ga /usr/bin/real-ga; ' +
        'printf \'#!/bin/sh\\nexec real-ga --fsfreeze-hook=/tmp/hook --logfile=/tmp/ga.log "$@"\\n\' >/usr/bin/qemu-ga; chmod +x /usr/bin/qemu-ga; ' +
        'kill $(pidof real-ga qemu-ga); sleep 1.5',
    );
    await poll('the agent to be back', 30_000, async () =>
      (await host.virsh('dumpxml', 'web')).includes("state='connected'"),
    );
  };
  await slowAgent(13);
  t.equal((await create('slow', 'web', 'try')).quiesced, false, 'not within its limit');
  await writes(t, 'what froze late is thawed all the same', 60_000);
  await create('late', 'web', 'try');
  await daemon.kill('SIGKILL');
  daemon = await host.startDaemon();
  await writes(t, 'and by the next daemon where the first has died meanwhile', 60_000);
  const thaws = host.path('/var/lib/vmdiskd/thaws');
  await poll('no thaw to be on record', 60_000, async () => readdirSync(thaws).length === 0);

  await t.test('a daemon that dies while the guest is frozen', async (t) => {
    await slowAgent(3);
    const before = images(host);
    const dying = create('crash', 'web', 'require').catch((error: Error) => error.message);
    await sleep(1500);
    await daemon.kill('SIGKILL');
    t.match(await dying, /closed/);
    daemon = await host.startDaemon();
    await writes(t, 'the next start thaws it', 60_000);
    await poll('the rest to be taken back', 60_000, async () => {
      const { snapshots } = await daemon.call<ListSnapshotsResult>('listSnapshots', { vmId: 'web' });
      return snapshots.every(({ snapshotId }) => snapshotId !== 'crash');
    });
    t.strictSame(images(host), before);
    t.equal((await create('crash', 'web', 'try')).quiesced, true, 'and made anew');
  });
  await mute.destroy();
});

t.test('a VM that is off', async (t) => {
  const host = await startHost(t);
  const disk = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: 8 * MiB });
  const guest: Guest = await host.startGuest({
    name: 'web',
    disks: [{ target: 'vda', path: disk, format: 'qcow2' }],
  });
  const daemon: DaemonHandle = await host.startDaemon();
  await guest.sh('write-random /dev/vda 0 1048576 one');
  const before = await guest.sha256('/dev/vda');
  await guest.shutdown();
  const made = await daemon.call<CreateSnapshotResult>('createSnapshot', {
    snapshotId: 'off',
    vmId: 'web',
    quiesce: 'require',
  });
  t.match(made, { quiesced: false, disks: [{ disk: 'vda', frozen: disk }] }, 'there is nothing to freeze');
  await host.virsh('snapshot-create-as', 'web', 'inside');
  t.match((await daemon.call<ListSnapshotsResult>('listSnapshots', { vmId: 'web' })).snapshots, [
    { snapshotId: 'off', kind: 'external' },
    { snapshotId: 'inside', kind: 'internal', state: 'foreign', disks: [] },
  ]);
  t.match(await failure(daemon.call('deleteSnapshot', { vmId: 'web', snapshotId: 'inside' })), {
    name: 'NotOurs',
  });
  await host.virsh('snapshot-delete', 'web', 'inside');

  await guest.start();
  await guest.sh('write-random /dev/vda 0 1048576 two');
  const exported = await daemon.call<PrepareBackupDiskResult>('prepareBackupDisk', {
    exportId: 'e',
    vmId: 'web',
    disk: 'vda',
    snapshotId: 'off',
  });
  t.equal(await read(host, exported, `${host.dir}/read`), before);
  await daemon.call('teardownBackupDisk', { exportId: 'e' });
  await host.must('sh', ['-c', 'cat >/run/c.xml; virsh checkpoint-create web /run/c.xml'], {
    input: '<domaincheckpoint><name>c</name></domaincheckpoint>',
  });
  await guest.shutdown();
  const left = images(host);
  t.match(await failure(daemon.call('createSnapshot', { snapshotId: 'off2', vmId: 'web' })), {
    name: 'SnapshotFailed',
    message: /start it first/,
  });
  t.strictSame(images(host), left);
});
