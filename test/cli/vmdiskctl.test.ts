/** vmdiskctl as a program, against a real daemon: on its socket and over the network. Needs root. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { verbSchemas } from '../../agent/api/schemas.js';
import { kebab } from '../../agent/cli/names.js';
import { defineVm, MiB } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, type RunResult, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';

t.setTimeout(600_000);

const PROGRAM = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const [TLS, HTTPS] = ['127.0.0.1:16520', '127.0.0.1:16521'];
let host: Host;
let daemon: DaemonHandle;
let pki: Pki;
let config: Record<string, unknown>;

const ctl = (...args: string[]): Promise<RunResult> => host.run(process.execPath, [PROGRAM, ...args]);
/** The answer of a command that has to succeed. */
async function answered(...args: string[]): Promise<Record<string, never>> {
  const { exitCode, stdout, stderr } = await ctl('--json', ...args);
  if (exitCode !== 0) throw new Error(`${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

t.before(async () => {
  host = await startHost(t);
  pki = await makePki(join(host.dir, 'pki'));
  config = {
    rpc: { tls: [TLS], https: [HTTPS] },
    tls: pki.tls,
    roles: [{ identity: 'dns:admin.example', role: 'admin' }],
  };
  daemon = await host.startDaemon(config);
  const disk = await host.createImage({ name: 'web.qcow2', format: 'qcow2', size: 8 * MiB });
  await defineVm(host, {
    name: 'web',
    disks: [{ target: 'vda', path: disk, format: 'qcow2' }],
    devicesXml: '<controller type="scsi" model="virtio-scsi"/>',
  });
});

t.test('--help of the program and of each subcommand, and --version', async (t) => {
  const help = await ctl('--help');
  t.match(help, { exitCode: 0, stderr: '' });
  t.match(await ctl('--version'), { exitCode: 0, stdout: /^\d+\.\d+\.\d+$/ });
  for (const name of Object.keys(verbSchemas)) t.match(help.stdout, ` ${kebab(name)} `);
  const one = await ctl('help', 'prepare-backup-disk');
  t.match(one, {
    exitCode: 0,
    stdout: /--inline-extents <integer>.*\(integer\s+0\.\.10000;\s+default:\s+1000\)/s,
  });
  t.match(one.stdout, /Members of --transport:.*clients/s);
  t.match(await ctl(), { exitCode: 2, stderr: /Usage/ });
  t.match(await ctl('nothing'), { exitCode: 2, stderr: /^vmdiskctl: unknown command 'nothing'/ });
});

t.test('a backup of a shut-off VM, plugged into another', async (t) => {
  const exported = ['prepare-backup-disk', '--export-id', 'e1', '--vm-id', 'web', '--disk', 'vda'];
  const first = await ctl(...exported, '--json', '--lease-seconds', '600');
  t.match(first, { exitCode: 0, stderr: '' });
  t.match(JSON.parse(first.stdout), { exportId: 'e1', drive: { type: 'network' }, cbt: { mode: 'full' } });
  writeFileSync(host.path('/run/e1.json'), first.stdout);
  const shown = await ctl(...exported, '--lease-seconds', '600');
  t.match(shown.stdout, /^uri: +nbd\+unix:\/\/\/e1\?socket=/m, 'the same again, for people');
  t.match(shown.stdout, /^cbt:\n +mode: +full$/m);

  const list = await ctl('list-exports');
  t.match(list.stdout, /^exportId +state +vmId/);
  t.match(list.stdout, /^e1 +ready .* vda /m);
  t.match(await answered('get-export', '--export-id', 'e1'), { exportId: 'e1', disk: 'vda' });
  t.match(
    (await ctl('get-changed-blocks', '--export-id', 'e1')).stdout,
    /start +length +dirty +zero\n +0 +8388608/,
  );

  await defineVm(host, { name: 'app', devicesXml: '<controller type="scsi" model="virtio-scsi"/>' });
  await host.virsh('start', '--paused', 'app');
  const plugged = await answered('hotplug-disk', '--vm-id', 'app', '--drive', '@/run/e1.json');
  t.match(plugged, { target: /^sd/, bus: 'scsi' });
  const busy = await ctl('teardown-backup-disk', '--export-id', 'e1');
  t.match(busy, { exitCode: 4, stdout: '', stderr: /^vmdiskctl: ExportInUse: .*plugged into app/ });
  t.match(await answered('hotunplug-disk', '--vm-id', 'app', '--drive', '@/run/e1.json'), { vmId: /-/ });
  await host.virsh('destroy', 'app');
  t.strictSame(await answered('teardown-backup-disk', '--export-id', 'e1'), {
    exportId: 'e1',
    checkpoint: null,
  });
  t.match(await ctl('list-exports'), { exitCode: 0, stdout: 'None.' });
});

t.test('a job is waited for', async (t) => {
  await host.virsh('start', '--paused', 'web');
  await answered('create-snapshot', '--snapshot-id', 's1', '--vm-id', 'web', '--quiesce', 'no');
  t.match((await ctl('list-snapshots', '--vm-id', 'web')).stdout, /^s1 +ready +- +vda/m);
  const merged = await answered('delete-snapshot', '--vm-id', 'web', '--snapshot-id', 's1', '--wait');
  t.match(merged, { kind: 'deleteSnapshot', state: 'done' });
  t.match(await ctl('get-job', '--job-id', `${merged.jobId}`, '--wait'), {
    exitCode: 0,
    stdout: /state: +done/,
  });
  await host.virsh('destroy', 'web');
});

t.test('the host is drained', async (t) => {
  await answered('prepare-backup-disk', '--export-id', 'd1', '--vm-id', 'web', '--disk', 'vda');
  const drained = await ctl('drain', '--timeout-seconds', '60', '--wait');
  t.match(drained, { exitCode: 0, stdout: /^kind: +drain$/m });
  t.match(drained.stdout, /^result:\n +exports: +d1\n +backups: +-\n +left: +-$/m);
  t.match(await ctl('list-exports'), { exitCode: 0, stdout: 'None.' });
});

t.test('events are followed', async (t) => {
  const from = ['wait-events', '--after', '0', '--follow'];
  const follower = await host.spawn(process.execPath, [PROGRAM, ...from, '--json']);
  await host.virsh('start', '--paused', 'web');
  await host.virsh('destroy', 'web');
  await poll('the event', 30_000, () => /"kind":"vmStopped"/.test(follower.output()));
  await follower.kill('SIGINT');
  await follower.exited;
  const events = follower
    .output()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { seq: number });
  const numbers = events.map(({ seq }) => seq);
  t.strictSame(
    numbers,
    [...numbers].sort((a, b) => a - b),
    'each once and in order',
  );
  t.match(await ctl('wait-events', '--after', '0', '--max', '1'), { exitCode: 0, stdout: /exportReady/ });
});

t.test('errors by their names, and for programs', async (t) => {
  const none = await ctl('list-disks', '--vm-id', 'no such');
  t.match(none, { exitCode: 1, stdout: '', stderr: /^vmdiskctl: NoSuchVM: .*"no such"/ });
  const json = await ctl('list-disks', '--vm-id', 'no such', '--json');
  t.match(json, { exitCode: 1, stdout: '' });
  t.match(JSON.parse(json.stderr), { error: { code: 1, data: { name: 'NoSuchVM', retryable: false } } });
  t.match(await ctl('prepare-backup-disk', '--export-id', '/', '--vm-id', 'web'), {
    exitCode: 2,
    stderr: /name the disk by --vm-id and disk.*\nvmdiskctl: --export-id must be a UUID/,
  });
});

t.test('over the network', async (t) => {
  const as = (name: string) =>
    ['cert', 'key', 'ca'].flatMap((of) => [
      `--${of}`,
      join(pki.client(name), of === 'ca' ? 'ca-cert.pem' : `client-${of}.pem`),
    ]);
  for (const uri of [`tls://${TLS}`, `https://${HTTPS}`, 'tls://localhost:16520']) {
    const info = await answered('--host', uri, ...as('admin'), 'get-host-info');
    t.match(info, { state: 'ready' }, uri);
    const stranger = await ctl('--host', uri, ...as('stranger'), 'get-host-info');
    t.match(stranger, { exitCode: 3, stderr: /^vmdiskctl: .*16520|16521/ }, 'a certificate of another CA');
    const other = await ctl('--host', uri, ...as('other'), 'list-exports');
    t.match(other, { exitCode: 1, stderr: /NotAuthorized/ }, 'one without a role');
    t.match(await ctl('--host', uri, 'get-host-info'), { exitCode: 2, stderr: /--cert and --key/ });
  }
  const noCa = as('admin').slice(0, 4);
  t.match(await ctl('--host', `tls://${TLS}`, ...noCa, 'get-host-info'), {
    exitCode: 3,
    stderr: /certificate/,
  });
  for (const uri of ['http://127.0.0.1:1', 'tls://localhost', 'nonsense', 'https://a/b', 'unix://x/y']) {
    t.match(await ctl('--host', uri, 'get-host-info'), { exitCode: 2, stderr: /is none of unix:/ }, uri);
  }
});

t.test('where the daemon is, and what is done where it is not', async (t) => {
  writeFileSync(host.path('/run/other.toml'), '[rpc]\nsocket = "/run/elsewhere.sock"\n');
  const elsewhere = await ctl('--config', '/run/other.toml', 'list-exports');
  t.match(elsewhere, { exitCode: 3, stderr: /Cannot reach \/run\/elsewhere\.sock: .*Is vmdiskd running/ });
  writeFileSync(host.path('/run/broken.toml'), '[rpc\n');
  t.match(await ctl('--config', '/run/broken.toml', 'list-exports'), {
    exitCode: 2,
    stderr: /broken\.toml:1:/,
  });
  for (const uri of ['unix:///run/vmdiskd/vmdiskd.sock', '/run/vmdiskd/vmdiskd.sock']) {
    t.match(await ctl('--host', uri, 'list-exports'), { exitCode: 0 });
  }
  const env = { VMDISKCTL_HOST: '/run/nowhere.sock' };
  const named = await host.run(process.execPath, [PROGRAM, 'list-exports'], { env });
  t.match(named, { exitCode: 3, stderr: /nowhere\.sock/ });
  const nobody = await host.run(process.execPath, [PROGRAM, 'list-exports'], { user: 'nobody' });
  t.match(nobody, { exitCode: 3, stderr: /EACCES.*group/ });

  await daemon.kill();
  const patient = host.run(process.execPath, [PROGRAM, 'get-host-info', '--json', '--retry', '60']);
  daemon = await host.startDaemon(config);
  t.match(await patient, { exitCode: 0, stdout: /"apiVersion"/ }, '--retry goes on until it is there');

  const others =
    "const on = (path, say) => require('net').createServer(say).listen(path); on('/run/mute', () => {});" +
    "on('/run/other', (peer) => peer.end('220 mail\\n')); on('/run/short', (peer) => peer.end());";
  const servers = await host.spawn(process.execPath, ['-e', others]);
  await host.must('bash', ['-c', 'until [[ -S /run/short ]]; do sleep 0.1; done']);
  const told: [string, RegExp][] = [
    ['/run/mute', /has not answered listExports within 1 s \(--timeout\)/],
    ['/run/other', /what answers there is no vmdiskd \(220 mail\)/],
    ['/run/short', /connection to \/run\/short was lost/],
  ];
  for (const [path, words] of told) {
    t.match(await ctl('list-exports', '--host', path, '--timeout', '1'), { exitCode: 3, stderr: words });
  }
  await servers.kill();
  await servers.exited;
});

t.test('what it writes goes as far as it is read', async (t) => {
  const cut = `'${process.execPath}' '${PROGRAM}' rpc-discover --json | head -c 10; echo " \${PIPESTATUS[0]}"`;
  t.equal(await host.must('bash', ['-c', cut]), '{"openrpc" 0');
  t.match(readFileSync(PROGRAM, 'utf8'), /^#!\/usr\/bin\/env node\n/);
});
