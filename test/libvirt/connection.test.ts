// What a broken, silent or hostile peer can do to the client, with a fake that speaks in bytes. client.test.ts has the
// real libvirtd.
import { mkdirSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { backoffMs } from '../../agent/libvirt/backoff.js';
import {
  AuthenticationError,
  CallTimeoutError,
  ConnectionLostError,
  connectLibvirt,
  type Domain,
  FramingError,
  findSocket,
  isStateLockTimeout,
  type LibvirtClient,
  type LibvirtOptions,
  MessageTooLargeError,
  NotConnectedError,
  XdrError,
} from '../../agent/libvirt/index.js';
import { poll } from '../host/poll.js';
import {
  dom,
  event,
  FakeLibvirtd,
  failure,
  message,
  Proc,
  type Received,
  reply,
  str,
  words,
} from './fake-libvirtd.js';

const WAIT_MS = 20_000;
const web1: Domain = { name: 'web1', uuid: '01010101-0101-0101-0101-010101010101', id: 1 };
const db1: Domain = { name: 'db1', uuid: '02020202-0202-0202-0202-020202020202', id: 2 };

/** A client on the fake, up; both end with the test. */
async function setUp(
  t: Test,
  options: LibvirtOptions = {},
  prepare: (fake: FakeLibvirtd) => void = () => {},
): Promise<{ fake: FakeLibvirtd; client: LibvirtClient }> {
  const fake = new FakeLibvirtd(t);
  prepare(fake);
  await fake.start();
  const client = connectLibvirt({
    socket: fake.path,
    connections: 1,
    backoff: { minMs: 1, maxMs: 20 },
    ...options,
  });
  t.teardown(() => client.close());
  await client.ready({ timeoutMs: WAIT_MS });
  return { fake, client };
}

const lost = (client: LibvirtClient): Promise<unknown> =>
  new Promise((resolve) => client.once('lost', resolve));
const back = (client: LibvirtClient): Promise<void> => new Promise((resolve) => client.once('back', resolve));

/** Sends bytes in the middle of two calls and returns how those ended. */
async function twoCallsAnd(
  client: LibvirtClient,
  fake: FakeLibvirtd,
  disturb: (call: Received) => void,
): Promise<unknown[]> {
  const calls = [client.host.getHostname(), client.domains.getState(web1)].map((call) =>
    call.then(
      () => 'answered',
      (error: unknown) => error,
    ),
  );
  await fake.wait(Proc.getHostname);
  disturb(await fake.wait(Proc.getState));
  return Promise.all(calls);
}

t.test('what is not the protocol ends the connection, and every call in flight with it', async (t) => {
  const disturbances: [string, (call: Received) => void, ((cause: unknown) => boolean)?][] = [
    [
      'garbage',
      ({ peer }) => peer.send(Buffer.from('HTTP/1.1 400 Bad Request\r\n')),
      (c) => c instanceof FramingError,
    ],
    [
      'a length above the limit',
      ({ peer }) => peer.send(words(33_554_437)),
      (c) => c instanceof FramingError,
    ],
    ['a length below a header', ({ peer }) => peer.send(words(27)), (c) => c instanceof FramingError],
    [
      'half a message, then the end',
      (call) => call.peer.socket.end(reply(call, words(1, 1)).subarray(0, 30)),
    ],
    ['the end', ({ peer }) => peer.socket.end()],
    ['a reset', ({ peer }) => peer.socket.destroy()],
    // Procedure 362 says that the daemon behind libvirtd (virtproxyd's virtqemud) is gone: reason 1, end of file.
    ['word that the hypervisor is gone', ({ peer }) => peer.send(event(362, words(1)))],
  ];
  for (const [what, disturb, expected] of disturbances) {
    await t.test(what, async (t) => {
      const { fake, client } = await setUp(t, {}, (fake) => {
        fake.closeCallback = true;
      });
      const told = lost(client);
      for (const outcome of await twoCallsAnd(client, fake, disturb)) {
        t.ok(outcome instanceof ConnectionLostError, String(outcome));
        t.match(outcome, { sent: true });
        if (expected !== undefined) t.ok(expected((outcome as Error).cause), 'the cause is kept');
      }
      t.ok((await told) instanceof ConnectionLostError);
      await client.ready({ timeoutMs: WAIT_MS });
      t.equal(fake.peers.length, 2, 'it came back over a new connection');
      t.equal(fake.received(Proc.registerClose).length, 2, 'each connection asks to be told');
    });
  }
  await t.test('the end, while much of ours is still unsent', async (t) => {
    const { fake, client } = await setUp(t);
    t.equal(fake.received(Proc.registerClose).length, 0, 'not asked of a daemon that cannot');
    const [peer] = fake.peers;
    peer?.socket.pause();
    // More than the socket takes: Node would wait for it to be read before it closes its own side.
    const call = client.domains.defineXML('x'.repeat(4_000_000)).catch((error: unknown) => error);
    peer?.socket.end();
    t.ok((await call) instanceof ConnectionLostError);
  });
});

t.test('what is well-formed and unknown is left alone and counted', async (t) => {
  const { fake, client } = await setUp(t);
  const outcomes = await twoCallsAnd(client, fake, (call) => {
    const hostname = fake.received(Proc.getHostname)[0];
    if (hostname === undefined) throw new Error('no call');
    call.peer.send(
      message([0x20008086, 1, 14, 1, 9999, 0], words(0)), // a reply to serial 9999, which no call has
      event(9999, words(1, 2, 3)), // an event of a procedure to come
      event(318, words(7, 5)), // a lifecycle event that ends in its domain's name
      message([0x20008087, 1, 1, 2, 0, 0], words(1)), // an event of QEMU's program
      message([0x20008086, 2, 1, 1, call.serial, 0]), // our program in a version 2
      message([0x20008086, 1, 1, 3, call.serial, 2], words(1)), // a stream packet
      message([0x6b656570, 1, 2, 2, 0, 0]), // a pong that nobody asked for
      reply(call, words(1, 1)),
      reply(hostname, str('host1')),
    );
  });
  t.same(outcomes, ['answered', 'answered']);
  t.same(client.status.ignored, { unknownReplies: 1, lateReplies: 0, events: 2, programs: 2, types: 1 });
});

t.test('an answer that cannot be read is the trouble of its own call', async (t) => {
  const { fake, client } = await setUp(t);
  const answers: [(call: Received) => Buffer, object][] = [
    [(call) => reply(call, words(1)), { cause: { name: 'XdrError' } }], // one int of two
    [(call) => reply(call, words(1, 1, 1)), { cause: { name: 'XdrError' } }], // three ints
    [(call) => message([0x20008086, 1, 212, 1, call.serial, 2]), { message: /unknown status 2/ }],
    [(call) => message([0x20008086, 1, 212, 1, call.serial, 1], words(1)), { cause: { name: 'XdrError' } }],
  ];
  for (const [i, [answer, expected]] of answers.entries()) {
    const call = client.domains.getState(web1);
    const received = await fake.wait(Proc.getState, i + 1);
    received.peer.send(answer(received));
    await t.rejects(call, { name: 'ProtocolError', sent: true, ...expected });
  }
  const call = client.domains.getState(web1);
  const received = await fake.wait(Proc.getState, 5);
  received.peer.send(failure(received, 68, 'cannot acquire state change lock'));
  const error: unknown = await call.catch((error: unknown) => error);
  t.ok(isStateLockTimeout(error));
  t.match(error, { code: 68, domain: 10, level: 2, procedure: 'domainGetState', int1: -1, str1: null });
  t.equal(fake.peers.length, 1, 'all over one connection');
});

t.test('silence: the call times out, its late answer is dropped, the next call works', async (t) => {
  const { fake, client } = await setUp(t);
  const refused = await client.domains.getState(web1, { timeoutMs: 20 }).catch((error: unknown) => error);
  t.ok(refused instanceof CallTimeoutError);
  t.match(refused, { procedure: 'domainGetState', timeoutMs: 20, sent: true });
  t.equal(client.status.inFlight, 1, 'libvirtd is still at work on it');
  const call = await fake.wait(Proc.getState);
  const next = client.domains.getState(web1);
  const second = await fake.wait(Proc.getState, 2);
  call.peer.send(reply(call, words(5, 1)), reply(second, words(1, 1)));
  t.same(await next, { state: 1, reason: 1 });
  t.match(client.status, { inFlight: 0, ignored: { lateReplies: 1 } });
  await t.rejects(client.host.getHostname({ timeoutMs: 0 }), RangeError);
});

t.test('an AbortSignal ends a call with its reason', async (t) => {
  const { fake, client } = await setUp(t);
  const abort = new AbortController();
  const call = client.host.getHostname({ signal: abort.signal });
  await fake.wait(Proc.getHostname);
  const reason = new Error('the caller has left');
  abort.abort(reason);
  t.equal(await call.catch((error: unknown) => error), reason);
  t.equal(await client.host.getHostname({ signal: abort.signal }).catch((error: unknown) => error), reason);
  t.equal(fake.received(Proc.getHostname).length, 1, 'the second was not sent');
});

t.test('what cannot be sent is refused before it is', async (t) => {
  const { fake, client } = await setUp(t, { maxMessageBytes: 1000 });
  await t.rejects(client.domains.defineXML('x'.repeat(2000)), MessageTooLargeError);
  await t.rejects(client.domains.defineXML('x\0'), XdrError);
  await t.rejects(client.domains.lookupByUUID('web1'), /not a UUID/);
  t.match(client.status, { inFlight: 0, waiting: 0 });
  const answer = client.host.getHostname();
  const call = await fake.wait(Proc.getHostname);
  call.peer.send(reply(call, str('x'.repeat(1001))));
  await t.rejects(
    answer,
    { name: 'ConnectionLostError', cause: { name: 'FramingError' } },
    'the limit holds both ways',
  );
  for (const options of [
    { connections: 0 },
    { timeoutMs: 1.5 },
    { maxMessageBytes: 2 ** 26 },
    { maxMessageBytes: 9 },
  ]) {
    t.throws(() => connectLibvirt(options), RangeError);
  }
});

t.test('keepalive', async (t) => {
  await t.test('its pings are answered, and it is not sent where libvirtd does not speak it', async (t) => {
    const { fake, client } = await setUp(t, { keepAlive: { intervalMs: 1, count: 1 } });
    const [peer] = fake.peers;
    peer?.send(message([0x6b656570, 1, 1, 2, 0, 0]));
    // 0x6b656570, procedure 2 (pong), type 2, serial 0, no payload
    await poll('a pong', WAIT_MS, async () => peer?.received.some((m) => m.program === 0x6b656570) ?? false);
    t.match(peer?.received.at(-1), {
      program: 0x6b656570,
      procedure: 2,
      type: 2,
      serial: 0,
      payload: { length: 0 },
    });
    t.ok(client.status.connected, 'many intervals of silence are no reason here');
    t.equal(peer?.received.filter((m) => m.program === 0x6b656570).length, 1);
  });
  await t.test('a peer that neither answers nor closes is dead after so many pings', async (t) => {
    const { fake, client } = await setUp(t, { keepAlive: { intervalMs: 5, count: 3 } }, (fake) => {
      fake.keepAlive = true;
    });
    const [outcome] = await twoCallsAnd(client, fake, () => {});
    t.match(outcome, {
      name: 'ConnectionLostError',
      message: 'libvirtd answered none of 3 keepalive messages',
    });
    t.equal(fake.peers[0]?.received.filter((m) => m.program === 0x6b656570 && m.procedure === 1).length, 3);
  });
  await t.test('a peer that answers is not', async (t) => {
    const { fake, client } = await setUp(t, { keepAlive: { intervalMs: 10, count: 10 } }, (fake) => {
      fake.keepAlive = true;
    });
    let pings = 0;
    const [peer] = fake.peers;
    // A stranger's ear on the same socket: every ping (procedure 1) gets its pong (procedure 2).
    peer?.socket.on('data', (chunk: Buffer) => {
      if (chunk.readUInt32BE(4) !== 0x6b656570) return;
      pings++;
      peer.send(message([0x6b656570, 1, 2, 2, 0, 0]));
    });
    await poll('twenty pings', WAIT_MS, async () => pings >= 20);
    t.equal(fake.peers.length, 1);
    t.ok(client.status.connected);
  });
});

t.test('authentication', async (t) => {
  const refused = async (t: Test, prepare: (fake: FakeLibvirtd) => void): Promise<Error> => {
    const fake = new FakeLibvirtd(t);
    prepare(fake);
    await fake.start();
    const client = connectLibvirt({ socket: fake.path, connections: 1 });
    t.teardown(() => client.close());
    const [error] = await new Promise<[unknown, number]>((resolve) => {
      client.once('attemptFailed', (...args) => resolve(args));
    });
    await t.rejects(client.ready({ timeoutMs: 10 }), { name: 'NotConnectedError', cause: error as Error });
    return error as Error;
  };
  await t.test('SASL is refused by name', async (t) => {
    const error = await refused(t, (fake) => {
      fake.auth = [1];
    });
    t.ok(error instanceof AuthenticationError);
    t.match(error.message, /SASL.*auth_unix_rw/);
  });
  await t.test('polkit that says no', async (t) => {
    const error = await refused(t, (fake) => {
      fake.auth = [2];
      fake.onCall = (call) => {
        if (call.procedure !== Proc.authPolkit) return false;
        call.peer.send(failure(call, 45, 'authentication failed: access denied by policy'));
        return true;
      };
    });
    t.match(error, { name: 'AuthenticationError', message: /org.libvirt.unix.manage/, cause: { code: 45 } });
  });
  await t.test('polkit that says yes', async (t) => {
    const { client } = await setUp(t, {}, (fake) => {
      fake.auth = [2];
      fake.onCall = (call) => {
        if (call.procedure !== Proc.authPolkit) return false;
        call.peer.send(reply(call, words(1)));
        return true;
      };
    });
    t.ok(client.status.connected);
  });
});

t.test('reconnect', async (t) => {
  await t.test('a daemon that is not there, then is; calls meanwhile fail at once', async (t) => {
    const fake = new FakeLibvirtd(t);
    const client = connectLibvirt({ socket: fake.path, connections: 2, backoff: { minMs: 1, maxMs: 10 } });
    t.teardown(() => client.close());
    const failures: unknown[] = [];
    client.on('attemptFailed', (error) => failures.push(error));
    await t.rejects(client.host.getHostname(), { name: 'NotConnectedError', sent: false });
    await t.rejects(client.ready({ timeoutMs: 20 }), {
      cause: { code: 'ENOENT' },
      message: new RegExp(fake.path),
    });
    await poll('several attempts', WAIT_MS, async () => failures.length >= 5);
    await fake.start();
    await client.ready({ timeoutMs: WAIT_MS });
    await poll('both connections', WAIT_MS, async () => client.status.connections === 2);
    const told = lost(client);
    const returned = back(client);
    await fake.stop();
    await told;
    await poll('both to be gone', WAIT_MS, async () => client.status.connections === 0);
    await t.rejects(client.domains.getState(web1), NotConnectedError);
    await fake.start();
    await returned;
    t.ok(client.status.connected);
  });
  await t.test('a daemon that accepts and says nothing', async (t) => {
    const fake = await new FakeLibvirtd(t).start();
    fake.onConnect = (socket) => {
      socket.on('error', () => {}).resume();
      return true;
    };
    const client = connectLibvirt({
      socket: fake.path,
      connections: 1,
      connectTimeoutMs: 200,
      backoff: { minMs: 1, maxMs: 5 },
    });
    t.teardown(() => client.close());
    const error = await new Promise((resolve) => client.once('attemptFailed', resolve));
    t.match(error, { name: 'CallTimeoutError', procedure: 'authList' });
  });
  await t.test('the waits grow, with jitter, up to the limit', async (t) => {
    const options = { minMs: 100, maxMs: 5000 };
    t.same(
      [0, 1, 2, 5, 6, 60, 2000].map((attempt) => backoffMs(attempt, options, () => 1)),
      [100, 200, 400, 3200, 5000, 5000, 5000],
    );
    t.equal(
      backoffMs(1, options, () => 0),
      100,
    );
    const fake = new FakeLibvirtd(t);
    const client = connectLibvirt({ socket: fake.path, connections: 1, backoff: { minMs: 4, maxMs: 32 } });
    t.teardown(() => client.close());
    const waits: number[] = [];
    client.on('attemptFailed', (_error, retryInMs) => waits.push(retryInMs));
    await poll('six attempts', WAIT_MS, async () => waits.length >= 6);
    for (const [i, bound] of [4, 8, 16, 32, 32, 32].entries()) {
      t.ok(
        (waits[i] ?? 0) >= bound / 2 && (waits[i] ?? 99) <= bound,
        `attempt ${i}: ${waits[i]} of ${bound}`,
      );
    }
  });
  await t.test('closed is closed', async (t) => {
    const { fake, client } = await setUp(t, { callsPerConnection: 1 });
    let losses = 0;
    client.on('lost', () => losses++);
    const [sent, waiting] = [client.host.getHostname(), client.host.getURI()].map((call) =>
      call.catch((e: unknown) => e),
    );
    await fake.wait(Proc.getHostname);
    const subscription = client.subscribe('reboot', () => {});
    await client.close();
    await client.close();
    t.match(await sent, { name: 'ConnectionLostError', sent: true });
    t.match(await waiting, { name: 'NotConnectedError', message: 'the libvirt client is closed' });
    await t.rejects(client.ready(), /closed/);
    await t.rejects(subscription.registered(), /closed/);
    t.throws(() => client.subscribe('reboot', () => {}), /closed/);
    await poll('the socket to close', WAIT_MS, async () => fake.peers.every((peer) => peer.closed));
    t.equal(losses, 0, 'what we do ourselves is no loss');
  });
  await t.test('closed in the middle of an attempt', async (t) => {
    for (const stuckAt of [Proc.authList, Proc.open, Proc.register]) {
      const fake = await new FakeLibvirtd(t).start();
      fake.onCall = (call) => call.procedure === stuckAt;
      const client = connectLibvirt({ socket: fake.path, connections: 1, connectTimeoutMs: 600_000 });
      client.subscribe('reboot', () => {});
      const waiting = client.ready().catch((error: unknown) => error);
      await fake.wait(stuckAt);
      await client.close();
      t.match(await waiting, { name: 'NotConnectedError' });
      await poll('the socket to close', WAIT_MS, async () => fake.peers.every((peer) => peer.closed));
    }
  });
});

t.test('calls wait for their turn on this side of the wire', async (t) => {
  const atServer = (fake: FakeLibvirtd): string[] =>
    fake.received(Proc.getState).map(({ payload }) => payload.subarray(4, 7).toString());
  await t.test('so many a connection, fewer a domain, and domains take turns', async (t) => {
    const { fake, client } = await setUp(t, { callsPerConnection: 4, callsPerDomain: 3 });
    const calls = Promise.all(
      [...Array(6).fill(web1), ...Array(2).fill(db1)].map((domain: Domain) =>
        client.domains.getState(domain),
      ),
    );
    await fake.wait(Proc.getState, 4);
    t.same(atServer(fake), ['web', 'web', 'web', 'db1'], 'web1 leaves a place');
    t.match(client.status, { inFlight: 4, waiting: 4 });
    const answer = (i: number): void => {
      const call = fake.received(Proc.getState)[i];
      call?.peer.send(reply(call, words(1, i)));
    };
    answer(0);
    await fake.wait(Proc.getState, 5);
    answer(1);
    await fake.wait(Proc.getState, 6);
    t.same(atServer(fake).slice(4).sort(), ['db1', 'web'], 'one each, whoever came first');
    for (let i = 2; i < 8; i++) {
      await fake.wait(Proc.getState, i + 1);
      answer(i);
    }
    t.equal((await calls).length, 8);
    t.match(client.status, { inFlight: 0, waiting: 0 });
  });
  await t.test('a call that was given up keeps its place until libvirtd is through with it', async (t) => {
    const { fake, client } = await setUp(t, { callsPerDomain: 1 });
    await t.rejects(client.domains.getState(web1, { timeoutMs: 10 }), {
      name: 'CallTimeoutError',
      sent: true,
    });
    await t.rejects(client.domains.getState(web1, { timeoutMs: 10 }), {
      name: 'CallTimeoutError',
      sent: false,
    });
    t.equal(fake.received(Proc.getState).length, 1);
    const other = client.domains.getState(db1);
    const call = await fake.wait(Proc.getState, 2);
    call.peer.send(reply(call, words(1, 1)));
    t.match(await other, { state: 1 }, 'another domain is not held up');
    const again = client.domains.getState(web1);
    const first = await fake.wait(Proc.getState, 1);
    first.peer.send(reply(first, words(1, 1)));
    const third = await fake.wait(Proc.getState, 3);
    third.peer.send(reply(third, words(3, 5)));
    t.match(await again, { state: 3 });
  });
  await t.test('when the connection goes, those that waited were not sent', async (t) => {
    const { fake, client } = await setUp(t, { callsPerConnection: 1 });
    const [sent, waiting] = [client.domains.getState(web1), client.domains.getState(db1)].map((call) =>
      call.catch((error: unknown) => error),
    );
    (await fake.wait(Proc.getState)).peer.socket.destroy();
    t.match(await sent, { name: 'ConnectionLostError', sent: true });
    t.match(await waiting, { name: 'NotConnectedError', sent: false });
  });
});

t.test('events', async (t) => {
  // callback 40, domain, event 5 (stopped), detail 1 (destroyed)
  const stopped = (domain: Buffer): Buffer => event(318, Buffer.concat([words(40), domain, words(5, 1)]));
  await t.test('one that overtakes the reply to its own registration', async (t) => {
    const { fake, client } = await setUp(t, {}, (fake) => {
      fake.onCall = (call) => {
        if (call.procedure !== Proc.register) return false;
        call.peer.send(stopped(dom('web1', 1)), reply(call, words(40)));
        return true;
      };
    });
    const seen: unknown[] = [];
    const subscription = client.subscribe('lifecycle', (message) => seen.push(message));
    await subscription.registered({ timeoutMs: WAIT_MS });
    t.same(seen, [{ domain: web1, event: 5, detail: 1 }]);
    t.equal(
      fake.received(Proc.register)[0]?.payload.toString('hex'),
      '0000000000000000',
      'event 0, no domain',
    );
  });
  await t.test(
    'one registration however many listen, taken back with the last; each domain to its own',
    async (t) => {
      const { fake, client } = await setUp(t);
      const seen: string[] = [];
      const all = client.subscribe('lifecycle', ({ domain }) => seen.push(`all ${domain.name}`));
      const web = client.subscribe('lifecycle', ({ domain }) => seen.push(`web ${domain.name}`), {
        domain: web1,
      });
      await Promise.all([all.registered(), web.registered()]);
      await all.registered();
      const { peer } = await fake.wait(Proc.register);
      peer.send(stopped(dom('web1', 1)), stopped(dom('db1', 2)));
      await poll('three calls', WAIT_MS, async () => seen.length === 3);
      t.same(seen, ['all web1', 'web web1', 'all db1']);
      all.close();
      all.close();
      await t.rejects(all.registered(), /closed/);
      peer.send(stopped(dom('web1', 1)));
      await poll('one call', WAIT_MS, async () => seen.length === 4);
      t.equal(fake.received(Proc.deregister).length, 0);
      web.close();
      t.equal((await fake.wait(Proc.deregister)).payload.toString('hex'), '00000028', 'callback 40');
      t.equal(fake.received(Proc.register).length, 1);
      const again = client.subscribe('lifecycle', () => {});
      await again.registered({ timeoutMs: WAIT_MS });
      t.equal(fake.received(Proc.register).length, 2);
    },
  );
  await t.test('every kind is registered again before the client is back', async (t) => {
    const { fake, client } = await setUp(t);
    const seen: unknown[] = [];
    const kinds = [
      client.subscribe('blockThreshold', (message) => seen.push(message)),
      client.subscribe('jobCompleted', (message) => seen.push(message)),
      client.subscribe('ioError', (message) => seen.push(message)),
    ];
    await Promise.all(kinds.map((kind) => kind.registered()));
    const returned = back(client);
    fake.peers[0]?.socket.destroy();
    await returned;
    const again = fake.peers[1]?.received.filter(({ procedure }) => procedure === Proc.register) ?? [];
    t.same(again.map(({ payload }) => payload.readUInt32BE(0)).sort(), [21, 24, 6]);
    fake.peers[1]?.send(
      // callback, domain, device, no path, 64-bit threshold, 64-bit excess
      event(385, Buffer.concat([words(64), dom('web1', 1), str('vda[3]'), words(0, 0, 4096, 0, 512)])),
      // callback, domain, one typed parameter: name, type 6 (boolean), 1
      event(363, Buffer.concat([words(61), dom('web1', 1), words(1), str('success'), words(6, 1)])),
      // callback, domain, path, alias, action 1 (pause), reason
      event(
        324,
        Buffer.concat([words(46), dom('web1', 1), str('/a'), str('virtio-disk0'), words(1), str('enospc')]),
      ),
    );
    await poll('three events', WAIT_MS, async () => seen.length === 3);
    t.match(seen, [
      { domain: web1, device: 'vda[3]', path: null, threshold: 4096, excess: 512 },
      { domain: web1, params: { success: true } },
      { domain: web1, path: '/a', alias: 'virtio-disk0', action: 1, reason: 'enospc' },
    ]);
  });
  await t.test('a kind that libvirtd does not know is no reason to be without a connection', async (t) => {
    const { fake, client } = await setUp(t, {}, (fake) => {
      fake.onCall = (call) => {
        if (call.procedure !== Proc.register || call.payload.readUInt32BE(0) !== 24) return false;
        call.peer.send(failure(call, 1, 'unsupported event ID 24'));
        return true;
      };
    });
    const subscription = client.subscribe('blockThreshold', () => {});
    await t.rejects(subscription.registered(), { name: 'LibvirtError', code: 1 });
    await t.rejects(subscription.registered(), { name: 'LibvirtError' }, 'and again, without asking again');
    t.equal(fake.received(Proc.register).length, 1);
    const returned = back(client);
    fake.peers[0]?.socket.destroy();
    await returned;
    await t.rejects(subscription.registered(), { name: 'LibvirtError' }, 'a new daemon was asked');
    t.equal(fake.received(Proc.register).length, 2);
  });
  await t.test('a registration that gets no answer is settled by a new connection', async (t) => {
    let deaf = true;
    const { fake, client } = await setUp(t, { connectTimeoutMs: 200 }, (fake) => {
      fake.onCall = (call) => call.procedure === Proc.register && deaf;
    });
    const subscription = client.subscribe('reboot', () => {});
    const error = await lost(client);
    t.match(error, { message: /did not confirm/, cause: { name: 'CallTimeoutError' } });
    deaf = false;
    await subscription.registered({ timeoutMs: WAIT_MS });
    t.ok(fake.peers.length >= 2);
  });
  await t.test('a listener that throws is heard of, and disturbs nobody', async (t) => {
    const errors: unknown[] = [];
    const { fake, client } = await setUp(t, { onListenerError: (error, name) => errors.push(error, name) });
    let others = 0;
    client.subscribe('lifecycle', () => {
      throw new Error('a mistake');
    });
    const other = client.subscribe('lifecycle', () => {
      others++;
    });
    await other.registered();
    fake.peers[0]?.send(stopped(dom('web1', 1)), stopped(dom('web1', 1)));
    await poll('both events', WAIT_MS, async () => errors.length === 4);
    t.match(errors, [{ message: 'a mistake' }, 'lifecycle', {}, 'lifecycle']);
    t.equal(others, 2);
    t.ok(client.status.connected);
  });
});

t.test('the socket that belongs to a URI', async (t) => {
  const dir = t.testdir({ libvirt: {} });
  const session = { XDG_RUNTIME_DIR: dir };
  t.equal(await findSocket('qemu:///session', session), `${dir}/libvirt/libvirt-sock`);
  writeFileSync(`${dir}/libvirt/virtqemud-sock`, '');
  t.equal(
    await findSocket('qemu:///session', session),
    `${dir}/libvirt/virtqemud-sock`,
    'the modular daemon goes first',
  );
  mkdirSync(`${dir}/.cache`);
  t.equal(await findSocket('qemu:///session', { HOME: dir }), `${dir}/.cache/libvirt/libvirt-sock`);
  t.equal(
    await findSocket('qemu:///session', { HOME: '/x', XDG_CACHE_HOME: dir }),
    `${dir}/libvirt/virtqemud-sock`,
  );
  await t.rejects(findSocket('qemu:///session', {}), /XDG_RUNTIME_DIR or HOME/);
  t.match(await findSocket('qemu:///system', {}), /^\/run\/libvirt\/(libvirt|virtqemud)-sock$/);
  t.equal(await findSocket('qemu:///system', {}, `${dir}/libvirt`), `${dir}/libvirt/virtqemud-sock`);
  await t.rejects(findSocket('xen:///system', {}), /name the socket itself/);
});
