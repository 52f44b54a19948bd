/** The program: what it says of a configuration that it cannot work with, and what it does at signals. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import t from 'tap';
import { apiInfo } from '../../agent/api/schemas.js';
import { askGateway } from '../../agent/gateway/status.js';
import { poll } from '../host/poll.js';
import { makePki } from '../tls/pki.js';

t.setTimeout(120_000);

const PROGRAM = fileURLToPath(new URL('../../dist/gateway.js', import.meta.url));
const dir = mkdtempSync('/tmp/vmd-gw-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

/** A configuration file with these lines of its own. */
function config(name: string, text: string): string {
  const file = join(dir, `${name}.toml`);
  writeFileSync(file, `[paths]\nrun = "${dir}/run"\n${text}\n`);
  return file;
}
const run = (...args: string[]) =>
  execa(process.execPath, [PROGRAM, ...args], { reject: false, timeout: 60_000 });

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

t.test('what is wrong is one line, and nothing is listened on', async (t) => {
  t.match(await run('--version'), { exitCode: 0, stdout: apiInfo.version });
  const listen = 'listen = ["127.0.0.1:10809"]'; // which it does not come to
  for (const [text, exitCode, stderr] of [
    ['', 2, /gateway\.listen is empty/],
    ['[gateway]\nlisten = ["10809"]', 2, /gateway\.listen\.0 is "10809"/],
    [
      '[gateway]\nlisten = ["127.0.0.1:0"]',
      2,
      /gateway\.listen\.0 is "127\.0\.0\.1:0"; allowed: a port from 1/,
    ],
    [
      `[gateway]\n${listen}\n[tls]\ncert = "/x"`,
      1,
      /\[tls\] key is not set: cert, key and clientCa go together/,
    ],
    [`[gateway]\n${listen}\n[tls]\ncert = "/x"\nkey = "/x"\nclientCa = "/x"`, 1, /ENOENT.*'\/x'/],
    ['[gateway]\nlisten = ["192.0.2.77:10809"]', 1, /EADDRNOTAVAIL/],
  ] as const) {
    const ran = await run('--config', config('bad', text));
    t.match(ran, { exitCode, stderr });
    t.equal(ran.stderr.split('\n').length, 1, ran.stderr);
  }
});

t.test('one a host; at a signal it reads its certificates again, or ends', async (t) => {
  const file = config('good', `[gateway]\nlisten = ["127.0.0.1:${await freePort()}"]`);
  const gateway = spawn(process.execPath, [PROGRAM, '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => gateway.kill('SIGKILL'));
  const exited = once(gateway, 'exit');
  let log = '';
  gateway.stdout.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const said = (words: string) => poll(words, 60_000, () => log.includes(words));
  await said('"msg":"ready"');
  t.match(await run('--config', file), { exitCode: 2, stderr: /another vmdiskd \(pid \d+\) works with/ });
  const status = await askGateway(join(dir, 'run'), { timeoutMs: 10_000 });
  t.match(status, { name: '127.0.0.1', x509: false, tlsHostname: null, loopback: null, exports: {} });
  gateway.kill('SIGHUP');
  await said('the certificates were read again');
  const { tls } = await makePki(join(dir, 'pki'));
  const lines = Object.entries(tls).map(([key, path]) => `${key} = "${path}"`);
  const before = readFileSync(file, 'utf8');
  config('good', `${before.replace(/^\[paths\]\nrun = .*\n/, '')}\n[tls]\n${lines.join('\n')}`);
  gateway.kill('SIGHUP');
  const named = async () => (await askGateway(join(dir, 'run'), { timeoutMs: 10_000 })).x509;
  await poll('certificates that were not named before', 60_000, named);
  writeFileSync(file, '[tls');
  gateway.kill('SIGHUP');
  await said('all of it stays as it was: ');
  t.ok(await named());
  const client = connect(status.port, '127.0.0.1');
  client.resume();
  await once(client, 'data');
  gateway.kill('SIGTERM');
  await once(client, 'close');
  t.strictSame(await exited, [0, null]);
  await t.rejects(askGateway(join(dir, 'run'), { timeoutMs: 10_000 }), { code: /ENOENT|ECONNREFUSED/ });
});
