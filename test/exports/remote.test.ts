/** Drives of one host plugged into VMs of another: two hosts with networks of their own, a cable between. Needs root. */
import { chmodSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import type { Drive, HostEvent, HotplugDiskParams, Transport } from '../../agent/api/generated.js';
import type { DriveRecord } from '../../agent/exports/drive-record.js';
import { ENTRY_VERSION, EntryStore } from '../../agent/gateway/entry.js';
import type { DaemonHandle, GatewayHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost } from '../host/host.js';
import { type Cable, joinHosts } from '../host/network.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';
import { installQemuCertificate, showQemuCertificate } from '../tls/qemu-certificates.js';
import {
  defineVm,
  type Given,
  MiB,
  prepare,
  refused,
  remains,
  sha256In,
  sha256OfImage,
  verb,
} from './rig.js';

t.setTimeout(900_000);

const SIZE = 8 * MiB;
const PORT = 10_809;
const DRIVES = '/var/lib/vmdiskd/drives';
const X509: Transport = { type: 'tcp', tls: 'x509', clients: ['dns:appliance.example'] };
const SCSI = "<controller type='scsi' index='0' model='virtio-scsi'/>";

/** Has the disks. */
let there: Host;
/** Has the VMs: `app`, a guest, and `bare` and `other`, where nothing boots. */
let here: Host;
let app: Guest;
let content = '';
let cable: Cable;
let exporter: DaemonHandle;
let daemon: DaemonHandle;
let gateway: GatewayHandle;
let pki: Pki;
let image = '';
/** Where QEMU on this host looks for certificates, by libvirt's settings. */
let certificates = '';
let seq = 0;

const exporterConfig = () => ({ gateway: { listen: [`192.0.2.1:${PORT}`] }, tls: pki.tls });
const config = () => ({
  hotplug: { allowedHosts: ['192.0.2.1', `127.0.0.1:${PORT}`, '192.0.2.77'] },
  gateway: { listen: [`127.0.0.1:${PORT}`] },
  tls: pki.tls,
});

t.before(async () => {
  [there, here] = await Promise.all([startHost(t), startHost(t)]);
  cable = await joinHosts(there, here);
  pki = await makePki(join(there.dir, 'pki'));
  certificates = await installQemuCertificate(here, pki, 'appliance');
  image = await there.createImage({ name: 'disk.qcow2', format: 'qcow2', size: SIZE });
  await there.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 2M', '-c', 'write -P 9 5M 1M', image]);
  content = await sha256OfImage(there, image, 'qcow2');
  exporter = await there.startDaemon(exporterConfig());
  gateway = await there.startGateway(exporterConfig());
  daemon = await here.startDaemon(config());
  app = await here.startGuest({ name: 'app', scsiController: true });
  for (const name of ['bare', 'other']) {
    const path = await here.createImage({ name: `${name}.raw`, format: 'raw', size: MiB });
    await defineVm(here, { name, disks: [{ target: 'vda', path, format: 'raw' }], devicesXml: SCSI });
    await here.virsh('start', '--paused', name);
  }
});

/** Puts the certificates of one of the clients where libvirt has QEMU look, whole and readable for it. */
const showAs = (name: string) => showQemuCertificate(here, certificates, pki, name);

/** Another content in one of them; owner and mode stay. */
const exchange = (name: string, from: string) => writeFileSync(join(certificates, name), readFileSync(from));

const exported = async (exportId: string, transport: Transport = X509): Promise<Drive> =>
  (await prepare(exporter, { exportId, path: image, format: 'qcow2', transport })).drive;
const tearDown = (exportId: string) => verb(exporter, 'teardownBackupDisk', { exportId });
const plug = (drive: Drive, params: Given<HotplugDiskParams> = {}) =>
  verb(daemon, 'hotplugDisk', { vmId: 'bare', drive, ...params });
const unplug = (of: { drive: Drive } | { target: string }, vmId = 'bare') =>
  verb(daemon, 'hotunplugDisk', { vmId, ...of, timeoutSeconds: 30 });

const records = (): DriveRecord[] =>
  readdirSync(here.path(DRIVES)).map((name) =>
    JSON.parse(readFileSync(here.path(`${DRIVES}/${name}`), 'utf8')),
  );
const xml = (vm: string) => here.virsh('dumpxml', vm);

/** Events of drives since the last call. */
async function driveEvents(): Promise<HostEvent[]> {
  const found: HostEvent[] = [];
  for (;;) {
    const { events, next } = await verb(daemon, 'waitEvents', { after: seq, timeoutSeconds: 0 });
    if (next === seq) return found;
    seq = next;
    found.push(...events.filter(({ kind }) => kind.startsWith('drive')));
  }
}

t.test('plugged in, read, answered again, and out', async (t) => {
  const drive = await exported('one');
  t.match(drive, {
    ...{ name: 'one', tls: true, tlsHostname: 'gateway.example', capacity: SIZE },
    hosts: [{ transport: 'tcp', name: '192.0.2.1', port: PORT }],
  });
  await driveEvents();
  const plugged = await plug(drive, { vmId: 'app' });
  t.match(plugged, { target: 'sda', bus: 'scsi', serial: drive.serial, alias: `ua-vmdiskd-${drive.serial}` });
  t.equal(await sha256In(app, plugged.guestPath), content);
  const seen = await xml('app');
  t.match(seen, /<source protocol='nbd' name='one' tls='yes' tlsHostname='gateway.example'/);
  t.match(seen, /<host name='192.0.2.1' port='10809'\/>/);
  t.match(seen, /error_policy='report'/);
  t.match(records(), [{ owner: 'unix', drive, attachment: { target: 'sda', state: 'attached' } }]);
  t.equal((await verb(exporter, 'getExport', { exportId: 'one' })).clients, 1);
  t.match(await driveEvents(), [{ kind: 'driveAttached', exportId: 'one', owner: 'unix', target: 'sda' }]);

  t.strictSame(await plug(drive, { vmId: 'app' }), plugged, 'the same call, the same answer');
  const inApp = (of: Drive, params: Given<HotplugDiskParams> = {}) => plug(of, { vmId: 'app', ...params });
  const other = /into app as sda already, in another way/;
  for (const params of [{ bus: 'virtio' }, { target: 'sdb' }, { persistent: true }] as const)
    await refused(t, here, 'AlreadyExists', () => inApp(drive, params), other, { exportId: 'one' });
  await refused(t, here, 'AlreadyExists', () => inApp({ ...drive, tlsHostname: 'localhost' }), other);
  await plug(drive, { vmId: 'other' });
  t.equal(records().length, 2, 'a read-only drive may be in two VMs');
  t.strictSame((await verb(daemon, 'listExports', {})).exports, [], 'it is no export of this host');

  t.match(await unplug({ drive }, 'app'), { target: 'sda' });
  t.match(await unplug({ drive }, 'app'), { target: null });
  t.match(await unplug({ target: 'sda' }, 'other'), { target: 'sda' });
  t.match(await unplug({ target: 'sda' }, 'other'), { target: null });
  t.strictSame(records(), []);
  t.match(await driveEvents(), [
    { kind: 'driveAttached', exportId: 'one' },
    { kind: 'driveDetached', exportId: 'one', reason: 'unplugged' },
    { kind: 'driveDetached', exportId: 'one', reason: 'unplugged' },
  ]);
  for (const vm of ['app', 'other']) t.notMatch(await xml(vm), drive.serial);
  await tearDown('one');
  t.strictSame(await remains(there), []);
});

t.test('what QEMU is never sent to', async (t) => {
  const drive = await exported('two');
  const before = await xml('bare');
  const at = (name: string, port: number): Drive => ({ ...drive, hosts: [{ transport: 'tcp', name, port }] });
  const no = (call: () => Promise<unknown>, told: RegExp) => refused(t, here, 'NotAuthorized', call, told);
  await no(
    () => plug(at('192.0.2.2', PORT)),
    /at 192\.0\.2\.2:10809, which \[hotplug\] allowedHosts.*add it there/,
  );
  await no(() => plug(at('127.0.0.1', 22)), /at 127\.0\.0\.1:22, which \[hotplug\] allowedHosts/);
  await no(() => plug({ ...drive, tls: false }), /without TLS.*prepare it with tls "x509"/);
  const withKey = await exported('keyed', { type: 'tcp', tls: 'psk' });
  t.equal(withKey.tlsCredentials, 'psk');
  await no(
    () => plug(withKey),
    /pre-shared key, and libvirt has certificates only; prepare it with tls "x509"/,
  );
  const { tlsCredentials: _, ...disguised } = withKey;
  await no(
    () => plug({ ...disguised, tlsHostname: 'gateway.example' } as Drive),
    /no export "keyed" for the certificate of this host/,
  );
  await no(
    () => plug({ ...drive, capacity: SIZE + 512 }),
    /differs from what 192\.0\.2\.1:10809 serves.*as it came/,
  );
  await no(() => plug({ ...drive, readonly: false }), /there is read-only, and the drive is not/);
  await no(() => plug({ ...drive, name: 'nobodys' }), /no export "nobodys" for the certificate/);
  t.equal(await xml('bare'), before);
  t.strictSame(records(), []);
  for (const id of ['two', 'keyed']) await tearDown(id);
});

t.test('certificates: what is missing or does not fit is named, with its place', async (t) => {
  const drive = await exported('three');
  const failing = (told: RegExp) => refused(t, here, 'HotplugDiskFailed', () => plug(drive), told);
  const file = (name: string) => join(certificates, name);
  const whole = /QEMU cannot open the drive, as/;
  for (const [name, purpose] of [
    ['ca-cert.pem', "the CA of the gateways' certificates"],
    ['client-cert.pem', 'the certificate that this host shows to gateways'],
    ['client-key.pem', 'the key of client-cert.pem'],
  ] as const) {
    rmSync(file(name));
    const { message } = await failing(whole);
    t.match(
      message,
      `${file(name)} is missing; put ${purpose} there, readable for libvirt-qemu, then try again.`,
    );
    t.match(message, 'nbd_tls_x509_cert_dir in /etc/libvirt/qemu.conf');
    showAs('appliance');
  }
  chmodSync(file('client-key.pem'), 0o600);
  await failing(/client-key\.pem is not readable for libvirt-qemu; change its owner or mode/);
  showAs('appliance');
  chmodSync(certificates, 0o700);
  await failing(/ca-cert\.pem is not readable for libvirt-qemu/);
  showAs('appliance');
  exchange('client-key.pem', join(pki.client('other'), 'client-key.pem'));
  await failing(/client-key\.pem is not the key of client-cert\.pem; put both there/);
  exchange('client-key.pem', file('ca-cert.pem'));
  await failing(/client-key\.pem is not a key in PEM/);
  exchange('client-cert.pem', join(pki.client('appliance'), 'client-key.pem'));
  await failing(/client-cert\.pem is not a certificate in PEM/);
  showAs('appliance');
  const yesterday = [
    'x509',
    '-in',
    file('client-cert.pem'),
    '-signkey',
    file('client-key.pem'),
    '-days',
    '-1',
  ];
  await execa('openssl', [...yesterday, '-out', file('client-cert.pem')]);
  await failing(/client-cert\.pem expired on /);

  showAs('other');
  await refused(
    t,
    here,
    'NotAuthorized',
    () => plug(drive),
    /has no export "three".*CN=other.*other\.example.*clients/,
  );
  showAs('stranger');
  await failing(/192\.0\.2\.1:10809 does not accept this host's certificate \(.*CN=appliance.*clientCa/);
  showAs('appliance');
  exchange('ca-cert.pem', join(there.dir, 'pki/wrong-ca.pem'));
  await failing(/certificate of the NBD server is not to be trusted.*ca-cert\.pem here is its CA/);
  showAs('appliance');
  const misnamed = () => plug({ ...drive, tlsHostname: 'another.example' });
  await refused(t, here, 'HotplugDiskFailed', misnamed, /not to be trusted: .*another\.example/);

  // libvirt looks at its settings when it starts, and they change afterwards.
  const elsewhere = join(here.dir, 'new-certificates');
  const conf = join(here.dir, 'etc/libvirt/qemu.conf');
  const before = readFileSync(conf, 'utf8');
  renameSync(certificates, elsewhere);
  writeFileSync(conf, before.replace(certificates, elsewhere));
  await failing(
    /libvirt still sends QEMU to .*nbd-certificates .*not to .*new-certificates .*start libvirt's daemon again/,
  );
  writeFileSync(conf, before);
  showAs('appliance');
  await plug(drive);
  await unplug({ drive });
  await tearDown('three');
  t.strictSame(records(), []);
});

t.test('a gateway that cannot be reached is told in time, and the VM has not been bothered', async (t) => {
  const drive = await exported('four');
  const silent = await there.spawn(process.execPath, [
    '-e',
    "require('net').createServer().listen(10810,'192.0.2.1')",
  ]);
  t.teardown(() => silent.kill('SIGKILL'));
  const at = (name: string, port: number): Drive => ({ ...drive, hosts: [{ transport: 'tcp', name, port }] });
  await poll('the silent one to listen', 10_000, async () => {
    return (await there.run('sh', ['-c', 'ss -ltn | grep -q 10810'])).exitCode === 0;
  });
  const timed = async (attempt: Drive, told: RegExp): Promise<void> => {
    const began = performance.now();
    const call = refused(t, here, 'GatewayUnavailable', () => plug(attempt), told, { retryable: true });
    await here.virsh('qemu-monitor-command', 'bare', '--hmp', 'info name');
    t.ok(performance.now() - began < 10_000, "QEMU's monitor answers meanwhile");
    await call;
    t.ok(performance.now() - began < 25_000, 'in time');
  };
  await timed(
    at('192.0.2.1', 10_811),
    /192\.0\.2\.1:10811 of the drive "four" cannot be reached.*ECONNREFUSED/,
  );
  await timed(at('192.0.2.1', 10_810), /192\.0\.2\.1:10810 .*nothing came of it in 15 s/);
  await timed(at('192.0.2.77', PORT), /192\.0\.2\.77:10809/);
  await gateway.kill();
  await timed(drive, /vmdiskd-gateway runs there/);
  gateway = await there.startGateway(exporterConfig());
  await cable.set('down');
  await timed(drive, /192\.0\.2\.1:10809/);
  await cable.set('up');
  t.strictSame(records(), []);
  await poll('the cable to carry', 20_000, async () => {
    return (await here.run('nbdinfo', ['--size', 'nbd://192.0.2.1'])).stderr.includes('TLS');
  });
  await plug(drive);
  await unplug({ drive });
  await tearDown('four');
});

t.test('a daemon that was killed finds it again; what has left meanwhile is forgotten', async (t) => {
  const drive = await exported('five');
  const restart = async (meanwhile: () => unknown) => {
    await daemon.kill('SIGKILL');
    await meanwhile();
    daemon = await here.startDaemon(config());
  };
  const plugged = await plug(drive, { vmId: 'app' });
  await restart(() => {});
  t.strictSame(await plug(drive, { vmId: 'app' }), plugged);
  t.equal(await sha256In(app, plugged.guestPath), content);
  t.match(await unplug({ drive }, 'app'), { target: 'sda' });
  t.strictSame(records(), []);

  const detach = () => here.virsh('detach-device-alias', 'bare', plugged.alias, '--live');
  await plug(drive);
  await restart(detach);
  t.strictSame(records(), [], 'out while no daemon ran');

  await plug(drive);
  await driveEvents();
  await detach();
  await poll('the record to go', 10_000, () => records().length === 0);
  t.match(
    await driveEvents(),
    [{ kind: 'driveDetached', exportId: 'five', reason: 'left' }],
    'by another hand',
  );

  await plug(drive);
  await driveEvents();
  await here.virsh('destroy', 'bare');
  await poll('the record to go', 10_000, () => records().length === 0);
  t.match(await driveEvents(), [{ kind: 'driveDetached', exportId: 'five', reason: 'vmEnded' }]);
  await refused(t, here, 'VMNotRunning', () => plug(drive), /bare does not run/, { exportId: 'five' });
  await here.virsh('start', '--paused', 'bare');

  await plug(drive);
  await restart(() => rmSync(here.path(DRIVES), { recursive: true }));
  t.notMatch(await xml('bare'), drive.serial, 'what no record names is unplugged');
  await refused(t, here, 'NotOurs', () => unplug({ target: 'vda' }), /was not plugged in by hotplugDisk/);
  await tearDown('five');
});

t.test('persistent: it outlives its VM, and is taken out of both configurations', async (t) => {
  const drive = await exported('six');
  await plug(drive, { persistent: true });
  await here.virsh('destroy', 'bare');
  await new Promise((resolve) => setTimeout(resolve, 2000)); // for the watch to be wrong in
  t.match(records(), [{ attachment: { persistent: true, state: 'attached' } }]);
  await here.virsh('start', '--paused', 'bare');
  t.match(await xml('bare'), drive.serial);
  t.match(await unplug({ drive }), { target: 'sda' });
  t.notMatch(await xml('bare'), drive.serial);
  t.notMatch(await here.virsh('dumpxml', '--inactive', 'bare'), drive.serial);
  t.strictSame(records(), []);
  await tearDown('six');
});

t.test("a drive of this host's own gateway is its export's", async (t) => {
  const own = await here.startGateway(config());
  const path = await here.createImage({ name: 'here.qcow2', format: 'qcow2', size: SIZE });
  await here.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 0 1M', path]);
  const made = { exportId: 'own', path, format: 'qcow2', transport: X509 } as const;
  const { drive } = await prepare(daemon, made);
  t.match(drive.hosts, [{ transport: 'tcp', name: '127.0.0.1' }]);
  const { guestPath, vmId } = await plug(drive, { vmId: 'app' });
  t.equal(await sha256In(app, guestPath), await sha256OfImage(here, path, 'qcow2'));
  const { attachedTo } = await verb(daemon, 'getExport', { exportId: 'own' });
  t.strictSame(attachedTo, [{ vmId, target: 'sda' }]);
  t.strictSame(records(), []);
  const socket = await here.must('stat', ['-c', '%U %a', '/run/vmdiskd/exports/own/nbd.sock']);
  t.equal(socket.trim(), 'root 600', 'QEMU comes by the gateway, and has no need of the socket');
  const end = () => verb(daemon, 'teardownBackupDisk', { exportId: 'own' });
  await refused(t, here, 'ExportInUse', end, /plugged into app as sda/);
  const changed = () => plug({ ...drive, capacity: SIZE * 2 });
  await refused(t, here, 'NotAuthorized', changed, /differs from what prepareBackupDisk returned/);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'own', force: true });
  t.notMatch(await xml('app'), drive.serial);

  const live = await here.createImage({ name: 'live.qcow2', format: 'qcow2', size: MiB });
  const disks = [{ target: 'vda', path: live, format: 'qcow2' as const }];
  await defineVm(here, { name: 'saved', disks, devicesXml: SCSI });
  await here.virsh('start', '--paused', 'saved');
  const backup = await prepare(daemon, { exportId: 'live', vmId: 'saved', disk: 'vda', transport: X509 });
  const itself = () => plug(backup.drive, { vmId: 'saved' });
  await refused(t, here, 'HotplugDiskFailed', itself, /QEMU would wait for itself/);
  await plug(backup.drive);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'live', force: true });
  await here.virsh('destroy', 'saved');
  await own.kill();
});

t.test('a drive that can be written to is in one VM at a time', async (t) => {
  await exporter.kill(); // it would remove what it has not made
  const path = '/var/lib/libvirt/images/writable.raw';
  await there.must('truncate', ['-s', '1M', path]);
  await there.must('ln', ['-s', '/usr/bin/qemu-nbd', '/run/writable']); // none of the servers that have to be gone
  const serve = [
    '--fork',
    '--persistent',
    '--shared=8',
    '--socket=/run/w.sock',
    '--export-name=w',
    '-f',
    'raw',
    path,
  ];
  await there.must('/run/writable', serve);
  const store = new EntryStore(there.path('/run/vmdiskd'));
  await store.put({
    ...({ version: ENTRY_VERSION, kind: 'network-export', exportId: 'writable', lease: null } as const),
    ...{
      access: { type: 'x509', clients: ['dns:appliance.example'] },
      extendedHeaders: false,
      connections: 4,
    },
    server: { socket: '/run/w.sock', exportName: 'w' },
  });
  const drive: Drive = {
    ...({ type: 'network', device: 'disk', protocol: 'nbd', name: 'writable', format: 'raw' } as const),
    hosts: [{ transport: 'tcp', name: '192.0.2.1', port: PORT }],
    ...{ tls: true, tlsHostname: 'gateway.example', readonly: false, serial: 'w'.repeat(20), capacity: MiB },
  };
  await plug(drive);
  const second = () => plug(drive, { vmId: 'other' });
  await refused(t, here, 'DiskInUse', second, /can be written to and is plugged into bare as sda/);
  await unplug({ drive });
  t.match(await second(), { target: 'sda' });
  await unplug({ drive }, 'other');
  await store.remove('writable');
  t.strictSame(records(), []);
});
