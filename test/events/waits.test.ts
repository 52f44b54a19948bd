/** waitEvents at the daemon's edge: over a real socket, with the real journal. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { AccessPolicy } from '../../agent/access/policy.js';
import { configFrom } from '../../agent/config/config.js';
import { EventJournal, type EventPage } from '../../agent/events/journal.js';
import { EventWaits } from '../../agent/events/waits.js';
import { createLog } from '../../agent/log.js';
import { createRpcServer, type RpcServerOptions } from '../../agent/rpc/server.js';
import { exportCall, type Services } from '../../agent/verbs/services.js';
import { waitEvents } from '../../agent/verbs/wait-events.js';
import { type Answer, LineClient } from '../rpc/line-client.js';

const { limits } = configFrom({});
/** What no test waits for: an answer that comes earlier was not the timeout's. */
const LONG = 300;

async function start(
  t: Test,
  { waiters = 10, ...options }: { waiters?: number } & Partial<RpcServerOptions> = {},
) {
  const folder = await mkdtemp('/tmp/vmd-waits-');
  const log = createLog({ level: 'fatal' });
  const journal = await EventJournal.open(join(folder, 'events'), { events: 100, bytes: 1 << 20 }, log);
  // Who comes by the UNIX socket is admin: nothing of the host is asked for.
  const access = new AccessPolicy({} as ConstructorParameters<typeof AccessPolicy>[0]);
  const services = { access, eventWaits: new EventWaits(journal, waiters) } as Services;
  const verbs = { waitEvents: waitEvents(services), ...options.verbs };
  const server = createRpcServer({ limits, log, checkResults: true, ...options, verbs });
  const path = join(folder, 'rpc.sock');
  await server.listenUnix(path, { group: 'root' });
  const clients: LineClient[] = [];
  t.teardown(async () => {
    journal.release();
    for (const client of clients) client.destroy();
    await server.close({ timeoutSeconds: 1 });
    await journal.close();
    await rm(folder, { recursive: true, force: true });
  });
  return {
    journal,
    server,
    async client() {
      const client = await LineClient.connect(path);
      clients.push(client);
      return client;
    },
  };
}

const page = ({ result }: Answer) => result as EventPage;
const tell = (journal: EventJournal, ...reasons: string[]) => {
  for (const reason of reasons) journal.emit({ kind: 'libvirtLost', reason });
};

test('without an event: the timeout; with one: all who wait, from where each was', async (t) => {
  const { journal, client } = await start(t);
  const c = await client();
  tell(journal, 'before');
  t.match(await c.call('waitEvents', { timeoutSeconds: 0 }), { result: { events: [], next: 1, gap: null } });
  t.match(await c.call('waitEvents', { after: 1, timeoutSeconds: 1 }), { result: { events: [], next: 1 } });
  t.match(await c.call('waitEvents', { after: 0 }), { result: { events: [{ reason: 'before' }], next: 1 } });
  const other = await client();
  const waits = [
    c.call('waitEvents', { timeoutSeconds: LONG }),
    c.call('waitEvents', { after: 1, timeoutSeconds: LONG, max: 1 }),
    other.call('waitEvents', { after: 1, timeoutSeconds: LONG }),
  ];
  await c.call('waitEvents', { timeoutSeconds: 0 }); // the others have been taken by now
  await other.call('waitEvents', { timeoutSeconds: 0 });
  tell(journal, 'one', 'two');
  const [now, limited, both] = (await Promise.all(waits)).map(page);
  t.match(now, { events: [{ reason: 'one' }, { reason: 'two' }], next: 3, gap: null, journal: journal.id });
  t.match(limited, { events: [{ seq: 2, reason: 'one' }], next: 2 });
  t.equal(limited?.events.length, 1);
  t.match(both, { events: [{ seq: 2 }, { seq: 3 }], next: 3 });
});

test('a number beyond the newest is answered at once', async (t) => {
  const { journal, client } = await start(t);
  tell(journal, 'a');
  const answer = await (await client()).call('waitEvents', { after: 1000, timeoutSeconds: LONG });
  t.match(page(answer), { events: [], next: 1, gap: { from: 2, to: 1000 } });
});

test('waits take no place among the verbs at work, and have a limit of their own', async (t) => {
  const { journal, client } = await start(t, {
    waiters: 3,
    limits: { ...limits, verbs: 1 },
    verbs: {
      async teardownBackupDisk({ exportId }, call) {
        t.match(exportCall(call), { owner: 'unix' });
        return { exportId, checkpoint: null };
      },
    },
  });
  const c = await client();
  const waits = [1, 2, 3].map(() => c.call('waitEvents', { timeoutSeconds: LONG }));
  const refused = await c.call('waitEvents', { timeoutSeconds: LONG });
  t.match(refused.error, {
    data: { name: 'LimitReached', retryable: true },
    message: /^3 callers wait.*\.$/,
  });
  t.match(
    await c.call('waitEvents', { timeoutSeconds: 0 }),
    { result: { events: [] } },
    'who does not wait may ask',
  );
  t.match(await c.call('teardownBackupDisk', { exportId: 'x' }), { result: {} });
  tell(journal, 'a');
  t.match(await Promise.all(waits), [{ result: {} }, { result: {} }, { result: {} }]);
  const free = c.call('waitEvents', { timeoutSeconds: LONG });
  await c.call('waitEvents', { timeoutSeconds: 0 });
  tell(journal, 'b');
  t.match(await free, { result: { events: [{ reason: 'b' }] } }, 'and their places are free again');
});

test('a caller that has closed its side or left is answered soon, and its place is free', async (t) => {
  const { client } = await start(t, { waiters: 1 });
  const half = await client();
  const answer = half.call('waitEvents', { timeoutSeconds: LONG });
  half.socket.end();
  t.match(await answer, { result: { events: [], gap: null } });
  const gone = await client();
  gone.sendMessage({ jsonrpc: '2.0', id: 1, method: 'waitEvents', params: { timeoutSeconds: LONG } });
  await gone.call('waitEvents', { timeoutSeconds: 0 });
  gone.destroy();
  const c = await client();
  for (let answered = false; !answered; ) {
    answered = (await c.call('waitEvents', { timeoutSeconds: 1 })).error === undefined;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

test("at the verb's deadline the answer is an empty one, no error", async (t) => {
  const deadlineSeconds = { ...limits.deadlineSeconds, waitEvents: 0.1 };
  const { client } = await start(t, { limits: { ...limits, deadlineSeconds } });
  t.match(await (await client()).call('waitEvents', { timeoutSeconds: LONG }), { result: { events: [] } });
});

test('when the daemon stops, all are answered at once, and the close does not wait', async (t) => {
  const { journal, server, client } = await start(t);
  const c = await client();
  const waits = [1, 2].map(() => c.call('waitEvents', { timeoutSeconds: LONG }));
  await c.call('waitEvents', { timeoutSeconds: 0 });
  journal.release();
  t.equal(await server.close({ timeoutSeconds: 20 }), true);
  t.match(await Promise.all(waits), [{ result: { events: [], gap: null } }, { result: { events: [] } }]);
});

test('params out of range', async (t) => {
  const { client } = await start(t);
  const c = await client();
  for (const params of [
    { after: -1 },
    { after: 2 ** 53 },
    { after: '1' },
    { timeoutSeconds: 301 },
    { timeoutSeconds: 0.5 },
    { max: 0 },
    { max: 1001 },
    { journal: 'x' },
  ]) {
    t.equal((await c.call('waitEvents', params)).error?.code, -32602, JSON.stringify(params));
  }
});
