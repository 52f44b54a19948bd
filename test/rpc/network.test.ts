/** JSON-RPC on the network: TLS lines, HTTPS, WebSockets; who gets in, and what happens to who does not. */
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { connect as connectPlain, type Socket } from 'node:net';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { execa } from 'execa';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import type { Identity } from '../../agent/access/identity.js';
import { RoleTable } from '../../agent/access/role-table.js';
import { configFrom } from '../../agent/config/config.js';
import { AgentError } from '../../agent/errors.js';
import { createLog } from '../../agent/log.js';
import type { NetworkAddresses } from '../../agent/rpc/network.js';
import { createRpcServer, type RpcServerOptions } from '../../agent/rpc/server.js';
import { poll } from '../host/poll.js';
import { makePki, type Pki } from '../tls/pki.js';
import { LineClient } from './line-client.js';

// A busy machine takes longer than tap's 30 s for all of them.
t.setTimeout(120_000);

const dir = mkdtempSync('/tmp/vmd-rpc-net-');
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
let pki: Pki;
t.before(async () => {
  pki = await makePki(join(dir, 'pki'));
});

const { limits } = configFrom({});
const ROLES = ['appliance', 'admin'].map((name) => ({
  ...{ identity: `dns:${name}.example`, role: 'admin' as const, vms: [] },
}));

interface Started {
  ports: Record<'tls' | 'https' | 'wss', number>;
  lines: Record<string, unknown>[];
  /** What the verb saw of who calls. */
  callers: Identity[];
  reload(): void;
  close(timeoutSeconds?: number): Promise<boolean>;
}

const ANY = ['127.0.0.1:0'];

async function start(
  t: Test,
  options: Partial<RpcServerOptions> = {},
  tls: object = {},
  addresses: NetworkAddresses = { tls: ANY, https: ANY, wss: ANY },
): Promise<Started> {
  const lines: Started['lines'] = [];
  const callers: Identity[] = [];
  const out = new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const line of chunk.toString().trim().split('\n')) lines.push(JSON.parse(line));
      done();
    },
  });
  const server = createRpcServer({
    verbs: {
      listJobs: async (_params, { identity }) => {
        callers.push(identity);
        return { jobs: [] };
      },
      waitEvents: (_params, { callerEnded }) =>
        new Promise((resolve) => {
          const answer = { journal: 'j', events: [], next: 1, gap: null };
          callerEnded.addEventListener('abort', () => resolve(answer));
        }),
    },
    limits,
    log: createLog({ level: 'debug', journal: false, out }),
    ...options,
  });
  const roles = new RoleTable(ROLES);
  const listeners = await server.listenNetwork({
    addresses,
    certificates: { crl: '', ...pki.tls, ...tls },
    identify: (identities) => roles.callerOf(identities),
  });
  t.teardown(() => server.close({ timeoutSeconds: 1 }));
  const port = (text = '') => Number(text.slice(text.lastIndexOf(':') + 1));
  const { addresses: at, reload } = listeners;
  return {
    ports: { tls: port(at.tls[0]), https: port(at.https[0]), wss: port(at.wss[0]) },
    lines,
    callers,
    reload,
    close: (timeoutSeconds = 10) => server.close({ timeoutSeconds }),
  };
}

function credentials(name: string): ConnectionOptions {
  const read = (file: string) => readFileSync(join(pki.client(name), file));
  return {
    ca: read('ca-cert.pem'),
    cert: read('client-cert.pem'),
    key: read('client-key.pem'),
    host: '127.0.0.1',
  };
}

async function lineClient(port: number, options: ConnectionOptions): Promise<LineClient> {
  const socket = connect({ ...options, port });
  await once(socket, 'secureConnect');
  return LineClient.over(socket);
}

interface HttpAnswer {
  status: number;
  body: string;
}

function post(
  port: number,
  body: string,
  { method = 'POST', path = '/', type = 'application/json', as = 'appliance' } = {},
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': type };
    const sent = request({ ...credentials(as), port, method, path, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    sent.on('error', reject).end(body);
  });
}

const CALL = { jsonrpc: '2.0', id: 1, method: 'listJobs', params: {} };
const JOB = '7d444840-9dc0-11d1-b245-5ffdce74fad2';
const ANSWER = { jsonrpc: '2.0', id: 1, result: { jobs: [] } };
const refusals = ({ lines }: Started) => lines.filter(({ msg }) => msg === 'a client was refused');

/** Resolves when the server has ended it. */
const ended = (socket: Socket) =>
  new Promise<void>((resolve) =>
    socket
      .on('error', () => {})
      .on('close', () => resolve())
      .resume(),
  );

t.test(
  'the same answers in each framing, TLS 1.3 and 1.2, and the identity of the certificate',
  async (t) => {
    const server = await start(t);
    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      const client = await lineClient(server.ports.tls, { ...credentials('appliance'), maxVersion });
      t.equal((client.socket as TLSSocket).getProtocol(), maxVersion);
      t.strictSame((await client.call('listJobs', {})).result, { jobs: [] });
      client.destroy();
    }
    const { status, body } = await post(server.ports.https, JSON.stringify(CALL));
    t.strictSame([status, JSON.parse(body)], [200, ANSWER]);
    const batch = await post(server.ports.https, JSON.stringify([CALL, { ...CALL, id: 2 }]));
    t.equal(JSON.parse(batch.body).length, 2);
    const webSocket = new WebSocket(`wss://127.0.0.1:${server.ports.wss}/`, credentials('appliance'));
    await once(webSocket, 'open');
    webSocket.send(JSON.stringify(CALL));
    t.strictSame(JSON.parse(String((await once(webSocket, 'message'))[0])), ANSWER);
    webSocket.send('{');
    t.match(JSON.parse(String((await once(webSocket, 'message'))[0])), { error: { code: -32700 } });
    webSocket.close();
    await once(webSocket, 'close');
    t.equal(server.callers.length, 6);
    t.ok(
      server.callers.every(({ name, kind }) => name === 'dns:appliance.example' && kind === 'certificate'),
    );
    t.match(
      server.lines.filter(({ verb }) => verb === 'listJobs').map(({ identity }) => identity),
      Array(6).fill('dns:appliance.example'),
    );
  },
);

t.test('curl, as an engine developer would', async (t) => {
  const { ports } = await start(t);
  const { stdout } = await execa('curl', [
    ...pki.curl('appliance'),
    ...['-d', JSON.stringify(CALL), `https://localhost:${ports.https}/`],
  ]);
  t.strictSame(JSON.parse(stdout), ANSWER);
});

t.test('a role-less certificate is told how it is called here', async (t) => {
  const authorize: RpcServerOptions['authorize'] = async (_name, _params, { name, grants }) => {
    if (grants.length === 0) throw new AgentError('NotAuthorized', `no role for ${name}`);
  };
  const { ports } = await start(t, { authorize });
  const client = await lineClient(ports.tls, credentials('other'));
  const { error } = await client.call('listJobs', {});
  t.match(error, { data: { name: 'NotAuthorized' }, message: /dns:other\.example/ });
  client.destroy();
});

t.test('who is not let in has one line in the log, and nobody else is disturbed', async (t) => {
  const server = await start(t, { edge: { handshakes: 8, handshakeSeconds: 2 } });
  const { ports } = server;
  const steady = await lineClient(ports.tls, credentials('appliance'));
  const tries: [what: string, options: ConnectionOptions, reason: RegExp][] = [
    ['another CA', credentials('stranger'), /handshake failed/],
    [
      'no certificate',
      { ca: credentials('appliance').ca, host: '127.0.0.1' } as ConnectionOptions,
      /handshake failed/,
    ],
    [
      'old TLS',
      {
        ...credentials('appliance'),
        minVersion: 'TLSv1.1',
        maxVersion: 'TLSv1.1',
        ciphers: 'DEFAULT:@SECLEVEL=0',
      },
      /handshake failed: ERR_SSL_UNSUPPORTED_PROTOCOL/,
    ],
  ];
  for (const [what, options, reason] of tries) {
    for (const port of Object.values(ports)) {
      const before = refusals(server).length;
      await ended(connect({ ...options, port }));
      await poll(`a line on ${what}`, 10_000, () => refusals(server).length > before);
      t.match(refusals(server).slice(before), [{ reason }], what);
    }
  }
  const plain = connectPlain(ports.tls, '127.0.0.1');
  plain.write(`${JSON.stringify(CALL)}\n`);
  await ended(plain);
  const silent = Array.from({ length: 40 }, () => connectPlain(ports.tls, '127.0.0.1'));
  await Promise.all(silent.map(ended));
  t.strictSame((await steady.call('listJobs', {})).result, { jobs: [] }, 'who was there goes on');
  const late = await lineClient(ports.tls, credentials('appliance'));
  t.strictSame((await late.call('listJobs', {})).result, { jobs: [] }, 'and others come in');
  for (const client of [steady, late]) client.destroy();
});

t.test('HTTP that is not a call is refused by a sentence', async (t) => {
  const { ports } = await start(t);
  const text = JSON.stringify(CALL);
  for (const [options, status] of [
    [{ method: 'GET' }, 405],
    [{ path: '/rpc' }, 404],
    [{ type: 'text/plain' }, 415],
  ] as const) {
    const answer = await post(ports.https, options.method === 'GET' ? '' : text, options);
    t.equal(answer.status, status);
    t.match(answer.body, /^.+\.\n$/);
  }
  const long = await post(ports.https, ' '.repeat(limits.frameBytes + 1)).catch((error: Error) => error);
  if (!(long instanceof Error)) t.equal(long.status, 413);
  t.match(JSON.parse((await post(ports.https, '{')).body), { error: { code: -32700 } });
  t.equal((await post(ports.https, JSON.stringify({ jsonrpc: '2.0', method: 'listJobs' }))).status, 204);
  t.equal((await post(ports.https, text)).status, 200);
});

t.test('a WebSocket message that is too long or binary closes it', async (t) => {
  const { ports } = await start(t);
  for (const [data, code] of [
    ['x'.repeat(limits.frameBytes + 1), 1009],
    [Buffer.from('{}'), 1003],
  ] as const) {
    const webSocket = new WebSocket(`wss://127.0.0.1:${ports.wss}/`, credentials('appliance'));
    await once(webSocket, 'open');
    webSocket.send(data);
    t.equal((await once(webSocket, 'close'))[0], code);
  }
});

t.test('other certificates, for who comes from now on; a CRL', async (t) => {
  const [cert, key] = ['own-cert.pem', 'own-key.pem'].map((name) => join(dir, name));
  copyFileSync(pki.tls.cert, cert as string);
  copyFileSync(pki.tls.key, key as string);
  const crl = await pki.revoke();
  const server = await start(t, {}, { cert, key, crl });
  const { ports } = server;
  const old = await lineClient(ports.tls, credentials('appliance'));
  const revoked = await lineClient(ports.tls, credentials('other'));
  await pki.revoke('other');
  const serial = (client: LineClient) => (client.socket as TLSSocket).getPeerCertificate().serialNumber;
  copyFileSync(join(pki.client('appliance'), 'client-cert.pem'), cert as string);
  t.throws(() => server.reload(), /key/i, 'a pair that does not fit is refused');
  copyFileSync(join(pki.client('appliance'), 'client-key.pem'), key as string);
  server.reload();
  const fresh = await lineClient(ports.tls, { ...credentials('appliance'), rejectUnauthorized: false });
  t.not(serial(fresh), serial(old), 'the new one is shown');
  for (const client of [old, fresh, revoked]) t.ok((await client.call('listJobs', {})).result);
  await ended(connect({ ...credentials('other'), port: ports.tls, rejectUnauthorized: false }));
  t.match(refusals(server).at(-1), { reason: /CERT_REVOKED|certificate revoked|handshake failed/i });
  for (const client of [old, fresh, revoked]) client.destroy();
});

const UPGRADE = [
  'GET / HTTP/1.1',
  'host: x',
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  `sec-websocket-key: ${Buffer.alloc(16).toString('base64')}`,
];

t.test('one client too many that asks in the flight of its handshake ends itself alone', async (t) => {
  const server = await start(t, { limits: { ...limits, clients: 1 }, edge: { guests: 0 } });
  const steady = await lineClient(server.ports.tls, credentials('appliance'));
  const ask = { https: 'POST / HTTP/1.1\r\nhost: x\r\n\r\n', wss: `${UPGRADE.join('\r\n')}\r\n\r\n` };
  for (const framing of ['https', 'wss'] as const) {
    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      const socket = connect({ ...credentials('appliance'), maxVersion, port: server.ports[framing] });
      socket.write(ask[framing]); // sent with the last message of the handshake
      await ended(socket);
    }
  }
  t.match(refusals(server), Array(4).fill({ reason: /1 clients are connected, which is the limit/ }));
  t.strictSame((await steady.call('listJobs', {})).result, { jobs: [] });
  steady.destroy();
});

t.test(
  'one client too many is told so in each framing, and what this host is, for some seconds',
  async (t) => {
    const getHostInfo = async () => ({ state: 'ready' }) as never;
    const listJobs = async () => ({ jobs: [] });
    const { ports } = await start(t, {
      verbs: { getHostInfo, listJobs },
      limits: { ...limits, clients: 1 },
      edge: { guests: 4, guestSeconds: 2 },
    });
    const steady = await lineClient(ports.tls, credentials('appliance'));
    const limit = {
      error: { code: 5018, message: /1 clients are connected/, data: { name: 'LimitReached' } },
    };
    const info = { ...CALL, method: 'getHostInfo' };

    const line = await lineClient(ports.tls, credentials('appliance'));
    t.match(await line.call('listJobs', {}), limit);
    t.match(await line.call('getHostInfo', {}), { result: { state: 'ready' } });
    t.match(JSON.parse((await post(ports.https, JSON.stringify(CALL))).body), limit);
    t.match(JSON.parse((await post(ports.https, JSON.stringify(info))).body), { result: { state: 'ready' } });
    const webSocket = new WebSocket(`wss://127.0.0.1:${ports.wss}/`, credentials('appliance'));
    await once(webSocket, 'open');
    for (const [call, answer] of [
      [CALL, limit],
      [info, { result: { state: 'ready' } }],
    ] as const) {
      webSocket.send(JSON.stringify(call));
      t.match(JSON.parse(String((await once(webSocket, 'message'))[0])), answer);
    }
    await ended(connect({ ...credentials('appliance'), port: ports.tls })); // half the guests are one caller's
    await Promise.all([ended(line.socket), once(webSocket, 'close')]);
    t.match(await steady.call('listJobs', {}), { result: { jobs: [] } }, 'who has a place keeps it');
    steady.destroy();
  },
);

t.test('one identity takes no more places than its share, in whatever framing, and is told so', async (t) => {
  const getHostInfo = async () => ({ state: 'ready' }) as never;
  const server = await start(t, {
    verbs: { getHostInfo, listJobs: async () => ({ jobs: [] }) },
    limits: { ...limits, clients: 4, clientsPerIdentity: 2 },
    edge: { guests: 4, guestSeconds: 1 },
  });
  const { ports } = server;
  const own = await Promise.all([
    lineClient(ports.tls, credentials('appliance')),
    kept(ports.https).then(LineClient.over),
  ]);
  const told =
    /2 clients of dns:appliance\.example are connected, which is the limit for one identity; .*clientsPerIdentity/;
  const limit = { error: { code: 5018, message: told, data: { name: 'LimitReached', retryable: true } } };
  const late = await lineClient(ports.tls, credentials('appliance'));
  t.match(await late.call('listJobs', {}), limit);
  t.match(await late.call('getHostInfo', {}), { result: { state: 'ready' } });
  t.match(JSON.parse((await post(ports.https, JSON.stringify(CALL))).body), limit);
  const others = await Promise.all([1, 2].map(() => lineClient(ports.tls, credentials('admin'))));
  for (const other of others) t.match(await other.call('listJobs', {}), { result: { jobs: [] } });
  await ended(late.socket);
  own[0]?.destroy();
  await poll('its place to be free', 10_000, async () => {
    const { body } = await post(ports.https, JSON.stringify(CALL));
    return JSON.parse(body).result !== undefined;
  });
  for (const client of [...own, ...others]) client.destroy();
});

t.test('certificates without a role take no places from others, and keep none', async (t) => {
  const { ports } = await start(t, {
    limits: { ...limits, clients: 1 },
    edge: { guests: 4, guestSeconds: 1 },
  });
  const others = await Promise.all(
    Array.from({ length: 2 }, () => lineClient(ports.tls, credentials('other'))),
  );
  await ended(connect({ ...credentials('other'), port: ports.tls }));
  const client = await lineClient(ports.tls, credentials('appliance'));
  t.match(await client.call('listJobs', {}), { result: { jobs: [] } });
  await Promise.all(others.map(({ socket }) => ended(socket)));
  client.destroy();
});

t.test('who comes from one port to two addresses is two in their handshakes', async (t) => {
  const free = await start(t, {}, {}, { tls: ANY, https: [], wss: [] });
  const port = free.ports.tls;
  await free.close();
  const tls = [`127.0.0.1:${port}`, `127.0.0.2:${port}`];
  await start(t, { edge: { handshakeSeconds: 1 } }, {}, { tls, https: [], wss: [] });
  const from = { port, localAddress: '127.0.0.1' };
  const first = connectPlain({ ...from, host: '127.0.0.1' });
  await once(first, 'connect');
  const silent = connectPlain({ ...from, host: '127.0.0.2', localPort: first.localPort as number });
  await once(silent, 'connect');
  await setTimeout(200);
  const secure = connect({ ...credentials('appliance'), socket: first });
  await once(secure, 'secureConnect');
  await ended(silent);
  await setTimeout(1000);
  const client = LineClient.over(secure);
  t.match(await client.call('listJobs', {}), { result: { jobs: [] } });
  client.destroy();
});

/** An HTTPS connection that is kept after its first answer. */
async function kept(port: number): Promise<TLSSocket> {
  const socket = connect({ ...credentials('appliance'), port });
  const body = JSON.stringify(CALL);
  const head = [
    'POST / HTTP/1.1',
    'host: x',
    'content-type: application/json',
    `content-length: ${body.length}`,
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n${body}`);
  t.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 200 /);
  return socket;
}

t.test('an HTTPS connection that asks for nothing more, or never ends its question, is ended', async (t) => {
  const { ports } = await start(t, { edge: { stallSeconds: 1 } });
  const idle = await kept(ports.https);
  const slow = await kept(ports.https);
  const head = await kept(ports.https);
  slow.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');
  head.write('POST / HTT');
  await Promise.all([idle, slow, head].map(ended));
});

const H2C = [
  'POST / HTTP/1.1',
  'host: x',
  'connection: upgrade',
  'upgrade: h2c',
  'content-length: 0',
  '',
  '',
];

t.test(
  'an upgrade to what is not spoken here is answered, and keeps neither its place nor the end',
  async (t) => {
    const server = await start(t, {}, {}, { tls: [], https: ['localhost:0'], wss: ANY });
    for (const [framing, status] of [
      ['https', /^HTTP\/1\.1 415 /],
      ['wss', /^HTTP\/1\.1 405 /],
    ] as const) {
      const socket = connect({ ...credentials('appliance'), port: server.ports[framing] });
      socket.write(H2C.join('\r\n'));
      const answered = once(socket, 'data', { signal: AbortSignal.timeout(5000) });
      const [head] = await answered.catch(() => ['no answer']);
      t.match(String(head), status);
    }
    const closed = await Promise.race([server.close(1), setTimeout(5000, 'it waits')]);
    t.equal(closed, true);
  },
);

/** A server whose `listJobs` takes until `release`, and how many are at work. */
async function startBusy(t: Test, options: Partial<RpcServerOptions> = {}) {
  const busy = { now: 0, most: 0, release: () => {} };
  const released = new Promise<void>((resolve) => {
    busy.release = resolve;
  });
  const listJobs = async () => {
    busy.most = Math.max(busy.most, ++busy.now);
    await released;
    busy.now--;
    return { jobs: [] };
  };
  const server = await start(t, { verbs: { listJobs }, limits: { ...limits, verbs: 4096 }, ...options });
  return { ...server, busy };
}

t.test('of one WebSocket no more calls are at work than may be, and all are answered', async (t) => {
  const { ports, busy } = await startBusy(t);
  const webSocket = new WebSocket(`wss://127.0.0.1:${ports.wss}/`, credentials('appliance'));
  await once(webSocket, 'open');
  let answers = 0;
  webSocket.on('message', (data) => {
    answers += [JSON.parse(String(data))].flat().length;
  });
  const calls = 800;
  for (let id = 0; id < calls; id++) webSocket.send(JSON.stringify({ ...CALL, id }));
  webSocket.send(JSON.stringify(Array.from({ length: 20 }, (_, id) => ({ ...CALL, id }))));
  webSocket.send(JSON.stringify(Array.from({ length: 20 }, (_, id) => ({ ...CALL, id }))));
  await poll('calls at work', 10_000, () => busy.now >= 32);
  await setTimeout(500);
  t.equal(busy.now, 32);
  busy.release();
  await poll('all answers', 30_000, () => answers === calls + 40);
  t.ok(busy.most < 32 + 20, 'a batch counts as its calls');
  webSocket.terminate();
});

t.test('an HTTPS connection with more requests at work than may be is ended', async (t) => {
  const { ports, busy } = await startBusy(t);
  const socket = connect({ ...credentials('appliance'), port: ports.https });
  const body = JSON.stringify(CALL);
  const head = `POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
  socket.write(`${head}\r\n\r\n${body}`.repeat(200));
  await Promise.race([ended(socket), setTimeout(3000)]);
  t.ok(socket.destroyed);
  t.ok(busy.most <= 32, `${busy.most} at work`);
  busy.release();
});

t.test('of one HTTPS connection, too, a batch counts as its calls, and all are answered', async (t) => {
  const { ports, busy } = await startBusy(t);
  const socket = connect({ ...credentials('appliance'), port: ports.https });
  const body = JSON.stringify(Array.from({ length: 20 }, (_, id) => ({ ...CALL, id })));
  const head = `POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
  let text = '';
  socket.on('data', (data) => {
    text += data;
  });
  socket.write(`${head}\r\n\r\n${body}`.repeat(10));
  await poll('calls at work', 10_000, () => busy.now >= 40);
  await setTimeout(500);
  t.equal(busy.now, 40, 'the third waits for room');
  const other = await lineClient(ports.tls, credentials('appliance'));
  const answer = other.call('listJobs', {});
  await poll('a call of another connection', 10_000, () => busy.now === 41);
  busy.release();
  t.match(await answer, { result: { jobs: [] } });
  await poll('all answers', 30_000, () => text.split('"result"').length === 201);
  t.ok(busy.most <= 32 + 20 + 1, `${busy.most} at work`);
  for (const one of [socket, other]) one.destroy();
});

t.test('what waits for room on an HTTPS connection that has gone is not begun', async (t) => {
  const { ports, busy, callers } = await startBusy(t);
  const socket = connect({ ...credentials('appliance'), port: ports.https });
  const body = JSON.stringify(Array.from({ length: 32 }, (_, id) => ({ ...CALL, id })));
  const head = `POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
  socket.write(`${head}\r\n\r\n${body}`.repeat(3));
  await poll('calls at work', 10_000, () => busy.now === 32);
  socket.destroy();
  await setTimeout(500);
  busy.release();
  await setTimeout(500);
  t.equal(busy.most, 32);
  t.equal(busy.now, 0);
  t.strictSame(callers, []);
});

t.test('a WebSocket with as many calls at work as may be is not taken for dead', async (t) => {
  const { ports, busy, lines } = await startBusy(t, { edge: { stallSeconds: 1 } });
  const webSocket = new WebSocket(`wss://127.0.0.1:${ports.wss}/`, credentials('appliance'));
  await once(webSocket, 'open');
  for (let id = 0; id < 33; id++) webSocket.send(JSON.stringify({ ...CALL, id }));
  let answers = 0;
  webSocket.on('message', () => answers++);
  await setTimeout(3500);
  busy.release();
  await poll('all answers', 10_000, () => answers === 33);
  await setTimeout(2500);
  t.equal(webSocket.readyState, WebSocket.OPEN, 'nor afterwards');
  t.notOk(lines.some(({ msg }) => String(msg).includes('does not answer')));
  webSocket.terminate();
});

t.test('an address of WebSockets alone says so to others', async (t) => {
  const { ports } = await start(t, {}, {}, { tls: [], https: ['localhost:0'], wss: ANY });
  t.strictSame(await post(ports.wss, '{}'), { status: 426, body: 'JSON-RPC is over WebSockets here.\n' });
  t.equal((await post(ports.https, JSON.stringify(CALL))).status, 200);
});

t.test('the daemon ends: what is at work is answered, and no connection is waited for in vain', async (t) => {
  let release: (() => void) | undefined;
  const getJob = () =>
    new Promise<never>((_, reject) => {
      release = () => reject(new Error('let go'));
    });
  const server = await start(t, { verbs: { listJobs: async () => ({ jobs: [] }), getJob } });
  const { ports } = server;
  const client = await lineClient(ports.tls, credentials('appliance'));
  const webSocket = new WebSocket(`wss://127.0.0.1:${ports.wss}/`, credentials('appliance'));
  await once(webSocket, 'open');
  const long = post(ports.https, JSON.stringify({ ...CALL, method: 'getJob', params: { jobId: JOB } }));
  await poll('the call to be at work', 10_000, () => release !== undefined);
  const silent = connectPlain(ports.https, '127.0.0.1');
  await once(silent, 'connect');
  const others = [client.socket, silent, await kept(ports.https)].map(ended);
  const closed = server.close();
  await Promise.all([...others, once(webSocket, 'close')]);
  release?.();
  t.match(JSON.parse((await long).body), { id: 1, error: { code: -32603 } });
  t.ok(await closed);
  await t.rejects(post(ports.https, JSON.stringify(CALL)), { code: 'ECONNREFUSED' });
});

t.test('an address that is taken, a file that is not there', async (t) => {
  const { ports } = await start(t);
  const log = createLog({ level: 'fatal', journal: false });
  const server = createRpcServer({ verbs: {}, limits, log });
  const identify = () => new RoleTable([]).callerOf(new Set());
  const addresses = { tls: [`127.0.0.1:${ports.tls}`], https: [], wss: [] };
  const certificates = { crl: '', ...pki.tls };
  await t.rejects(
    server.listenNetwork({ addresses, certificates, identify }),
    /cannot listen on .*EADDRINUSE/,
  );
  const missing = { ...certificates, cert: '/nowhere.pem' };
  await t.rejects(server.listenNetwork({ addresses, certificates: missing, identify }), /nowhere\.pem/);
  await server.close();
});
