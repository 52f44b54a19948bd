/** What the daemon's own state stands on: records on disk, locks by key, and steps that can be taken back. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { KeyedLocks } from '../../agent/host/locks.js';
import { NewerRecordError, type RecordHeader, RecordStore } from '../../agent/host/records.js';
import { type LivingRecord, Registry } from '../../agent/host/registry.js';

interface Note extends RecordHeader {
  version: 2;
  kind: 'note';
  text: string;
}

const note = (text: string): Note => ({ version: 2, kind: 'note', text });
const never = new AbortController().signal;
let parent = '';
let count = 0;

t.before(async () => {
  parent = await mkdtemp('/tmp/vmdiskd-records-');
});
t.after(() => rm(parent, { recursive: true }));

/** A store over a directory of its own that does not exist yet. */
function emptyStore(): { dir: string; store: RecordStore<Note> } {
  count += 1;
  const dir = join(parent, `state-${count}`, 'note');
  return { dir, store: new RecordStore<Note>(dir, 'note', 2) };
}

t.test('a record is there for the next daemon as it was put last, private to root', async (t) => {
  const { dir, store } = emptyStore();
  t.strictSame(await store.load(), { records: new Map(), setAside: [] }, 'the directory is made');
  await store.put('a', note('first'));
  await store.put('a', note('second'));
  await store.put('b', note('other'));
  await store.remove('b');
  await store.remove('b');
  await store.remove('never-there');
  t.strictSame(await readdir(dir), ['a.json'], 'no temporary file stays');
  t.equal((await stat(dir)).mode & 0o777, 0o700);
  t.equal((await stat(join(dir, 'a.json'))).mode & 0o777, 0o600);
  const again = await new RecordStore<Note>(dir, 'note', 2).load();
  t.strictSame(again, { records: new Map([['a', note('second')]]), setAside: [] });
});

t.test('any text in a record, and any id that the schema lets through, comes back the same', async (t) => {
  const { dir, store } = emptyStore();
  await store.load();
  const ids = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/);
  // A map, as the store's own: of two records with one id the last counts.
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(ids, fc.string({ unit: 'binary' }), { maxKeys: 4, noNullPrototype: true }),
      async (texts) => {
        for (const [id, text] of Object.entries(texts)) await store.put(id, note(text));
        const { records, setAside } = await new RecordStore<Note>(dir, 'note', 2).load();
        const back = Object.fromEntries([...records].map(([id, { text }]) => [id, text]));
        for (const id of records.keys()) await store.remove(id);
        return setAside.length === 0 && isDeepStrictEqual(back, texts);
      },
    ),
    { numRuns: 30 },
  );
  t.pass('1 property');
});

t.test('a write that a crash cut off never took effect', async (t) => {
  const { dir, store } = emptyStore();
  await store.load();
  await store.put('a', note('whole'));
  await writeFile(join(dir, 'a.0123abcd.tmp'), '{"version": 2, "kind": "no');
  await writeFile(join(dir, 'README'), 'not ours');
  const { records, setAside } = await store.load();
  t.strictSame([...records.values()], [note('whole')]);
  t.strictSame(setAside, []);
  t.strictSame((await readdir(dir)).sort(), ['README', 'a.json']);
});

t.test('many writes at once leave one whole record', async (t) => {
  const { dir, store } = emptyStore();
  await store.load();
  const texts = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(5000));
  await Promise.all(texts.map((text) => store.put('a', note(text))));
  t.strictSame(await readdir(dir), ['a.json']);
  const { records } = await store.load();
  t.ok(texts.includes(records.get('a')?.text ?? ''));
});

t.test(
  'what cannot be read is set aside, kept for whoever looks into it, and does not stop the rest',
  async (t) => {
    const { dir, store } = emptyStore();
    await store.load();
    await store.put('good', note('kept'));
    const broken: Record<string, [content: string, reason: RegExp]> = {
      torn: ['{"version": 2, "kind": "no', /^not JSON: /],
      empty: ['', /^not JSON: /],
      list: ['[]', /^has no version$/],
      nothing: ['null', /^has no version$/],
      fraction: ['{"version": 1.5, "kind": "note"}', /^has no version$/],
      deep: [
        `{"version": 2, "kind": "note", "text": ${'['.repeat(9999)}${']'.repeat(9999)}}`,
        /^has more than 64 levels$/,
      ],
      other: ['{"version": 1, "kind": "export"}', /^is of kind export, not note$/],
    };
    for (const [id, [content]] of Object.entries(broken)) await writeFile(join(dir, `${id}.json`), content);
    const { records, setAside } = await store.load();
    t.strictSame([...records.keys()], ['good']);
    t.equal(setAside.length, Object.keys(broken).length);
    for (const { path, movedTo, reason } of setAside) {
      const [content, why] = broken[path.slice(dir.length + 1, -'.json'.length)] ?? [];
      t.match(reason, why ?? /never/, path);
      t.equal(await readFile(movedTo, 'utf8'), content, 'its content is kept');
      await t.rejects(stat(path), { code: 'ENOENT' });
    }
    t.strictSame((await store.load()).setAside, [], 'it is told once');
  },
);

t.test(
  'a record of a newer program stops the start, with file, versions and remedy, and stays',
  async (t) => {
    const { dir, store } = emptyStore();
    await store.load();
    const path = join(dir, 'future.json');
    const content = '{"version": 3, "kind": "note", "text": "?"}';
    await writeFile(path, content);
    const error = await store.load().catch((cause: unknown) => cause);
    t.type(error, NewerRecordError);
    t.match(error, {
      message: new RegExp(`^${path} .*version 3, this program knows 2.*start the newer program`),
    });
    t.equal(await readFile(path, 'utf8'), content);
  },
);

t.test('locks: one at a time a key, in the order of asking; other keys are free', async (t) => {
  const locks = new KeyedLocks();
  const order: string[] = [];
  let open = (): void => {};
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const first = locks.run('vm', 'hotplugDisk into web1', never, async () => {
    order.push('first begins');
    await gate;
    order.push('first ends');
    return 1;
  });
  const rest = ['second', 'third'].map((name) =>
    locks.run('vm', name, never, async () => {
      order.push(`${name} (${locks.holder('vm')})`);
      return name;
    }),
  );
  t.equal(locks.holder('vm'), 'hotplugDisk into web1');
  t.equal(await locks.run('other', 'someone', never, async () => locks.holder('other')), 'someone');
  t.equal(locks.holder('other'), undefined);
  open();
  t.strictSame(await Promise.all([first, ...rest]), [1, 'second', 'third']);
  t.strictSame(order, ['first begins', 'first ends', 'second (second)', 'third (third)']);
  t.equal(locks.holder('vm'), undefined);
});

t.test(
  'locks: work that fails lets go; who waits too long is told for whom, and does not hold up the next',
  async (t) => {
    const locks = new KeyedLocks();
    await t.rejects(
      locks.run('vm', 'one', never, async () => {
        throw new Error('broken');
      }),
      { message: 'broken' },
    );
    t.equal(locks.holder('vm'), undefined);

    let open = (): void => {};
    const held = locks.run(
      'vm',
      'prepareBackupDisk e1',
      never,
      () => new Promise<void>((resolve) => (open = resolve)),
    );
    const leave = new AbortController();
    let begun = false;
    const impatient = locks.run('vm', 'impatient', leave.signal, async () => {
      begun = true;
    });
    const patient = locks.run('vm', 'patient', never, async () => 'had its turn');
    leave.abort();
    const told = { name: 'Timeout', code: 5016, message: /prepareBackupDisk e1.*try again/ };
    await t.rejects(impatient, told);
    await t.rejects(
      locks.run('vm', 'too late', leave.signal, async () => {
        begun = true;
      }),
      told,
      'a signal that has fired already',
    );
    t.equal(begun, false);
    open();
    await held;
    t.equal(await patient, 'had its turn');
  },
);

t.test('locks under a random load never overlap and never get lost', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({ key: fc.constantFrom<'a' | 'b'>('a', 'b'), fails: fc.boolean(), leaves: fc.boolean() }),
        {
          maxLength: 30,
        },
      ),
      async (jobs) => {
        const locks = new KeyedLocks();
        const inside = { a: 0, b: 0 };
        const results = await Promise.allSettled(
          jobs.map(({ key, fails, leaves }) => {
            const leave = new AbortController();
            const run = locks.run(key, 'a job', leave.signal, async () => {
              if (++inside[key] > 1) throw new Error('two at once');
              await new Promise((resolve) => setImmediate(resolve));
              inside[key] -= 1;
              if (fails) throw new Error('asked for');
            });
            if (leaves) leave.abort();
            return run;
          }),
        );
        const overlapped = results.some(
          (one) => one.status === 'rejected' && /two at once/.test(one.reason.message),
        );
        return !overlapped && locks.holder('a') === undefined && locks.holder('b') === undefined;
      },
    ),
  );
  t.pass('1 property');
});

t.test('a record of the right kind and version without its members is set aside by name', async (t) => {
  const { dir, store } = emptyStore();
  await store.load();
  await store.put('whole', note('whole'));
  await writeFile(join(dir, 'half.json'), JSON.stringify({ version: 2, kind: 'note' }));
  const careful = new RecordStore<Note>(dir, 'note', 2, (record, id) =>
    typeof (record as Note).text === 'string' ? undefined : `${id} lacks its text`,
  );
  const { records, setAside } = await careful.load();
  t.strictSame([...records.keys()], ['whole']);
  t.match(setAside, [{ path: join(dir, 'half.json'), reason: /^half lacks its text$/ }]);
});

t.test('two sweeps at once: what has taken a forgotten id stays', async (t) => {
  interface Life extends LivingRecord {
    version: 1;
    kind: 'life';
    id: string;
  }
  const registry = new Registry<Life>(parent, {
    ...({ folder: 'lives', kind: 'life', version: 1, shape: () => undefined } as const),
    idOf: ({ id }) => id,
    remains: (record) => record,
  });
  await registry.load();
  const created = '2026-01-01T00:00:00.000Z';
  const life = (id: string, ended: string | null): Life => ({ version: 1, kind: 'life', id, created, ended });
  const ids = Array.from({ length: 50 }, (_, at) => `early-${at}`);
  for (const id of [...ids, 'again']) await registry.save(life(id, created));
  const sweep = registry.forgetEnded(Date.now());
  await registry.remove('again'); // as another sweep does
  await registry.save(life('again', null));
  t.ok(registry.find('early-49'), 'the first sweep is at work still');
  await sweep;
  t.strictSame(registry.all(), [life('again', null)]);
});

t.test('a record that cannot be written says so, may be tried again, and leaves no part of it', async (t) => {
  const { dir, store } = emptyStore();
  await store.load();
  await rm(dir, { recursive: true });
  await t.rejects(store.put('a', note('a')), { name: 'LimitReached', retryable: true, message: /make room/ });
  await store.load();
  await store.put('a', note('a'));
  t.strictSame(await readdir(dir), ['a.json']);
});
