/** Leases by the boot clock, and by the wall clock over a reboot alone. */
import t from 'tap';
import { bootClock } from '../../agent/host/boot-clock.js';
import { beginLease, leaseLeft, shownLease } from '../../agent/host/lease.js';
import { lease as leaseShape } from '../../agent/host/record-shape.js';

/** A clock that the test sets. */
function fakeClock(bootId = 'boot') {
  let now = 1_000_000;
  const pass = (ms: number) => {
    now += ms;
  };
  return { bootId, now: () => now, pass };
}

t.test('the boot clock goes on, and says which boot it is', async (t) => {
  const clock = await bootClock();
  const before = clock.now();
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.ok(clock.now() > before);
  t.match(clock.bootId, /^[0-9a-f-]{36}$/);
});

t.test('time that passes uses it up, to nothing and not below', async (t) => {
  const clock = fakeClock();
  const lease = beginLease(clock, 60);
  t.equal(leaseLeft(clock, lease), 60_000);
  clock.pass(59_999);
  t.equal(leaseLeft(clock, lease), 1);
  clock.pass(5000);
  t.equal(leaseLeft(clock, lease), 0);
});

t.test('setting the wall clock changes nothing of it, but what callers are shown', async (t) => {
  const clock = fakeClock();
  const lease = beginLease(clock, 60);
  t.strictSame(shownLease(clock, lease), { seconds: 60, expires: lease.expires }, 'as it was first told');
  const realNow = Date.now;
  t.teardown(() => {
    Date.now = realNow;
  });
  for (const shift of [-86_400_000, 86_400_000]) {
    Date.now = () => realNow() + shift;
    t.equal(leaseLeft(clock, lease), 60_000);
    const shown = Date.parse(shownLease(clock, lease)?.expires ?? '');
    t.ok(Math.abs(shown - Date.now() - 60_000) < 1000, 'by the clock as it is set now');
  }
  t.equal(shownLease(clock, null), null);
});

t.test('after a reboot the wall clock counts, and gives no more than was asked for', async (t) => {
  const lease = beginLease(fakeClock(), 60);
  const next = fakeClock('another boot');
  next.pass(10 ** 12);
  t.ok(leaseLeft(next, lease) > 59_000);
  const realNow = Date.now;
  t.teardown(() => {
    Date.now = realNow;
  });
  Date.now = () => realNow() + 61_000;
  t.equal(leaseLeft(next, lease), 0);
  Date.now = () => realNow() - 86_400_000;
  t.equal(leaseLeft(next, lease), 60_000);
});

t.test('one of no seconds or of over a year, which nobody can have asked for, is not believed', async (t) => {
  const lease = beginLease(await bootClock(), 1);
  t.equal(leaseShape(lease, 'lease'), undefined);
  for (const seconds of [0, 31_536_001]) {
    t.match(
      leaseShape({ ...lease, seconds }, 'lease'),
      /^lease\/seconds is not a whole number from 1 to 31536000/,
    );
  }
});
