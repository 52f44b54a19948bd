/** Who is not let in, and what each of them costs: one line of the log, and nobody else anything. Needs root. */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { configFrom } from '../../agent/config/config.js';
import { bootClock } from '../../agent/host/boot-clock.js';
import { beginLease } from '../../agent/host/lease.js';
import { Option, Reply } from '../../agent/nbd/constants.js';
import { encodeOption } from '../../agent/nbd/negotiation.js';
import { encodeExportName } from '../../agent/nbd/negotiation-data.js';
import { encodeRequest } from '../../agent/nbd/transmission.js';
import { poll } from '../host/poll.js';
import { connectPlain, goTo, greeted, replies, secured, withCertificate, withKey } from './raw-client.js';
import { client, KEY, makeRig, psk, type Rig, type RunningGateway } from './rig.js';

t.setTimeout(300_000);

const SIZE = 64 << 20;
let rig: Rig;
let gateway: RunningGateway;
let socket = '';

t.before(async () => {
  rig = await makeRig(t);
  gateway = await rig.gateway({ stallSeconds: 2, handshakes: 64, handshakeSeconds: 5 });
  const path = join(rig.dir, 'disk.raw');
  await client('qemu-img', 'create', '-q', '-f', 'raw', path, String(SIZE));
  await client('qemu-io', '-f', 'raw', '-c', `write -P 7 0 ${SIZE}`, path);
  socket = await rig.serve('disk', { driver: 'raw', file: { driver: 'file', filename: path } });
  const server = { socket, exportName: 'disk' };
  await rig.enter({ exportId: 'disk', access: psk('disk'), server });
  await rig.enter({ exportId: 'second', access: psk('second'), server });
  await rig.enter({
    exportId: 'certified',
    access: { type: 'x509', clients: ['dns:appliance.example'] },
    server,
  });
  await rig.enter({ exportId: 'local', access: { type: 'loopback' }, server });
});

/** One line of refusal, soon, that gives this reason. */
async function oneRefusal(t: Tap, reason: RegExp): Promise<void> {
  let found: ReturnType<Rig['refusals']> = [];
  await poll('the line of a refusal', 15_000, () => {
    found = [...found, ...rig.refusals()];
    return found.length > 0;
  });
  await sleep(50);
  found = [...found, ...rig.refusals()];
  t.equal(found.length, 1, 'one line');
  t.match(found[0]?.reason, reason);
}
type Tap = Pick<typeof t, 'equal' | 'match'>;

/** Whoever has the right key is served meanwhile. */
async function stillServes(t: Tap): Promise<void> {
  const uri = `nbds://disk@127.0.0.1:${gateway.port}/disk?tls-psk-file=${rig.pskFile('disk').file}`;
  t.match(await client('nbdinfo', '--size', uri), { ok: true, stdout: String(SIZE) });
}

const ended = (read: Promise<unknown>): Promise<boolean> =>
  read.then(
    () => false,
    () => true,
  );

t.test('a client without TLS is told that it is needed, whatever it asks', async (t) => {
  const connection = await greeted(gateway.port);
  for (const option of [
    encodeOption(Option.LIST),
    goTo('disk'),
    encodeOption(Option.STRUCTURED_REPLY),
    goTo('none'),
  ]) {
    connection.write(option);
    t.match(await replies(connection), [{ type: Reply.ERR_TLS_REQD }]);
  }
  connection.write(encodeOption(Option.ABORT));
  t.match(await replies(connection), [{ type: Reply.ACK }]);
  await oneRefusal(t, /without TLS/);

  const old = await greeted(gateway.port);
  old.write(encodeOption(Option.EXPORT_NAME, encodeExportName('disk')));
  t.ok(await ended(old.read(1)), 'this option can be refused in no other way');
  await oneRefusal(t, /"disk" by NBD_OPT_EXPORT_NAME without TLS/);

  t.notOk((await client('nbdinfo', `nbd://127.0.0.1:${gateway.port}/disk`)).ok);
  await oneRefusal(t, /without TLS/);
});

t.test('what does not speak the protocol', async (t) => {
  const http = await connectPlain(gateway.port);
  http.write('GET / HTTP/1.1\r\n\r\n');
  await oneRefusal(t, /flags/);
  const oldstyle = await greeted(gateway.port, 0);
  t.ok(await ended(oldstyle.read(1)));
  await oneRefusal(t, /fixed newstyle/);
  const oversized = await greeted(gateway.port);
  oversized.write(Buffer.from('49484156454f505400000003ffffffff', 'hex'));
  t.ok(await ended(oversized.read(1)), 'an option of 4 GiB is not waited for');
  await oneRefusal(t, /4294967295 bytes/);
  const injected = await greeted(gateway.port);
  injected.write(Buffer.concat([encodeOption(Option.STARTTLS), goTo('disk')]));
  t.ok(await ended(injected.read(1)), 'what comes in the clear after STARTTLS counts for nothing');
  await oneRefusal(t, /STARTTLS/);
  const endless = await greeted(gateway.port);
  const many = Buffer.concat(Array.from({ length: 2500 }, () => encodeOption(99)));
  endless.write(many);
  await oneRefusal(t, /more than 2000 options/);
  endless.socket.destroy();
  await stillServes(t);
});

t.test('old TLS, no certificate, the wrong CA, a key that is not the one', async (t) => {
  const trial = async (options: object, reason: RegExp) => {
    const over = await secured(gateway.port, { rejectUnauthorized: false, ...options }).then(
      ({ connection }) => {
        connection.write(goTo('disk'));
        return ended(connection.read(1));
      },
      () => true,
    );
    t.ok(over, 'cut');
    await oneRefusal(t, reason);
  };
  await trial(
    { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' },
    /TLS handshake failed: ERR_SSL_/,
  );
  await trial({}, /shows no certificate/);
  await trial(withCertificate(rig.pki.client('stranger')), /is not accepted: /);
  await trial({ ...withKey('disk', '00'.repeat(32)) }, /BINDER.*"disk"/);
  await trial({ ...withKey('disk', '00'.repeat(32)), maxVersion: 'TLSv1.2' }, /handshake failed.*"disk"/);
  await trial({ ...withKey('nobody', KEY) }, /shows no certificate.*"nobody"|handshake failed.*"nobody"/);
  await trial({ ...withKey('../../etc/passwd', KEY) }, /no certificate|handshake failed/);
  await stillServes(t);
});

t.test('an identity without its key opens nothing, also beside a certificate that is accepted', async (t) => {
  // OpenSSL lets a key go where the cipher needs another hash, and goes on with the certificate.
  const { connection } = await secured(gateway.port, {
    ...withKey('disk', '00'.repeat(32)),
    ...withCertificate(rig.pki.client('other')),
    ciphers: 'TLS_AES_256_GCM_SHA384',
  });
  connection.write(goTo('disk'));
  t.match(await replies(connection), [{ type: Reply.ERR_UNKNOWN }]);
  connection.socket.destroy();
  await oneRefusal(t, /no such export for it/);
});

t.test('the right credential for another export', async (t) => {
  const withTheKey = await secured(gateway.port, withKey('disk', KEY));
  for (const name of ['second', 'certified', 'local', 'nothing', '', '../disk']) {
    withTheKey.connection.write(goTo(name));
    const [reply, more] = await replies(withTheKey.connection);
    t.match(reply, { type: Reply.ERR_UNKNOWN }, name);
    t.equal(more, undefined);
    t.equal(String(reply?.data), `There is no export ${JSON.stringify(name)} for this client.`);
  }
  withTheKey.connection.write(goTo('disk'));
  t.equal((await replies(withTheKey.connection)).at(-1)?.type, Reply.ACK, 'and then its own');
  withTheKey.socket.destroy();
  t.strictSame(rig.refusals(), []);

  const other = await secured(gateway.port, withCertificate(rig.pki.client('other')));
  other.connection.write(encodeOption(Option.LIST));
  t.match(await replies(other.connection), [{ type: Reply.ACK }], 'it sees no export');
  other.connection.write(goTo('certified'));
  t.match(await replies(other.connection), [{ type: Reply.ERR_UNKNOWN }]);
  other.socket.destroy();
  await oneRefusal(t, /certified/);

  const guessing = await secured(gateway.port, withKey('disk', KEY));
  for (let count = 0; count < 40; count++) guessing.connection.write(goTo(`guess-${count}`));
  const answers = async () => {
    for (;;) await replies(guessing.connection);
  };
  t.ok(await ended(answers()), 'cut after a few');
  await oneRefusal(t, /guess-0/);
});

t.test('a TLS session cannot be taken up again', async (t) => {
  for (const options of [
    withKey('disk', KEY),
    withCertificate(rig.pki.client('appliance')),
    { ...withCertificate(rig.pki.client('appliance')), maxVersion: 'TLSv1.2' as const },
  ]) {
    const first = await secured(gateway.port, options);
    let session = first.socket.getSession();
    first.socket.on('session', (fresh) => {
      session = fresh;
    });
    first.connection.write(encodeOption(Option.LIST));
    await replies(first.connection);
    first.socket.destroy();
    if (session === undefined) continue;
    // Without what it was opened with.
    const { pskCallback: _, cert: __, key: ___, ...rest } = options as Record<string, unknown>;
    const again = await secured(gateway.port, { ...rest, session, rejectUnauthorized: false }).catch(
      () => undefined,
    );
    again?.connection.write(goTo('disk'));
    t.ok(again === undefined || (await ended(again.connection.read(1))), 'nothing is got by it');
    again?.socket.destroy();
    rig.refusals();
  }
});

t.test(
  'an export that is torn down, or whose lease ends: clients are cut at once, and none comes in',
  async (t) => {
    const clock = await bootClock();
    const server = { socket, exportName: 'disk' };
    await rig.enter({ exportId: 'short', access: psk('short'), server, lease: beginLease(clock, 3) });
    const connected = await secured(gateway.port, withKey('short', KEY));
    connected.connection.write(goTo('short'));
    t.equal((await replies(connected.connection)).at(-1)?.type, Reply.ACK);
    t.equal((await gateway.status()).exports.short?.clients, 1);
    t.ok(await ended(connected.connection.read(1)), 'cut when the lease ends, though no daemon runs');
    await oneRefusal(t, /lease has ended/);
    await secured(gateway.port, { ...withKey('short', KEY), rejectUnauthorized: false }).then(
      async ({ connection }) => t.ok(await ended(connection.read(1))),
      () => undefined,
    );
    await oneRefusal(t, /"short"/);

    await rig.enter({ exportId: 'gone', access: psk('gone'), server });
    const reader = await secured(gateway.port, withKey('gone', KEY));
    reader.connection.write(goTo('gone'));
    await replies(reader.connection);
    await rig.store.remove('gone');
    const { exports } = await gateway.status();
    t.strictSame(Object.keys(exports).includes('gone') && exports.gone?.clients !== 0, false);
    t.ok(await ended(reader.connection.read(1)));
    await oneRefusal(t, /torn down/);
  },
);

t.test('1,000 connections that say nothing', async (t) => {
  const idle: Socket[] = [];
  for (let count = 0; count < 1000; count++) idle.push(await connectPlain(gateway.port));
  await stillServes(t);
  const lines = rig.refusals();
  t.ok(lines.length <= 30, `${lines.length} lines, not one each`);
  t.match(lines[0]?.reason, /64 clients are in the middle of their handshakes/);
  await poll('the last of them to be dropped', 20_000, () => {
    for (const one of idle) one.resume();
    return idle.every(({ destroyed }) => destroyed);
  });
  rig.refusals();
});

t.test('a client that never reads is bounded, and dropped after a while', async (t) => {
  const { connection, socket: tls } = await secured(gateway.port, withKey('disk', KEY));
  connection.write(goTo('disk'));
  await replies(connection);
  connection.release().pause();
  rig.refusals();
  for (let offset = 0n; offset < BigInt(SIZE); offset += 1n << 20n) {
    tls.write(encodeRequest({ command: 0, cookie: offset, offset, length: 1n << 20n }, false));
  }
  await stillServes(t);
  const { sent } = (await gateway.status()).exports.disk ?? { sent: 0 };
  await oneRefusal(t, /taken nothing for 2 seconds/);
  t.ok(
    ((await gateway.status()).exports.disk?.sent ?? 0) <= sent + (16 << 20),
    'no more than the buffers were filled',
  );
  tls.destroy();
});

t.test('places: one more client than an export has them for is told so', async (t) => {
  await rig.enter({
    exportId: 'two',
    access: psk('two'),
    server: { socket, exportName: 'disk' },
    connections: 2,
  });
  const open = [];
  for (let count = 0; count < 3; count++) {
    const { connection, socket: tls } = await secured(gateway.port, withKey('two', KEY));
    connection.write(goTo('two'));
    open.push({ tls, last: (await replies(connection)).at(-1)?.type });
  }
  t.strictSame(
    open.map(({ last }) => last),
    [Reply.ACK, Reply.ACK, Reply.ERR_POLICY],
  );
  for (const { tls } of open) tls.destroy();
  await oneRefusal(t, /two has 2 clients/);
});

t.test('a server that is dead', async (t) => {
  await rig.enter({
    exportId: 'dead',
    access: psk('dead'),
    server: { socket: join(rig.dir, 'none.sock'), exportName: 'x' },
  });
  const { connection, socket: tls } = await secured(gateway.port, withKey('dead', KEY));
  connection.write(goTo('dead'));
  t.match(await replies(connection), [{ type: Reply.ERR_SHUTDOWN }]);
  tls.destroy();
  await oneRefusal(t, /server of dead fails/);
});

t.test('revocation lists are read again at SIGHUP, and who is connected stays', async (t) => {
  const own = await makeRig(t);
  const files = { ...own.pki.tls, crl: '' };
  const strict = await own.gateway({}, files);
  const server = { socket, exportName: 'disk' };
  const clients = ['dns:appliance.example', 'dns:other.example'];
  await own.enter({ exportId: 'disk', access: { type: 'x509', clients }, server });
  const come = async (name: string) => {
    const { connection } = await secured(strict.port, withCertificate(own.pki.client(name)));
    connection.write(goTo('disk'));
    return { connection, last: (await replies(connection)).at(-1)?.type };
  };
  const before = await come('other');
  t.equal(before.last, Reply.ACK);
  strict.reload(configFrom({ tls: { ...files, crl: await own.pki.revoke('other') } }));
  await t.rejects(come('other'));
  t.match(own.refusals(), [{ reason: /is not accepted: CERT_REVOKED/ }]);
  t.equal((await come('appliance')).last, Reply.ACK);
  before.connection.write(encodeRequest({ command: 0, cookie: 1n, offset: 0n, length: 512n }, false));
  t.equal((await before.connection.read(16 + 512)).length, 528, 'who is connected reads on');
});
