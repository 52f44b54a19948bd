/** Sockets that systemd opens, and what it is told: the daemon and the gateway under systemd's own tools. Needs root. */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'smol-toml';
import t from 'tap';
import { InheritedSockets } from '../../agent/host/inherited-sockets.js';
import { type Host, type Spawned, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';

t.setTimeout(400_000);

const program = (name: string): string => fileURLToPath(new URL(`../../dist/${name}.js`, import.meta.url));
const SOCKET = '/run/vmdiskd/vmdiskd.sock';
const METRICS = '/run/vmdiskd/metrics.sock';
let host: Host;
let pki: Pki;

t.before(async () => {
  host = await startHost(t, { libvirt: 'none' });
  pki = await makePki(join(host.dir, 'pki'));
  await host.must('mkdir', ['-p', '/run/vmdiskd']);
});

function configFile(config: object): string {
  writeFileSync(host.path('/run/service.toml'), stringify(config));
  return '/run/service.toml';
}

/** Opens sockets, and starts a program with them when somebody connects to the first: systemd-socket-activate(1). */
async function activated(
  name: string,
  config: object,
  sockets: [name: string, at: string][],
): Promise<Spawned> {
  const names = sockets.map(([fdName]) => fdName).join(':');
  const listen = sockets.flatMap(([, at]) => ['-l', at]);
  const args = [
    ...listen,
    `--fdname=${names}`,
    process.execPath,
    program(name),
    '--config',
    configFile(config),
  ];
  const started = await host.spawn('systemd-socket-activate', args);
  host.wrote(name, started.output);
  return started;
}

const ctl = (...args: string[]) => host.run(process.execPath, [program('cli/main'), ...args]);

t.test('the daemon serves on the sockets that it is given', async (t) => {
  const config = {
    rpc: { socket: SOCKET, tls: ['127.0.0.1:16520'], https: ['127.0.0.1:16521'] },
    roles: [{ identity: 'dns:admin.example', role: 'admin' }],
    metrics: { listen: METRICS },
    tls: pki.tls,
  };
  const daemon = await activated('daemon', config, [
    ['rpc', SOCKET],
    ['network', '127.0.0.1:16520'],
    ['network', '127.0.0.1:16521'],
    ['metrics', METRICS],
  ]);
  await poll('the socket', 30_000, async () => (await host.run('test', ['-S', METRICS])).exitCode === 0);
  const before = statSync(host.path(SOCKET)).ino;
  t.match(await ctl('--retry', '60', 'get-host-info'), { exitCode: 0, stdout: /apiVersion/ });
  t.match(daemon.output(), /listening on the socket of systemd/);
  const [cert = '', key = '', ca = ''] = ['client-cert', 'client-key', 'ca-cert'].map((file) =>
    join(pki.client('admin'), `${file}.pem`),
  );
  for (const uri of ['tls://127.0.0.1:16520', 'https://127.0.0.1:16521']) {
    const asked = await ctl('--host', uri, '--cert', cert, '--key', key, '--ca', ca, 'list-exports');
    t.match(asked, { exitCode: 0, stdout: 'None.' }, uri);
  }
  const curl = ['-sSf', '--max-time', '20', '--unix-socket', METRICS, 'http://localhost/metrics'];
  t.match(await host.must('curl', curl), /vmdiskd_verbs_total/);
  await daemon.kill();
  await daemon.exited;
  t.equal(
    statSync(host.path(SOCKET)).ino,
    before,
    'and leaves them to systemd: whoever comes next waits there',
  );
});

t.test('sockets that are not those of the configuration are named', async (t) => {
  const wrong: [config: object, sockets: [string, string][], told: RegExp][] = [
    [
      { rpc: { socket: '/run/vmdiskd/other.sock' } },
      [['rpc', SOCKET]],
      /systemd listens on .*vmdiskd\.sock, the configuration on .*other/,
    ],
    [
      {},
      [
        ['rpc', SOCKET],
        ['network', '127.0.0.1:16520'],
      ],
      /a socket "network" too many: .*daemon-reload/,
    ],
    [{ metrics: { listen: METRICS } }, [['rpc', SOCKET]], /no further socket "metrics": .*daemon-reload/],
  ];
  for (const [config, sockets, told] of wrong) {
    await host.must('rm', ['-f', SOCKET, METRICS]);
    const daemon = await activated('daemon', config, sockets);
    await poll('the socket', 30_000, async () => (await host.run('test', ['-S', SOCKET])).exitCode === 0);
    await ctl('--timeout', '5', 'get-host-info');
    t.match((await daemon.exited).stderr, told);
  }
});

t.test('systemd is told when they are ready, that they live, and when they stop', async (t) => {
  await host.must('rm', ['-f', SOCKET, METRICS]);
  const listener = `
import os, socket
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.bind('/run/notify')
while True: print(heard.recv(4096).decode(), flush=True)`;
  const systemd = await host.spawn('python3', ['-c', listener]);
  await poll(
    'the socket',
    30_000,
    async () => (await host.run('test', ['-S', '/run/notify'])).exitCode === 0,
  );
  const env = { NOTIFY_SOCKET: '/run/notify', WATCHDOG_USEC: '600000' };
  const settings: [string, object][] = [
    ['daemon', {}],
    ['gateway', { gateway: { listen: ['127.0.0.1:10809'] } }],
  ];
  for (const [name, config] of settings) {
    const from = systemd.output().length;
    const heard = (): string => systemd.output().slice(from);
    const run = await host.spawn(process.execPath, [program(name), '--config', configFile(config)], { env });
    await poll(`${name} to be ready`, 30_000, () => heard().includes('READY=1'));
    await poll('the watchdog', 30_000, () => heard().split('WATCHDOG=1').length > 3);
    await run.kill();
    t.equal((await run.exited).exitCode, 0);
    await poll('the end', 30_000, () => heard().includes('STOPPING=1'));
    t.match(heard(), new RegExp(`MAINPID=${run.pid}\\n`), 'of the process itself, and not of what tells');
    t.notMatch(run.output(), /could not be told/);
  }
  await systemd.kill();
  await systemd.exited;
});

t.test('the variables are for one process alone', async (t) => {
  const env = { LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' };
  t.equal(InheritedSockets.ofProcess({ ...env }, 8).take('a'), undefined, 'of another process');
  const own = { ...env };
  const sockets = InheritedSockets.ofProcess(own, 7);
  t.strictSame(own, {});
  t.equal(sockets.take('b'), 4);
  t.throws(() => sockets.take('b'), /no further socket "b"/);
  t.throws(() => sockets.assertAllTaken(), /a socket "a" too many/);
});
