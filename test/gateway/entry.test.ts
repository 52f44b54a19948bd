/** Entries: what the daemon writes is read as it was, and what is anything else opens nothing. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  ENTRY_VERSION,
  EntryStore,
  entryIds,
  type GatewayEntry,
  readEntry,
} from '../../agent/gateway/entry.js';
import { EntryCache } from '../../agent/gateway/entry-cache.js';
import { gatewayFiles } from '../../agent/gateway/files.js';
import { bootClock } from '../../agent/host/boot-clock.js';
import { beginLease } from '../../agent/host/lease.js';

const run = mkdtempSync('/tmp/vmd-entry-');
t.teardown(() => rmSync(run, { recursive: true, force: true }));
const store = new EntryStore(run);
const { entries } = gatewayFiles(run);
const KEY = 'a5'.repeat(32);

async function entry(access: GatewayEntry['access']): Promise<GatewayEntry> {
  return {
    ...({ version: ENTRY_VERSION, kind: 'network-export', exportId: 'e', access } as const),
    server: { socket: '/run/vmdiskd/exports/e/nbd.sock', exportName: 'vda' },
    ...{ extendedHeaders: true, connections: 12, lease: beginLease(await bootClock(), 60) },
  };
}
const psk = { type: 'psk', identity: 'e', key: KEY } as const;

/** What is made of a file that holds this. */
function readBack(content: unknown): GatewayEntry | undefined {
  writeFileSync(join(entries, 'e.json'), typeof content === 'string' ? content : JSON.stringify(content));
  return readEntry(run, 'e');
}

t.test('nothing is there at first', async (t) => {
  t.strictSame(entryIds(run), []);
  t.equal(readEntry(run, 'e'), undefined);
});

t.test('written, read, replaced, removed', async (t) => {
  for (const access of [psk, { type: 'x509', clients: ['dns:a.example'] }, { type: 'loopback' }] as const) {
    const one = await entry(access);
    await store.put(one);
    t.strictSame(readEntry(run, 'e'), one);
    t.strictSame(entryIds(run), ['e']);
  }
  await store.remove('e');
  await store.remove('e');
  t.strictSame(readdirSync(entries), []);
  t.equal(readEntry(run, 'e'), undefined);
});

t.test('asked for again and again, it is read once; what changes or goes shows at once', async (t) => {
  const cache = new EntryCache(run);
  t.equal(cache.find('e'), undefined);
  const one = await entry(psk);
  await store.put(one);
  const found = cache.find('e');
  t.strictSame(found, one);
  for (let i = 0; i < 3; i++) t.equal(cache.find('e'), found, 'the very same');

  const longer = { ...one, lease: beginLease(await bootClock(), 90) };
  await store.put(longer);
  t.strictSame(cache.find('e'), longer, 'another file');
  writeFileSync(join(entries, 'e.json'), JSON.stringify(one).replace(KEY, KEY.replaceAll('a', 'b')));
  t.strictSame(cache.find('e')?.access, { ...psk, key: KEY.replaceAll('a', 'b') }, 'in its place, as long');
  writeFileSync(join(entries, 'e.json'), '{');
  t.equal(cache.find('e'), undefined, 'broken');
  await store.put(one);
  t.strictSame(cache.find('e'), one);
  await store.remove('e');
  t.equal(cache.find('e'), undefined, 'withdrawn');
  await store.put(one);
  t.strictSame(cache.ids(), ['e']);
  t.strictSame(cache.find('e'), one);
  await store.remove('e');
  t.strictSame(cache.ids(), []);
  for (const name of ['../outside', '', 'e/', 'e\0']) t.equal(cache.find(name), undefined);
});

t.test('a name that is no id leads nowhere', async (t) => {
  writeFileSync(
    join(run, 'gateway', 'outside.json'),
    JSON.stringify({ ...(await entry(psk)), exportId: '../outside' }),
  );
  for (const name of ['../outside', '', '.', 'e/', 'e\0', 'x'.repeat(300)])
    t.equal(readEntry(run, name), undefined, name);
});

t.test('a file that is not what it should be opens nothing', async (t) => {
  const whole = await entry(psk);
  t.strictSame(readBack(whole), whole);
  const text = JSON.stringify(whole);
  for (const content of ['', '{', 'null', '[]', '1', text.slice(0, -1), text.replace(KEY, KEY.slice(2))]) {
    t.equal(readBack(content), undefined, content.slice(0, 20));
  }
  for (const member of Object.keys(whole) as (keyof GatewayEntry)[]) {
    const { [member]: _, ...rest } = whole;
    t.equal(readBack(rest), undefined, `without ${member}`);
    for (const value of ['', 'x', -1, 1.5, true, null, [], {}]) {
      if (JSON.stringify(whole[member]) === JSON.stringify(value)) continue;
      if (member === 'lease' && value === null) continue; // has no end
      if (member === 'extendedHeaders' && value === true) continue;
      t.equal(readBack({ ...whole, [member]: value }), undefined, `${member} = ${JSON.stringify(value)}`);
    }
  }
  for (const access of [
    { ...psk, identity: 'another' },
    { ...psk, key: KEY.toUpperCase() },
    { ...psk, key: '' },
    { type: 'x509' },
    { type: 'x509', clients: 'dns:a.example' },
    { type: 'x509', clients: ['appliance'] },
    { type: 'x509', clients: ['subject:appliance'] },
    { type: 'toString' },
  ]) {
    t.equal(readBack({ ...whole, access }), undefined, JSON.stringify(access).slice(0, 60));
  }
  t.equal(readBack({ ...whole, exportId: 'another' }), undefined, 'under the name of another');
  t.equal(readBack({ ...whole, version: ENTRY_VERSION + 1 }), undefined, 'of a newer program');
  rmSync(join(entries, 'e.json'));
  mkdirSync(join(entries, 'e.json'));
  t.equal(readEntry(run, 'e'), undefined, 'a directory');
});
