/** How long a guest is kept frozen. The agent's part is a stand-in: the real one is in test/points-in-time/snapshots.test.ts. */
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { type Test, test } from 'tap';
import { PendingThaws, withFrozenGuest } from '../../agent/domains/freeze.js';
import { thawRegistry } from '../../agent/domains/thaw-record.js';
import type { Domain, LibvirtClient } from '../../agent/libvirt/index.js';

const domain: Domain = { uuid: '01010101-0101-0101-0101-010101010101', name: 'web1', id: 1 };

/** The record of a guest that may be frozen is tried in test/points-in-time. */
function guests(t: Test, frozen: number) {
  const asked: string[] = [];
  const guest = {
    fsFreeze: async () => asked.push('freeze'),
    fsThaw: async () => asked.push('thaw'),
  };
  const libvirt = { guest } as unknown as LibvirtClient;
  const log = pino({ level: 'silent' });
  return {
    asked,
    libvirt,
    log,
    thaws: new PendingThaws(thawRegistry(t.testdir({ thaws: {} }))),
    points: { stateMs: { frozen } },
  };
}

/** Work at a libvirt that does not answer. */
const hangs = (_: boolean, signal: AbortSignal): Promise<never> =>
  sleep(60_000, undefined, { signal, ref: false }).then(
    () => {
      throw new Error('nobody gave it up');
    },
    () => {
      throw signal.reason;
    },
  );

test('work that keeps a guest frozen for too long is given up, and the guest thawed', async (t) => {
  const given = guests(t, 50);
  const verb = new AbortController();
  const work = withFrozenGuest(given, domain, 'require', verb.signal, hangs);
  await t.rejects(work, { name: 'Timeout', message: /web1 was frozen for 0\.05 s/ });
  t.strictSame(given.asked, ['freeze', 'thaw']);
  t.equal(verb.signal.aborted, false);
});

test('the signal of the verb counts as before', async (t) => {
  const given = guests(t, 60_000);
  const work = withFrozenGuest(given, domain, 'try', AbortSignal.timeout(50), hangs);
  await t.rejects(work, { name: 'TimeoutError' });
  t.strictSame(given.asked, ['freeze', 'thaw']);
});

test('a guest that is not frozen has no such limit', async (t) => {
  const work = async (frozen: boolean, signal: AbortSignal) => {
    await sleep(100);
    return [frozen, signal.aborted];
  };
  const { result } = await withFrozenGuest(guests(t, 10), domain, 'no', new AbortController().signal, work);
  t.strictSame(result, [false, false]);
});
