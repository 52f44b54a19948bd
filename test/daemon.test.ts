/** The daemon as a program: its options, its start without libvirt, and its socket under attack. Needs root. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'smol-toml';
import t from 'tap';
import { failureOf, MiB, prepare, refused, remains, verb } from './exports/rig.js';
import type { RpcConnection } from './host/daemon.js';
import { type Host, type RunResult, startHost } from './host/host.js';
import { poll } from './host/poll.js';
import { type Answer, LineClient } from './rpc/line-client.js';

t.setTimeout(600_000);

/** A second is what getHostInfo is promised in; this machine may have a dozen other things to do. */
const PROMISE_MS = 10_000;
const PROGRAM = fileURLToPath(new URL('../dist/daemon.js', import.meta.url));
let host: Host;

t.before(async () => {
  host = await startHost(t);
});

const vmdiskd = (...args: string[]): Promise<RunResult> => host.run(process.execPath, [PROGRAM, ...args]);

/** A configuration file inside the host. */
function configFile(name: string, text: string): string {
  writeFileSync(host.path(`/run/${name}`), text);
  return `/run/${name}`;
}

t.test('--help, --version, --check-config, --show-config', async (t) => {
  const help = await vmdiskd('--help');
  t.equal(help.exitCode, 0);
  for (const option of ['--config <file>', '--check-config', '--show-config', '--version']) {
    t.ok(help.stdout.includes(option), option);
  }
  const version = await vmdiskd('--version');
  t.match(version, { exitCode: 0, stdout: /^\d+\.\d+\.\d+$/ });
  t.match(await vmdiskd('--no-such-option'), { exitCode: 1, stderr: /unknown option '--no-such-option'/ });

  const good = configFile('good.toml', '[limits]\nexports = 7\n[images]\nallowedRoots = ["/srv"]\n');
  t.match(await vmdiskd('--check-config', '--config', good), { exitCode: 0, stdout: /in order/, stderr: '' });
  const shown = await vmdiskd('--show-config', '--config', good);
  t.equal(shown.exitCode, 0);
  t.match(parse(shown.stdout), {
    limits: { exports: 7, clients: 64 },
    images: { allowedRoots: ['/srv'] },
    rpc: { socket: '/run/vmdiskd/vmdiskd.sock' },
  });
  const whole = configFile('whole.toml', shown.stdout);
  t.equal((await vmdiskd('--show-config', '--config', whole)).stdout, shown.stdout, 'what it shows it takes');
  t.match(await vmdiskd('--check-config'), { exitCode: 0 }, 'without any file all defaults hold');

  const bad = configFile('bad.toml', '[limits]\nexports = "many"\n[rpc]\nsokket = "/x"\n');
  for (const how of ['--check-config', '--show-config', undefined]) {
    const result = await vmdiskd('--config', bad, ...(how === undefined ? [] : [how]));
    t.match(result, { exitCode: 2, stdout: '' }, `${how}`);
    t.match(result.stderr, /^vmdiskd: .*bad\.toml/);
    t.match(result.stderr, /limits.*exports/);
    t.match(result.stderr, /sokket/);
  }
  t.match(await vmdiskd('--config', '/run/none.toml'), { exitCode: 2, stderr: /none\.toml.*cannot be read/ });
  t.match(await vmdiskd('--config', configFile('torn.toml', '[limits')), {
    exitCode: 2,
    stderr: /torn\.toml:1:/,
  });
});

t.test('without libvirt it starts, says so, and finds it later', async (t) => {
  await host.killLibvirtd('SIGTERM');
  const daemon = await host.startDaemon();
  const info = await verb(daemon, 'getHostInfo', {});
  t.match(info, {
    versions: { libvirt: null, qemu: null, qemuNbd: /^\d/, node: process.versions.node },
    capabilities: { libvirt: { uri: 'qemu:///system', connected: false } },
  });
  await refused(
    t,
    host,
    'LibvirtUnavailable',
    () => verb(daemon, 'listDisks', { vmId: 'x' }),
    /see that libvirtd/,
  );
  t.strictSame(await verb(daemon, 'listExports', {}), { exports: [] });
  await host.startLibvirtd();
  await poll('libvirt to be found', 30_000, async () => {
    return (await verb(daemon, 'getHostInfo', {})).versions.qemu !== null;
  });
  const found = await verb(daemon, 'getHostInfo', {});
  const told = await host.virsh('version');
  t.match(told, `library: libvirt ${found.versions.libvirt}`);
  t.match(told, `hypervisor: QEMU ${found.versions.qemu}`);
  t.match(await host.must('qemu-nbd', ['--version']), `qemu-nbd ${found.versions.qemuNbd}`);
  t.match(found, {
    hostId: /^[0-9a-f]{32}$/,
    capabilities: { libvirt: { connected: true }, qemu: { bitmaps: true, allocationDepth: true } },
    limits: { clients: 64, frameBytes: MiB, batch: 100, exports: 256, connections: 8, inlineExtents: 10_000 },
  });
  t.equal(found.limits.deadlineSeconds.prepareBackupDisk, 120);
  t.equal(found.hostId, info.hostId);
  t.notMatch(
    JSON.stringify(found),
    (await host.must('cat', ['/etc/machine-id'])).trim(),
    'not the machine id itself',
  );

  const { methods } = await daemon.call<{ methods: { name: string }[] }>('rpc.discover');
  const names = methods.map(({ name }) => name);
  for (const name of [
    'prepareBackupDisk',
    'teardownBackupDisk',
    'hotplugDisk',
    'getHostInfo',
    'rpc.discover',
  ]) {
    t.ok(names.includes(name), name);
  }
  for (const name of names) {
    // Each verb that it tells of is there: what it refuses are the params.
    const answer = await daemon.call(name, { noSuchMember: 1 }).catch((error: unknown) => error);
    t.match(answer, { code: -32602 }, name);
  }

  await daemon.kill('SIGTERM');
  t.match(await daemon.process.exited, { exitCode: 0, stderr: '' });
  const lines = daemon
    .log()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(lines.at(-1), { level: 'info', msg: /^stopping/ });
  t.equal((await host.run('test', ['-e', '/run/vmdiskd/vmdiskd.sock'])).exitCode, 1, 'its socket is gone');
});

/** Asks for getHostInfo again and again on a connection of its own; how often it was answered, and the longest wait. */
function keepAsking(connection: RpcConnection): { stop(): Promise<{ answers: number; longestMs: number }> } {
  let going = true;
  let answers = 0;
  let longestMs = 0;
  const asking = (async () => {
    while (going) {
      const started = performance.now();
      await connection.call('getHostInfo', {}, { timeoutMs: PROMISE_MS });
      longestMs = Math.max(longestMs, performance.now() - started);
      answers += 1;
    }
  })();
  asking.catch(() => {}); // told at `stop`
  return {
    stop: async () => {
      going = false;
      await asking;
      return { answers, longestMs };
    },
  };
}

t.test('under attack it answers everybody else', async (t) => {
  const daemon = await host.startDaemon();
  t.teardown(() => daemon.kill());
  const image = await host.createImage({ name: 'a.qcow2', format: 'qcow2', size: MiB });
  const kept = await prepare(daemon, { exportId: 'kept', path: image, format: 'qcow2' });
  const attack = async (name: string, work: (client: LineClient) => Promise<void>): Promise<void> => {
    const asking = keepAsking(await daemon.connect());
    const client = await LineClient.connect(host.daemonSocket);
    try {
      await work(client);
    } finally {
      client.destroy();
    }
    const { answers, longestMs } = await asking.stop();
    t.ok(answers > 0, `${name}: ${answers} answers meanwhile, the longest after ${longestMs.toFixed(0)} ms`);
  };

  await attack('16 MiB of garbage', async (client) => {
    client.send(randomBytes(16 * MiB));
    const answers = await client.untilEnd();
    t.ok(answers.length > 0 && answers.length <= 101, `${answers.length} answers, then it is put out`);
    t.match(answers[0], { error: { code: /-32700|-32600/ } });
  });
  await attack('16 MiB of garbage in one frame', async (client) => {
    client.send('x'.repeat(16 * MiB));
    const answers = await client.untilEnd();
    t.match(answers, [{ id: null, error: { code: -32600, message: /1048576/ } }], 'one answer');
    t.equal(answers.length, 1);
  });
  await attack('a frame without an end', async (client) => {
    client.send('{"jsonrpc":"2.0","id":1,"method":"getHostInfo","params":{"x":"');
    for (let i = 0; i < 20; i++) {
      client.send('y'.repeat(1000));
      await verb(daemon, 'getExport', { exportId: 'kept' });
    }
    t.notOk(client.ended, 'half a frame may wait');
  });
  await attack('a batch of 10,000', async (client) => {
    const call = { jsonrpc: '2.0', method: 'getHostInfo' };
    client.sendMessage(Array.from({ length: 10_000 }, (_, id) => ({ ...call, id })));
    const refusal = await client.nextAnswer();
    t.match(refusal, { id: null, error: { code: -32600, message: /100/ } }, 'refused in one answer');
    client.sendMessage({ ...call, id: 'after' });
    t.match(
      await client.nextAnswer(),
      { id: 'after', result: { apiVersion: /\d/ } },
      'and the client may go on',
    );
    client.sendMessage(Array.from({ length: 100 }, (_, id) => ({ ...call, id })));
    const whole = (await client.next((message) => Array.isArray(message))) as Answer[];
    t.equal(
      whole.filter(({ result }) => result !== undefined).length,
      100,
      'as does a batch that is allowed',
    );
  });
  const ids = Array.from({ length: 8 }, (_, i) => `left-${i}`);
  const left = (exportId: string) => ({ exportId, path: image, format: 'qcow2' }) as const;
  await attack('clients that leave in mid-call', async () => {
    for (const [i, id] of [...ids, ...ids].entries()) {
      const leaver = await daemon.connect();
      const message = { jsonrpc: '2.0', id: 1, method: 'prepareBackupDisk', params: left(id) };
      leaver.socket.write(`${JSON.stringify(message)}\n`);
      // Some before the call has been read, some after.
      if (i % 2) await verb(daemon, 'listExports', {});
      leaver.close();
    }
  });
  await attack('a notification', async (client) => {
    client.sendMessage({ jsonrpc: '2.0', method: 'teardownBackupDisk', params: { exportId: 'kept' } });
    const { result } = await client.call('getExport', { exportId: 'kept' });
    t.match(result, { state: 'ready' }, 'changes nothing');
  });
  t.equal((await failureOf(daemon.call('no-such-verb'))).code, -32601);
  t.strictSame(await prepare(daemon, left('kept')), kept, 'nothing has suffered');
  t.match(
    await Promise.all(ids.map((id) => prepare(daemon, left(id)))),
    ids.map((exportId) => ({ exportId })),
  );
  await Promise.all(['kept', ...ids].map((exportId) => verb(daemon, 'teardownBackupDisk', { exportId })));
  t.strictSame(await remains(host), []);
});
