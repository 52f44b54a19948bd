/** Which addresses drives may be reached at. */
import t from 'tap';
import { isAllowedHost } from '../../agent/exports/allowed-hosts.js';

const allowed = [
  '192.0.2.10:10809',
  'gw1.example',
  'Gw2.Example:10809',
  '[2001:db8:0::1]:10809',
  '[fe80::2]',
];
const isAllowed = (name: string, port = 10_809) => isAllowedHost(allowed, { name, port });

t.test('what is named, in whatever case or spelling of IPv6, and the port where one is named', async (t) => {
  t.ok(isAllowed('192.0.2.10'));
  t.notOk(isAllowed('192.0.2.10', 22));
  t.ok(isAllowed('gw1.example'));
  t.ok(isAllowed('GW1.example', 22), 'no port: any port');
  t.ok(isAllowed('gw2.EXAMPLE'));
  t.notOk(isAllowed('gw2.example', 10_810));
  t.ok(isAllowed('2001:db8::1'));
  t.ok(isAllowed('2001:0DB8:0:0:0:0:0:1'));
  t.notOk(isAllowed('2001:db8::1', 22));
  t.ok(isAllowed('fe80::2', 1));
});

t.test('nothing that only looks like it', async (t) => {
  for (const name of [
    '192.0.2.1',
    '192.0.2.100',
    '192.0.2.010',
    '::ffff:192.0.2.10',
    '3221225994',
    'gw1',
    'gw1.example.',
    'gw1.example.org',
    'xgw1.example',
    '2001:db8::2',
    '2001:db8::1:10809',
    'localhost',
  ]) {
    t.notOk(isAllowed(name), name);
  }
  t.notOk(isAllowedHost([], { name: '192.0.2.10', port: 10_809 }), 'nothing is, by default');
});
