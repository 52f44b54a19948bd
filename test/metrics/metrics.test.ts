/** The numbers for Prometheus, scraped from a real daemon with its gateway. Needs root. */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Transport } from '../../agent/api/generated.js';
import { defineVm, failureOf, MiB, prepare, verb } from '../exports/rig.js';
import type { DaemonHandle, GatewayHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';

t.setTimeout(400_000);

const SOCKET = '/run/vmdiskd/metrics.sock';
const PSK: Transport = { type: 'tcp', tls: 'psk' };
const SIZE = 8 * MiB;
let host: Host;
let daemon: DaemonHandle;
let gateway: GatewayHandle;

type Sample = { name: string; labels: Record<string, string>; value: number };

/** What a scraper makes of the text. */
async function scrape(...from: string[]): Promise<Sample[]> {
  const where = from.length > 0 ? from : ['--unix-socket', SOCKET, 'http://localhost/metrics'];
  const text = await host.must('curl', ['-sSf', '--max-time', '20', ...where]);
  return text.split('\n').flatMap((line) => {
    const [, name, labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, of]) => [key, of]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}

/** The one sample of that name with (at least) those labels; undefined without one. */
function numberOf(samples: Sample[], name: string, labels: Record<string, string> = {}): number | undefined {
  const fits = samples.filter(
    (sample) =>
      sample.name === `vmdiskd_${name}` &&
      Object.entries(labels).every(([key, of]) => sample.labels[key] === of),
  );
  if (fits.length > 1) throw new Error(`${name} ${JSON.stringify(labels)} is ${JSON.stringify(fits)}`);
  return fits[0]?.value;
}

const settings = (listen: string) => ({
  metrics: { listen },
  gateway: { listen: ['127.0.0.1:10809'], advertise: 'localhost' },
});

t.before(async () => {
  host = await startHost(t);
  [daemon, gateway] = await Promise.all([
    host.startDaemon(settings(SOCKET)),
    host.startGateway(settings(SOCKET)),
  ]);
  const disk = await host.createImage({ name: 'web.qcow2', format: 'qcow2', size: SIZE });
  await host.must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 2M', disk]); // zeroes would not be sent
  await defineVm(host, { name: 'web', disks: [{ target: 'vda', path: disk, format: 'qcow2' }] });
});

t.test('verbs by outcome and duration, calls to libvirt, the process', async (t) => {
  await verb(daemon, 'listDisks', { vmId: 'web' });
  await failureOf(verb(daemon, 'listDisks', { vmId: 'none' }));
  await failureOf(daemon.call('listDisks', { vmId: 1 }));
  await failureOf(daemon.call('no{such}"verb'));
  const samples = await scrape();
  const verbs = (name: string, outcome: string) => numberOf(samples, 'verbs_total', { verb: name, outcome });
  t.equal(verbs('listDisks', 'done'), 1);
  t.equal(verbs('listDisks', 'NoSuchVM'), 1);
  t.equal(verbs('listDisks', 'InvalidParams'), 1);
  t.equal(verbs('unknown', 'MethodNotFound'), 1, 'a caller cannot make names of its own');
  t.equal(numberOf(samples, 'verb_seconds_count', { verb: 'listDisks' }), 3);
  t.ok((numberOf(samples, 'verb_seconds_sum', { verb: 'listDisks' }) ?? 0) > 0);
  const procedure = 'domainGetXMLDesc';
  const calls = samples.filter(({ name }) => name === 'vmdiskd_libvirt_calls_total');
  t.ok(calls.length > 3, 'calls to libvirt');
  t.ok(
    calls.some(({ labels }) => labels.outcome === 'LibvirtError'),
    'failed ones too',
  );
  t.ok((numberOf(samples, 'libvirt_call_seconds_count', { procedure }) ?? 0) > 0);
  t.equal(numberOf(samples, 'libvirt_connected'), 1);
  t.equal(numberOf(samples, 'libvirt_calls', { where: 'waiting' }), 0);
  t.equal(numberOf(samples, 'info', { version: '0.1.0' }), 1);
  for (const name of ['nodejs_eventloop_lag_p99_seconds', 'process_resident_memory_bytes']) {
    t.ok(
      samples.some((sample) => sample.name === name),
      name,
    );
  }
});

t.test('exports, leases, clients and bytes', async (t) => {
  await prepare(daemon, { exportId: 'here', vmId: 'web', disk: 'vda', leaseSeconds: 500 });
  const made = await prepare(daemon, { exportId: 'there', vmId: 'web', disk: 'vda', transport: PSK });
  const { identity = '', key = '' } = made.credentials ?? {};
  const file = join(host.dir, 'key.psk');
  writeFileSync(file, `${identity}:${key}\n`, { mode: 0o600 });
  const before = await scrape();
  t.equal(numberOf(before, 'exports', { state: 'ready' }), 2);
  t.equal(numberOf(before, 'exports', { state: 'failed' }), 0);
  t.equal(numberOf(before, 'leases', { of: 'export' }), 1);
  const left = numberOf(before, 'lease_left_seconds', { of: 'export', id: 'here' }) ?? 0;
  t.ok(left > 300 && left <= 500, `${left} s are left`);
  t.equal(numberOf(before, 'backups', { state: 'running' }), 0);
  t.equal(numberOf(before, 'gateway_up'), 1);

  const uri = `${made.uri}?tls-psk-file=${file}`;
  await host.must('nbdcopy', [uri, 'null:']);
  const connected = ['-c', `h.set_uri_allow_local_file(True); h.connect_uri("${uri}")`];
  const about = { export: 'there', vm: 'web', disk: 'vda' };
  const copied = await scrape();
  const sent = numberOf(copied, 'export_sent_bytes_total', about) ?? 0;
  t.ok(sent > 0, `${sent} bytes`);
  t.ok((numberOf(copied, 'export_received_bytes_total', about) ?? 0) > 0);
  await host.must('nbdsh', [...connected, '-c', `h.pread(${MiB}, 0)`]);
  const [one, other] = await Promise.all([scrape(), scrape()]);
  t.ok((numberOf(one, 'export_sent_bytes_total', about) ?? 0) >= sent + MiB, 'what was read since');
  t.equal(
    numberOf(one, 'export_sent_bytes_total', about),
    numberOf(other, 'export_sent_bytes_total', about),
    'two scrapers at once count nothing twice',
  );
  const held = await host.spawn('nbdsh', [...connected, '-c', 'import time; time.sleep(60)']);
  await poll(
    'the client to be counted',
    20_000,
    async () => numberOf(await scrape(), 'export_clients', about) === 1,
  );
  await held.kill();
  await poll('and to be gone', 20_000, async () => numberOf(await scrape(), 'export_clients', about) === 0);

  await gateway.kill();
  const without = await scrape();
  t.equal(numberOf(without, 'gateway_up'), 0, 'a gateway that is down is told, and not waited for');
  t.equal(numberOf(without, 'export_clients', about), undefined);
  for (const exportId of ['here', 'there']) await verb(daemon, 'teardownBackupDisk', { exportId });
  const after = await scrape();
  t.equal(numberOf(after, 'exports', { state: 'ready' }), 0);
  t.equal(numberOf(after, 'lease_left_seconds'), undefined, 'what is gone leaves no numbers');
});

t.test('who may read them, and what else is asked there', async (t) => {
  const { mode } = statSync(host.path(SOCKET));
  t.equal(mode & 0o777, 0o660);
  const curl = (...args: string[]) =>
    host.run('curl', ['-sS', '--max-time', '20', '--unix-socket', SOCKET, ...args]);
  t.match(await curl('-w', '%{http_code}', 'http://x/'), { stdout: /GET \/metrics.*404$/s });
  t.match(await curl('-w', '%{http_code}', '-d', 'x', 'http://x/metrics'), { stdout: /405$/ });
  await daemon.kill();
  daemon = await host.startDaemon(settings('127.0.0.1:9737'));
  t.equal(numberOf(await scrape('http://127.0.0.1:9737/metrics'), 'libvirt_connected'), 1);
  await daemon.kill();
  daemon = await host.startDaemon({});
  t.notMatch(daemon.log(), /listening for metrics|metrics\.sock/, 'off, where nobody has asked for them');
});
