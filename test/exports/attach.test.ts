/** Drives plugged into real guests and out again, through the daemon. Needs root. */
import t from 'tap';
import type { Drive, HotplugDiskParams, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  alteredDrives,
  defineVm,
  failureOf,
  type Given,
  MiB,
  prepare,
  readRecord,
  refused,
  remains,
  sha256In,
  sha256OfImage,
  verb,
} from './rig.js';

t.setTimeout(600_000);

const SIZE = 16 * MiB;
let host: Host;
let daemon: DaemonHandle;
/** Has a virtio-scsi controller, and a disk of its own, vda. */
let app: Guest;
/** Has none, and one free PCI port. */
let small: Guest;
let image = '';
let content = '';

t.before(async () => {
  host = await startHost(t);
  image = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: SIZE });
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 2M', '-c', 'write -P 9 8M 1M', image]);
  content = await sha256OfImage(host, image, 'qcow2');
  const own = await host.createImage({ name: 'own.qcow2', format: 'qcow2', size: MiB });
  [daemon, app, small] = await Promise.all([
    host.startDaemon(),
    host.startGuest({
      name: 'app',
      scsiController: true,
      disks: [{ target: 'vda', path: own, format: 'qcow2' }],
    }),
    host.startGuest({ name: 'small', pciePorts: 1 }),
  ]);
});

const made = (exportId: string): Promise<PrepareBackupDiskResult> =>
  prepare(daemon, { exportId, path: image, format: 'qcow2' });
const plug = (params: Given<HotplugDiskParams>) => verb(daemon, 'hotplugDisk', params);
const unplug = (vmId: string, of: { drive: Drive } | { target: string }, timeoutSeconds = 60) =>
  verb(daemon, 'hotunplugDisk', { vmId, ...of, timeoutSeconds });
const tearDown = (exportId: string, force = false) => verb(daemon, 'teardownBackupDisk', { exportId, force });
const attachedTo = async (exportId: string) =>
  (await verb(daemon, 'getExport', { exportId })).attachedTo.map(({ target }) => target);

/** Whether QEMU's account may connect to the export. */
async function qemuMayConnect({ uri }: PrepareBackupDiskResult): Promise<boolean> {
  const { exitCode, stderr } = await host.run('nbdinfo', ['--size', uri], { user: 'libvirt-qemu' });
  if (exitCode !== 0 && !stderr.includes('Permission denied')) throw new Error(stderr);
  return exitCode === 0;
}

t.test(
  'on virtio-scsi by default where there is a controller, read by its stable name, out again',
  async (t) => {
    const one = await made('scsi');
    t.equal(await qemuMayConnect(one), false, 'not before it is plugged in');
    const plugged = await plug({ vmId: 'app', drive: one.drive });
    t.match(plugged, {
      ...{ target: 'sda', bus: 'scsi', alias: `ua-vmdiskd-${one.drive.serial}`, serial: one.drive.serial },
      ...{ address: { type: 'drive' }, vmId: (await host.virsh('domuuid', 'app')).trim() },
      guestPath: `/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_${one.drive.serial}`,
    });
    t.equal(await qemuMayConnect(one), true);
    t.equal(
      (await host.run('nbdinfo', ['--size', one.uri], { user: 'nobody' })).exitCode,
      1,
      'nobody else gets in',
    );
    t.equal(await sha256In(app, plugged.guestPath), content);
    t.match(await app.try(`dd if=/dev/zero of=${plugged.guestPath} bs=4096 count=1 conv=fsync`), {
      exitCode: 1,
    });
    const xml = await app.xml();
    t.match(xml, /error_policy='report'/);
    t.match(xml, /<source protocol='nbd' name='scsi' tls='no'/);

    t.strictSame(await plug({ vmId: 'app', drive: one.drive }), plugged, 'the same call, the same answer');
    const again = {
      vmId: plugged.vmId,
      drive: one.drive,
      bus: 'scsi',
      target: 'sda',
      persistent: false,
    } as const;
    t.strictSame(await plug(again), plugged, 'with all of it said, too');
    t.strictSame((await verb(daemon, 'getExport', { exportId: 'scsi' })).attachedTo, [
      { vmId: plugged.vmId, target: 'sda' },
    ]);
    const { disks } = await verb(daemon, 'listDisks', { vmId: 'app' });
    t.strictSame(
      disks.map(({ target }) => target),
      ['vda'],
      'a drive of ours is no disk to back up',
    );

    t.strictSame(await unplug('app', { drive: one.drive }), { vmId: plugged.vmId, target: 'sda' });
    t.equal(await qemuMayConnect(one), false, 'nor after');
    t.notMatch(await app.xml(), one.drive.serial);
    t.equal((await app.try(`test -b /dev/sda`)).exitCode, 1);
    t.strictSame(
      await unplug('app', { drive: one.drive }),
      { vmId: plugged.vmId, target: null },
      'gone already',
    );
    t.strictSame(await unplug('app', { target: 'sda' }), { vmId: plugged.vmId, target: null });
    t.strictSame(await attachedTo('scsi'), []);
    await tearDown('scsi');
    t.strictSame(await remains(host), []);
  },
);

t.test('on virtio where asked for, or by a target; calls at the same time are one', async (t) => {
  const one = await made('virtio');
  const other = await daemon.connect();
  const both = await Promise.all([
    plug({ vmId: 'app', drive: one.drive, bus: 'virtio' }),
    verb(other, 'hotplugDisk', { vmId: 'app', drive: one.drive, bus: 'virtio' }),
  ]);
  other.close();
  t.strictSame(both[0], both[1]);
  t.match(both[0], { target: 'vdb', bus: 'virtio', address: { type: 'pci', bus: /^0x/ } });
  t.equal(both[0].guestPath, `/dev/disk/by-id/virtio-${one.drive.serial}`);
  t.equal(await sha256In(app, both[0].guestPath), content);
  const about = { exportId: 'virtio', disk: 'vdb' };
  for (const differing of [{ bus: 'scsi' }, { target: 'vdc' }, { persistent: true }] as const) {
    const again = () => plug({ vmId: 'app', drive: one.drive, ...differing });
    await refused(t, host, 'AlreadyExists', again, /into app as vdb already.*unplug it first/, about);
  }
  t.equal((await unplug('app', { target: 'vdb' })).target, 'vdb', 'by its target');
  const given = await plug({ vmId: 'app', drive: one.drive, target: 'vdq' });
  t.match(given, { target: 'vdq', bus: 'virtio' });
  t.equal(await sha256In(app, given.guestPath), content);
  await unplug('app', { drive: one.drive });
  const scsi = { vmId: 'app', drive: one.drive, bus: 'scsi' } as const;
  await refused(
    t,
    host,
    'HotplugDiskFailed',
    () => plug({ ...scsi, target: 'vdb' }),
    /does not go with.*sd target/,
  );
  await refused(
    ...([
      t,
      host,
      'AlreadyExists',
      () => plug({ ...scsi, bus: 'virtio', target: 'vda' }),
      /leave target out/,
    ] as const),
  );
  t.strictSame(readRecord(host, 'virtio').attachments, [], 'what failed is forgotten');
  await tearDown('virtio');
  t.strictSame(await remains(host), []);
});

t.test('one read-only drive in two VMs; an export in use is torn down by force alone', async (t) => {
  const one = await made('shared');
  const [inApp, inSmall] = await Promise.all([
    plug({ vmId: 'app', drive: one.drive }),
    plug({ vmId: 'small', drive: one.drive }),
  ]);
  t.equal(inSmall.bus, 'virtio', 'the default where there is no virtio-scsi controller');
  const read = await Promise.all([sha256In(app, inApp.guestPath), sha256In(small, inSmall.guestPath)]);
  t.strictSame(read, [content, content]);
  t.strictSame((await attachedTo('shared')).sort(), ['sda', 'vda']);
  await unplug('small', { drive: one.drive });
  t.equal(await qemuMayConnect(one), true, 'the other VM has it still');
  await app.sh('echo 3 >/proc/sys/vm/drop_caches');
  t.equal(await app.sha256(inApp.guestPath), content);
  await plug({ vmId: 'small', drive: one.drive });
  await refused(
    t,
    host,
    'ExportInUse',
    () => tearDown('shared'),
    /plugged into (app|small) as.*hotunplugDisk.*force/,
    {
      exportId: 'shared',
    },
  );
  t.equal(await app.sha256(inApp.guestPath), content, 'and nothing has happened to it');
  t.strictSame(await tearDown('shared', true), { exportId: 'shared', checkpoint: null });
  for (const guest of [app, small]) t.notMatch(await guest.xml(), one.drive.serial);
  t.strictSame(await remains(host), []);
});

t.test('only the very drive that we gave is plugged in, and only what we plugged in comes out', async (t) => {
  const [one, other] = await Promise.all([made('ours'), made('other')]);
  const elsewhere = other.drive.hosts[0];
  if (elsewhere?.transport !== 'unix') throw new Error('a UNIX drive');
  const before = await app.xml();
  for (const { member, drive } of alteredDrives(one.drive, elsewhere.socket)) {
    const failure = await refused(
      ...([
        t,
        host,
        'NotAuthorized',
        () => plug({ vmId: 'app', drive }),
        /differs from.*pass it on as it came/,
      ] as const),
    );
    t.match(failure.data, { exportId: 'ours' }, member);
  }
  const attack = (changes: object) => () =>
    daemon.call('hotplugDisk', { vmId: 'app', drive: { ...one.drive, ...changes } });
  await refused(t, host, 'NotAuthorized', attack({ name: 'other' }), /differs from/);
  await refused(t, host, 'NoSuchExport', attack({ name: 'nobodys' }), /no export "nobodys"/);
  const tcp = [{ transport: 'tcp', name: '192.0.2.1', port: 10809 }];
  await refused(t, host, 'NotAuthorized', attack({ hosts: tcp, tls: true }), /over the network.*UNIX socket/);
  for (const [changes, path] of [
    [{ type: 'file' }, '/drive/type'],
    [{ protocol: 'http' }, '/drive/protocol'],
    [{ format: 'qcow2' }, '/drive/format'],
    [{ device: 'lun' }, '/drive/device'],
    [{ hosts: [...tcp, ...tcp] }, '/drive/hosts'],
    [{ serial: "'/><evil/>" }, '/drive/serial'],
    [{ requires: ['compression'] }, '/drive/requires'],
  ] as const) {
    const failure = await failureOf(attack(changes)());
    t.equal(failure.code, -32602, path);
    t.ok(
      (failure.data.issues as { path: string }[]).some((issue) => issue.path.startsWith(path)),
      path,
    );
  }
  t.equal(await app.xml(), before, 'the VM has not been touched');
  t.equal(await qemuMayConnect(one), false);

  const passed = { ...one.drive, comment: 'a member of a later version', requires: ['serial' as const] };
  const plugged = await plug({ vmId: 'app', drive: passed });
  t.equal(plugged.target, 'sda', 'a member that we do not know, and need not, is ignored');
  await refused(
    t,
    host,
    'NotOurs',
    () => unplug('app', { target: 'vda' }),
    /vda of app was not plugged in by hotplugDisk/,
    {
      disk: 'vda',
    },
  );
  t.equal((await unplug('app', { drive: other.drive })).target, null, 'a drive of ours that is not in there');
  t.equal((await attachedTo('ours')).length, 1);
  await unplug('app', { drive: passed });

  await refused(t, host, 'NoSuchVM', () => plug({ vmId: 'nobody', drive: one.drive }), /virsh list --all/);
  t.strictSame(await unplug('nobody', { drive: one.drive }), { vmId: 'nobody', target: null });
  await defineVm(host, { name: 'off', machine: 'pc' });
  await refused(
    t,
    host,
    'VMNotRunning',
    () => plug({ vmId: 'off', drive: one.drive }),
    /off does not run; start it/,
  );
  t.equal((await unplug('off', { drive: one.drive })).target, null);
  await host.virsh('undefine', 'off');
  await tearDown('other');
  await refused(t, host, 'NoSuchExport', () => plug({ vmId: 'app', drive: other.drive }), /torn down/);
  await tearDown('ours');
  t.strictSame(await remains(host), []);
});

t.test(
  'more drives on scsi than libvirt puts on a controller, and none where there is no controller',
  async (t) => {
    const ids = Array.from({ length: 9 }, (_, i) => `many${i}`);
    const drives = (await Promise.all(ids.map(made))).map(({ drive }) => drive);
    const controllers = (xml: string) => xml.match(/<controller /g)?.length;
    const before = controllers(await app.xml());
    const plugged = await Promise.all(drives.map((drive) => plug({ vmId: 'app', drive })));
    t.strictSame(
      plugged.map(({ target }) => target).sort(),
      [...'abcdefghi'].map((letter) => `sd${letter}`),
    );
    t.equal(
      controllers(await app.xml()),
      before,
      'libvirt has not been made to add controllers, which would stay',
    );
    const last = plugged.at(-1);
    t.equal(await sha256In(app, last?.guestPath ?? ''), content);
    await Promise.all(drives.map((drive) => unplug('app', { drive })));
    const [drive] = drives;
    if (drive === undefined) throw new Error('unreachable');
    const far = await plug({ vmId: 'app', drive, target: 'sdzz' });
    t.equal(await sha256In(app, far.guestPath), content);
    await unplug('app', { target: 'sdzz' });
    t.equal(controllers(await app.xml()), before);

    const bare = await small.xml();
    const told = /small has no virtio-scsi controller.*on virtio/;
    for (const asked of [{ bus: 'scsi' }, { target: 'sda' }] as const) {
      const attempt = () => plug({ vmId: 'small', drive, ...asked });
      await refused(t, host, 'HotplugDiskFailed', attempt, told);
    }
    t.equal(await small.xml(), bare);
    await Promise.all(ids.map((id) => tearDown(id)));
    t.strictSame(await remains(host), []);
  },
);

t.test('no PCI port left, on both machine types; nothing of the attempt stays', async (t) => {
  const [one, two] = await Promise.all([made('last'), made('much')]);
  await plug({ vmId: 'small', drive: one.drive });
  const before = await small.xml();
  const attempt = (vmId: string) => () => plug({ vmId, drive: two.drive, bus: 'virtio' });
  const told = /has no free PCI slot or port.*pcie-root-port/;
  const failure = await refused(t, host, 'NoFreeSlot', attempt('small'), told, { disk: 'vdb' });
  t.match(failure.data, { libvirt: { code: /\d/, message: /\S/ } }, "libvirt's own words");
  t.equal(await small.xml(), before);
  t.equal(await qemuMayConnect(two), false);
  t.strictSame(readRecord(host, 'much').attachments, []);

  // On its one bus slot 0 is the host bridge's and 1 the chipset's; the others hold random number generators.
  const rng = (slot: number) => `<rng model='virtio'><backend model='random'>/dev/urandom</backend>
    <address type='pci' domain='0' bus='0' slot='${slot}' function='0'/></rng>`;
  const slots = Array.from({ length: 29 }, (_, i) => i + 2);
  await defineVm(host, { name: 'full', machine: 'pc', devicesXml: slots.map(rng).join('') });
  await host.virsh('start', 'full', '--paused');
  t.match(await plug({ vmId: 'full', drive: one.drive }), { address: { slot: '0x1f' } }, 'the last one');
  await refused(t, host, 'NoFreeSlot', attempt('full'), told, { disk: 'vdb' });
  await host.virsh('destroy', 'full');
  await unplug('small', { drive: one.drive });
  await plug({ vmId: 'small', drive: two.drive });
  await Promise.all(['last', 'much'].map((id) => tearDown(id, true)));
  t.strictSame(await remains(host), []);
});

t.test('a guest that does not let go: named, noticed when it does later, and a retry succeeds', async (t) => {
  const one = await made('stuck');
  const plugged = await plug({ vmId: 'small', drive: one.drive });
  t.equal(await sha256In(small, plugged.guestPath), content);
  await host.virsh('suspend', 'small');
  for (const attempt of ['the first time', 'while the first request is under way']) {
    const short = () => unplug('small', { drive: one.drive }, 1);
    const told = /small has not let vda go within 1 s.*try again/;
    await refused(t, host, 'HotunplugTimeout', short, told, { disk: 'vda', vmId: plugged.vmId });
    t.strictSame(await attachedTo('stuck'), ['vda'], attempt);
  }
  t.equal(await qemuMayConnect(one), true, 'it may need to read still');
  await refused(t, host, 'ExportInUse', () => tearDown('stuck'), /plugged into small/);
  await host.virsh('resume', 'small');
  await poll('the late removal to be noticed', 60_000, async () => (await attachedTo('stuck')).length === 0);
  await poll('the socket to close', 10_000, async () => !(await qemuMayConnect(one)));
  t.strictSame(await unplug('small', { drive: one.drive }), { vmId: plugged.vmId, target: null });

  await plug({ vmId: 'small', drive: one.drive });
  await small.sh(`udevadm settle; test -b /dev/vda`);
  await host.virsh('suspend', 'small');
  await refused(
    t,
    host,
    'HotunplugTimeout',
    () => unplug('small', { target: 'vda' }, 1),
    /has not let vda go/,
  );
  const retry = unplug('small', { target: 'vda' }, 60);
  await host.virsh('resume', 'small');
  t.match((await retry).target, /^vda$/, 'a retry that waits is told');
  t.notMatch(await small.xml(), one.drive.serial);
  await tearDown('stuck');
  t.strictSame(await remains(host), []);
});

t.test('persistent: in the stored configuration, over a power cycle, and out of both', async (t) => {
  const one = await made('kept');
  const stored = () => host.virsh('dumpxml', 'app', '--inactive');
  const plugged = await plug({ vmId: 'app', drive: one.drive, persistent: true });
  t.match(await stored(), one.drive.serial);
  t.strictSame(await plug({ vmId: 'app', drive: one.drive, persistent: true }), plugged);
  await unplug('app', { drive: one.drive });
  t.notMatch(await stored(), one.drive.serial);
  t.notMatch(await app.xml(), one.drive.serial);

  await plug({ vmId: 'app', drive: one.drive, persistent: true });
  await app.destroy();
  t.strictSame(await attachedTo('kept'), ['sda'], 'it is in the stored configuration');
  await refused(t, host, 'ExportInUse', () => tearDown('kept'), /plugged into app as sda/);
  await app.start();
  t.equal(await sha256In(app, plugged.guestPath), content, 'and there again at the next start');
  t.equal((await unplug('app', { drive: one.drive })).target, 'sda');
  t.notMatch(await stored(), one.drive.serial);
  t.notMatch(await app.xml(), one.drive.serial);

  await plug({ vmId: 'small', drive: one.drive, persistent: true });
  await small.destroy();
  t.equal((await unplug('small', { drive: one.drive })).target, 'vda', 'of a VM that is off');
  t.notMatch(await host.virsh('dumpxml', 'small', '--inactive'), one.drive.serial);
  t.equal(await qemuMayConnect(one), false);
  await small.start();

  await host.virsh('create', '/run/off.xml', '--paused');
  const transient = () => plug({ vmId: 'off', drive: one.drive, persistent: true });
  await refused(
    t,
    host,
    'HotplugDiskFailed',
    transient,
    /libvirt could not plug the drive into off: .*transient/,
  );
  t.equal(await qemuMayConnect(one), false);
  t.match(await plug({ vmId: 'off', drive: one.drive }), { target: 'vda' }, 'live alone it works');
  await host.virsh('destroy', 'off');
  await poll('the VM to be forgotten', 10_000, async () => (await attachedTo('kept')).length === 0);
  await tearDown('kept');
  t.strictSame(await remains(host), []);
});

t.test('a VM that is destroyed with a drive in it gives it back', async (t) => {
  const one = await made('orphan');
  await plug({ vmId: 'small', drive: one.drive });
  await small.destroy();
  await poll('the attachment to be forgotten', 10_000, async () => (await attachedTo('orphan')).length === 0);
  await poll('the socket to close', 10_000, async () => !(await qemuMayConnect(one)));
  t.strictSame(await tearDown('orphan'), { exportId: 'orphan', checkpoint: null }, 'no force needed');
  t.strictSame(await remains(host), []);
  await small.start();
});

t.test(
  'a server that is killed under a guest: an I/O error there, not a pause; and the way out',
  async (t) => {
    const one = await made('dead');
    const plugged = await plug({ vmId: 'app', drive: one.drive });
    const virtio = await plug({ vmId: 'small', drive: one.drive });
    t.equal(await sha256In(app, plugged.guestPath), content);
    const [server] = (await host.processes()).filter(({ comm }) => comm === 'qemu-nbd');
    await host.must('kill', ['-9', String(server?.pid)]);
    // Told at once, before the watch has seen it.
    const reason = /export "dead" has failed: its qemu-nbd has died.*Tear it down and prepare a new one/;
    const about = { exportId: 'dead' };
    await refused(t, host, 'ExportFailed', () => verb(daemon, 'getChangedBlocks', about), reason, about);
    await refused(t, host, 'ExportFailed', () => plug({ vmId: 'app', drive: one.drive }), reason, about);
    await refused(t, host, 'ExportFailed', () => made('dead'), reason, about);
    for (const [guest, { guestPath }] of [
      [app, plugged],
      [small, virtio],
    ] as const) {
      await guest.sh('echo 3 >/proc/sys/vm/drop_caches');
      const read = await guest.try(`dd if=${guestPath} of=/dev/null bs=64k iflag=direct count=4`);
      t.match(read, { exitCode: 1, stderr: /Input\/output error|I\/O error/ }, guest.name);
      t.equal((await host.virsh('domstate', guest.name)).trim(), 'running');
    }
    await poll('the export to be called failed', 10_000, async () => {
      return (await verb(daemon, 'getExport', about)).state === 'failed';
    });
    t.match(await verb(daemon, 'getExport', about), {
      error: { name: 'ExportFailed', message: /qemu-nbd has died/ },
    });
    await refused(t, host, 'ExportFailed', () => verb(daemon, 'getChangedBlocks', about), reason, about);
    await refused(t, host, 'ExportInUse', () => tearDown('dead'), /plugged into/);
    t.equal((await unplug('app', { drive: one.drive })).target, 'sda');
    await tearDown('dead', true);
    for (const guest of [app, small]) t.notMatch(await guest.xml(), one.drive.serial);
    t.strictSame(await remains(host), []);
  },
);
