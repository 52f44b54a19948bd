/** Exports over the network: daemon, gateway and real clients, each in processes of their own. Needs root. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PrepareBackupDiskResult, Transport } from '../../agent/api/generated.js';
import type { DaemonHandle, GatewayHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';
import {
  defineVm,
  failureOf,
  MiB,
  mapByNbdinfo,
  prepare,
  readRecord,
  refused,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
} from './rig.js';

t.setTimeout(900_000);

const SIZE = 96 * MiB;
const ENTRIES = '/run/vmdiskd/gateway/exports';
const PSK: Transport = { type: 'tcp', tls: 'psk' };
const X509: Transport = { type: 'tcp', tls: 'x509', clients: ['dns:appliance.example'] };

let host: Host;
let daemon: DaemonHandle;
let gateway: GatewayHandle;
let pki: Pki;
let disk = '';
let config: Record<string, unknown> = {};
/** Every key that was made here. */
const keys: string[] = [];

t.before(async () => {
  host = await startHost(t);
  pki = await makePki(join(host.dir, 'pki'));
  disk = await host.createImage({ name: 'disk.qcow2', format: 'qcow2', size: SIZE });
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 1M 80M', '-c', 'write -z 90M 1M', disk]);
  config = {
    gateway: {
      ...{ listen: ['127.0.0.1:10809'], plaintextLoopback: true, advertise: 'localhost' },
      ...{ connections: 64 },
    },
    tls: pki.tls,
  };
  daemon = await host.startDaemon(config);
  await host.must('truncate', ['-s', String(SIZE), '/run/copy.raw']);
  const slow = ['--filter=rate', 'file', '/run/copy.raw', 'rate=80M'];
  // Under another name: it is none of the servers that have to be gone in the end.
  await host.must('ln', ['-s', '/usr/bin/nbdkit', '/run/slow-target']);
  await host.must('/run/slow-target', ['--unix=/run/slow.sock', ...slow]);
});

/** The export's key, in a file that only root can read, for libnbd. */
function keyFile({ credentials }: PrepareBackupDiskResult): string {
  if (credentials === undefined) throw new Error('no credentials');
  keys.push(credentials.key);
  const file = join(host.dir, `${credentials.identity}.psk`);
  writeFileSync(file, `${credentials.identity}:${credentials.key}\n`, { mode: 0o600 });
  return file;
}
const withKey = (made: PrepareBackupDiskResult) => `${made.uri}?tls-psk-file=${keyFile(made)}`;
const withCertificate = (made: PrepareBackupDiskResult, name = 'appliance') =>
  `${made.uri}?tls-certificates=${pki.client(name)}`;

const byPath = (exportId: string, transport: Transport, more: object = {}) =>
  prepare(daemon, { exportId, path: disk, format: 'qcow2', transport, ...more });
const tearDown = (exportId: string) => verb(daemon, 'teardownBackupDisk', { exportId, outcome: 'success' });
const size = (uri: string) => host.run('nbdinfo', ['--size', uri], { timeoutMs: 30_000 });

/** A copy with four connections that goes on for some seconds, since its target takes 10 MiB in one. */
async function slowCopy(uri: string) {
  return host.spawn(
    'nbdcopy',
    ['--connections=4', '--threads=4', uri, 'nbd+unix:///?socket=/run/slow.sock'],
    {
      timeoutMs: 90_000,
    },
  );
}

t.test('without a gateway there is no network export, and nothing is left of the attempt', async (t) => {
  await refused(t, host, 'GatewayUnavailable', () => byPath('early', PSK), /does not answer.*start it/);
  gateway = await host.startGateway(config);
});

t.test('written to from elsewhere: a layer that is thrown away, and the image itself', async (t) => {
  const path = await host.createImage({ name: 'written.qcow2', format: 'qcow2', size: 8 * MiB });
  await host.must('sh', ['-c', 'head -c 8388608 /dev/urandom >/run/new.raw']);
  const wanted = (await host.must('sha256sum', ['/run/new.raw'])).slice(0, 64);
  const of = { path, format: 'qcow2' } as const;
  const before = await sha256OfImage(host, path, 'qcow2');
  const scratch = await verb(daemon, 'mountDisk', {
    exportId: 'scratch',
    ...of,
    access: 'scratch',
    transport: PSK,
  });
  t.match(scratch.drive, { readonly: false, tls: true });
  const key = join(host.dir, 'scratch.psk');
  keys.push(scratch.credentials?.key ?? '');
  writeFileSync(key, `scratch:${scratch.credentials?.key}\n`, { mode: 0o600 });
  const uri = `${scratch.uri}?tls-psk-file=${key}`;
  await host.must('nbdcopy', ['--connections=4', '--flush', '/run/new.raw', uri]);
  t.equal(await sha256OfExport(host, uri), wanted);
  const row = await verb(daemon, 'getExport', { exportId: 'scratch' });
  t.ok((row.scratch?.used ?? 0) > 8 * MiB);
  await verb(daemon, 'unmountDisk', { exportId: 'scratch' });
  t.equal(await sha256OfImage(host, path, 'qcow2'), before);

  const restore = await verb(daemon, 'mountDisk', {
    ...{ exportId: 'restore', ...of, access: 'read-write', transport: X509 },
  });
  const written = `${restore.uri}?tls-certificates=${pki.client('appliance')}`;
  await host.must('nbdcopy', ['--connections=4', '--flush', '/run/new.raw', written]);
  await verb(daemon, 'unmountDisk', { exportId: 'restore' });
  t.equal(await sha256OfImage(host, path, 'qcow2'), wanted);
});

t.test('a key: made for this export alone, given again, and gone with it', async (t) => {
  const made = await byPath('keyed', PSK);
  t.match(made, {
    drive: {
      ...{ name: 'keyed', tls: true, format: 'raw', capacity: SIZE, readonly: true },
      hosts: [{ transport: 'tcp', name: 'localhost', port: 10809 }],
    },
    uri: 'nbds://keyed@localhost:10809/keyed',
    credentials: { type: 'psk', identity: 'keyed', key: /^[0-9a-f]{64}$/ },
    cbt: { mode: 'full', metaContext: 'base:allocation' },
  });
  t.notOk('tlsHostname' in made.drive);
  const uri = withKey(made);
  const socket = 'nbd+unix:///keyed?socket=/run/vmdiskd/exports/keyed/nbd.sock';
  t.strictSame(
    await mapByNbdinfo(host, uri, 'base:allocation'),
    await mapByNbdinfo(host, socket, 'base:allocation'),
  );
  const truth = await sha256OfExport(host, socket);
  t.equal(await sha256OfExport(host, uri), truth);

  t.strictSame(await byPath('keyed', PSK), made, 'the same answer, with the same key');
  const another = await byPath('keyed-too', PSK);
  keyFile(another);
  t.not(another.credentials?.key, made.credentials?.key);
  const stolen = `nbds://keyed-too@localhost:10809/keyed?tls-psk-file=${keyFile(another)}`;
  t.not((await size(stolen)).exitCode, 0, 'the key of another export opens nothing');

  const row = await verb(daemon, 'getExport', { exportId: 'keyed' });
  t.match(row, { transport: PSK, clients: 0 });
  t.ok((row.bytes ?? 0) > 80 * MiB, `${row.bytes} bytes`);
  t.notMatch(JSON.stringify(await verb(daemon, 'listExports', {})), made.credentials?.key);
  const stat = statSync(host.path(`${ENTRIES}/keyed.json`));
  t.equal(stat.mode & 0o777, 0o600);
  t.equal(statSync(host.path('/run/vmdiskd/gateway')).mode & 0o777, 0o700);
  t.notMatch(JSON.stringify(readRecord(host, 'keyed')), made.credentials?.key, 'the key is in no record');

  const attempt = failureOf(verb(daemon, 'hotplugDisk', { vmId: 'nobody', drive: made.drive }));
  t.match(await attempt, { data: { name: 'NotAuthorized' }, message: /pre-shared key.*x509/ });
  await tearDown('keyed');
  await tearDown('keyed-too');
  t.not((await size(uri)).exitCode, 0);
  t.strictSame(await remains(host), []);
});

t.test('certificates', async (t) => {
  const clients: Transport = {
    ...{ type: 'tcp', tls: 'x509' },
    clients: ['uri:spiffe://nobody', 'subject:CN=appliance,O=Example\\, Inc.,C=DE'],
  };
  const made = await byPath('certified', clients);
  t.match(made, { uri: 'nbds://localhost:10809/certified', drive: { tls: true } });
  t.notOk('credentials' in made);
  t.equal((await size(withCertificate(made))).stdout.trim(), String(SIZE));
  t.not((await size(withCertificate(made, 'other'))).exitCode, 0);
  t.not((await size(withCertificate(made, 'stranger'))).exitCode, 0);
  const refusals = gateway
    .log()
    .split('\n')
    .filter((line) => line.includes('refused'));
  t.equal(
    refusals.filter((line) => line.includes('no such export for it')).length,
    2,
    'the stolen key, and other',
  );
  t.equal(refusals.filter((line) => line.includes('not accepted')).length, 1);
  await tearDown('certified');

  const bad = await failureOf(byPath('bad', { ...clients, clients: ['subject:appliance'] }));
  t.match(bad, { code: -32602, message: /transport\/clients\/0 .*TYPE=value/ });
  t.match(await failureOf(byPath('bad', { type: 'tcp', tls: 'x509' })), {
    code: -32602,
    message: /clients goes with/,
  });
  t.match(await failureOf(byPath('bad', { ...clients, tls: 'psk' })), { code: -32602 });
});

t.test('without TLS, from this very host', async (t) => {
  const made = await byPath('plain', { type: 'tcp', tls: 'none' });
  t.match(made, { uri: 'nbd://127.0.0.1:10809/plain', drive: { tls: false } });
  t.equal((await size(made.uri)).stdout.trim(), String(SIZE));
  const keyed = await byPath('keyed-2', PSK);
  keyFile(keyed);
  t.not((await size('nbd://127.0.0.1:10809/keyed-2')).exitCode, 0, 'one that wants a key is not shown there');
  await tearDown('plain');
  await tearDown('keyed-2');
});

t.test('the daemon is killed while a client reads; the next one knows the export and its key', async (t) => {
  const made = await byPath('survivor', PSK, { leaseSeconds: 600 });
  const uri = withKey(made);
  const truth = await sha256OfExport(
    host,
    'nbd+unix:///survivor?socket=/run/vmdiskd/exports/survivor/nbd.sock',
  );
  const copy = await slowCopy(uri);
  await poll('the copy to begin', 30_000, async () => (await clients('survivor')) === 4);
  await daemon.kill('SIGKILL');
  t.equal((await size(uri)).stdout.trim(), String(SIZE), 'and others come in meanwhile');
  daemon = await host.startDaemon(config);
  const { exitCode, stderr } = await copy.exited;
  t.equal(exitCode, 0, stderr);
  t.equal((await host.must('sha256sum', ['/run/copy.raw'])).slice(0, 64), truth);
  t.strictSame((await byPath('survivor', PSK, { leaseSeconds: 600 })).credentials, made.credentials);
  const { lease } = await verb(daemon, 'renewExport', { exportId: 'survivor', leaseSeconds: 900 });
  const entry = JSON.parse(readFileSync(host.path(`${ENTRIES}/survivor.json`), 'utf8'));
  t.equal(entry.lease.expires, lease.expires, 'the gateway goes by the new lease');
});

async function clients(exportId: string): Promise<number | null> {
  return (await verb(daemon, 'getExport', { exportId })).clients;
}

t.test('a teardown cuts who reads, before it returns', async (t) => {
  const made = await byPath('survivor', PSK, { leaseSeconds: 600 });
  const copy = await slowCopy(withKey(made));
  await poll('the copy to begin', 30_000, async () => (await clients('survivor')) === 4);
  await tearDown('survivor');
  t.notMatch(await host.must('ss', ['-Hnt', 'state', 'established', 'sport', '=', '10809']), /10809/);
  t.not((await copy.exited).exitCode, 0, 'the copy says that it failed');
  t.match(gateway.log(), /torn down/);
  t.strictSame(await remains(host), []);
});

t.test('a lease that ends while no daemon runs', async (t) => {
  const made = await byPath('leased', PSK, { leaseSeconds: 4 });
  const uri = withKey(made);
  await daemon.kill('SIGKILL');
  t.equal((await size(uri)).exitCode, 0);
  await poll('the lease to end', 30_000, async () => (await size(uri)).exitCode !== 0);
  daemon = await host.startDaemon(config);
  await poll('the export to be ended', 30_000, async () => (await remains(host)).length === 0);
});

t.test('a gateway that is started again serves what there is; one that is dead is told', async (t) => {
  const made = await byPath('again', PSK);
  const uri = withKey(made);
  await gateway.kill('SIGKILL');
  await refused(t, host, 'GatewayUnavailable', () => byPath('later', PSK), /does not answer/);
  t.match(await verb(daemon, 'getExport', { exportId: 'again' }), {
    clients: null,
    bytes: null,
    state: 'ready',
  });
  gateway = await host.startGateway(config);
  t.equal((await size(uri)).stdout.trim(), String(SIZE));
  await gateway.kill();
  await tearDown('again');
  t.strictSame(await remains(host), []);
  gateway = await host.startGateway(config);
});

t.test("a live backup by QEMU's own server, which knows the disk by another name", async (t) => {
  const path = await host.createImage({ name: 'live.qcow2', format: 'qcow2', size: 32 * MiB });
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 1M 20M', path]);
  await defineVm(host, { name: 'live', disks: [{ target: 'vda', path, format: 'qcow2' }] });
  await host.virsh('start', 'live', '--paused');
  const ifUntracked = 'fail';
  await verb(daemon, 'startBackup', {
    backupId: 'one',
    vmId: 'live',
    disks: [{ disk: 'vda', ifUntracked }],
    checkpoint: 'c1',
  });
  await verb(daemon, 'stopBackup', { backupId: 'one', outcome: 'success' });
  const since = { checkpoint: 'c1' };
  await verb(daemon, 'startBackup', {
    backupId: 'two',
    vmId: 'live',
    disks: [{ disk: 'vda', since, ifUntracked }],
  });
  const of = { vmId: 'live', disk: 'vda', backupId: 'two' };
  const made = await prepare(daemon, { exportId: 'live-psk', ...of, transport: PSK });
  t.equal(made.drive.name, 'live-psk');
  const uri = withKey(made);
  const local = await prepare(daemon, { exportId: 'live-unix', ...of });
  t.equal(local.drive.name, 'vda');
  for (const context of ['base:allocation', 'qemu:dirty-bitmap:c1']) {
    t.strictSame(
      await mapByNbdinfo(host, uri, context),
      await mapByNbdinfo(host, local.uri, context),
      context,
    );
  }
  t.equal(await sha256OfExport(host, uri), await sha256OfExport(host, local.uri));
  const certified = await prepare(daemon, { exportId: 'live-x509', ...of, transport: X509 });
  t.equal(await sha256OfExport(host, withCertificate(certified)), await sha256OfExport(host, local.uri));
  // QEMU's server goes on for the others: it is the gateway that has to cut this one's client.
  const copy = await slowCopy(uri);
  await poll('the copy to begin', 30_000, async () => (await clients('live-psk')) === 4);
  await tearDown('live-psk');
  t.not((await copy.exited).exitCode, 0);
  t.equal((await size(withCertificate(certified))).exitCode, 0, 'the others are not touched');
  await verb(daemon, 'stopBackup', { backupId: 'two', outcome: 'success', force: true });
  t.not((await size(withCertificate(certified))).exitCode, 0);
  t.strictSame(await remains(host), []);
});

t.test('an entry that no record names is removed', async (t) => {
  writeFileSync(host.path(`${ENTRIES}/stray.json`), '{}');
  writeFileSync(host.path(`${ENTRIES}/stray.01234567.tmp`), '{');
  await daemon.kill('SIGKILL');
  daemon = await host.startDaemon(config);
  t.strictSame(readdirSync(host.path(ENTRIES)), []);
});

t.test('an entry that is damaged lets nobody in, and its export has failed', async (t) => {
  const made = await byPath('damaged', PSK);
  const uri = withKey(made);
  const entry = host.path(`${ENTRIES}/damaged.json`);
  writeFileSync(entry, readFileSync(entry, 'utf8').slice(0, -20));
  t.not((await size(uri)).exitCode, 0);
  await poll('the export to be declared failed', 30_000, async () => {
    const { state, error } = await verb(daemon, 'getExport', { exportId: 'damaged' });
    return state === 'failed' && /is gone, or damaged/.test(error?.message ?? '');
  });
  t.match(await failureOf(byPath('damaged', PSK)), { data: { name: 'ExportFailed' } });
  await tearDown('damaged');
  t.strictSame(readdirSync(host.path(ENTRIES)), []);
  t.strictSame(await remains(host), []);
});

t.test(
  'the search for keys that have got out, as the host ends, knows every one that was made here',
  async (t) => {
    t.ok(keys.length >= 6);
    t.equal(host.secrets.count, new Set(keys).size);
  },
);
