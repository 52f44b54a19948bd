import t from 'tap';
import { advertisedName, isLoopback, loopbackAddress } from '../../agent/gateway/addresses.js';
import { parseListen } from '../../agent/tls/addresses.js';
import { HalfOpen } from '../../agent/tls/half-open.js';

t.test('one too many: the oldest of the address that has most goes', async (t) => {
  const gone: string[] = [];
  const places = new HalfOpen(3);
  const come = (address: string, name: string) => {
    const stranger = { address, cut: (reason: string) => void gone.push(`${name}: ${reason}`) };
    places.enter(stranger);
    return stranger;
  };
  const quick = come('a', 'quick');
  come('flood', 'f1');
  come('flood', 'f2');
  come('flood', 'f3');
  t.match(gone, [/^f1: 3 clients/], 'and not the one that was there first');
  come('b', 'other');
  t.match(gone, [/^f1/, /^f2/]);
  places.leave(quick);
  places.leave(quick);
  come('c', 'late');
  t.equal(gone.length, 2, 'a place was free again');
});

t.test('addresses', async (t) => {
  t.strictSame(parseListen('[::]:10809'), { host: '::', port: 10809 });
  t.strictSame(parseListen('gw.example:1'), { host: 'gw.example', port: 1 });
  const all = [{ host: '0.0.0.0', port: 5 }];
  t.strictSame(loopbackAddress(all), { host: '127.0.0.1', port: 5 });
  t.strictSame(loopbackAddress([{ host: '::', port: 5 }]), { host: '::1', port: 5 });
  t.equal(loopbackAddress([{ host: '192.0.2.1', port: 5 }]), undefined);
  t.equal(advertisedName('gw', all), 'gw');
  t.equal(advertisedName('', [{ host: '192.0.2.1', port: 5 }]), '192.0.2.1');
  for (const here of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) t.ok(isLoopback(here), here);
  for (const there of ['192.0.2.1', '::ffff:192.0.2.1', '127.example', 'fe80::1', ''])
    t.notOk(isLoopback(there), there);
});
