/** The journal of events: numbers, gaps, bounds, and what is left after each kind of end. On real files. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { EventJournal, type EventPage } from '../../agent/events/journal.js';
import type { EventBounds } from '../../agent/events/recent-events.js';
import { createLog } from '../../agent/log.js';
import { poll } from '../host/poll.js';

const ROOMY = { events: 10_000, bytes: 8 << 20 };
/** Numbers that a start leaves out after an end that was not orderly. */
const LEFT_OUT = 1_000_000;

function directory(t: Test): string {
  const dir = mkdtempSync('/tmp/vmd-events-');
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return join(dir, 'events');
}

interface Opened {
  journal: EventJournal;
  /** Messages of the log. */
  said: string[];
}

async function open(t: Test, dir: string, bounds: EventBounds = ROOMY): Promise<Opened> {
  const said: string[] = [];
  const out = new Writable({
    write(chunk: Buffer, _encoding, done) {
      said.push((JSON.parse(chunk.toString()) as { msg: string }).msg);
      done();
    },
  });
  const journal = await EventJournal.open(dir, bounds, createLog({ level: 'debug', journal: false, out }));
  t.teardown(() => journal.close());
  return { journal, said };
}

const tell = (journal: EventJournal, ...reasons: string[]) => {
  for (const reason of reasons) journal.emit({ kind: 'libvirtLost', reason });
};
const seqs = ({ events }: EventPage) => events.map(({ seq }) => seq);
const reasons = ({ events }: EventPage) => events.map((event) => 'reason' in event && event.reason);
const files = (dir: string) => readdirSync(dir).sort();
const only = (dir: string) => join(dir, files(dir)[0] ?? '');

/** Waits until that number is on disk. */
const onDisk = (dir: string, seq: number) =>
  poll(`${seq} to be written`, 10_000, () =>
    files(dir).some((name) => readFileSync(join(dir, name), 'utf8').includes(`{"seq":${seq},`)),
  );

/** What kill -9 leaves: the files as they are now. */
function crashed(t: Test, dir: string): string {
  const copy = directory(t);
  cpSync(dir, copy, { recursive: true });
  return copy;
}

test('events are numbered from 1 on and told from any number on', async (t) => {
  const { journal } = await open(t, directory(t));
  t.strictSame(journal.pageAfter(0, 10), { journal: journal.id, events: [], next: 0, gap: null });
  tell(journal, 'a', 'b', 'c');
  const page = journal.pageAfter(0, 10);
  t.strictSame(seqs(page), [1, 2, 3]);
  t.match(page, { journal: journal.id, next: 3, gap: null });
  t.match(page.events[0], { kind: 'libvirtLost', reason: 'a', time: /^\d{4}-\d\d-\d\dT.*Z$/ });
  t.strictSame(reasons(journal.pageAfter(1, 1)), ['b'], 'as many as were asked for');
  t.strictSame(journal.pageAfter(3, 10).events, []);
});

test('an end in order: the numbering goes on, and nothing is missing', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a', 'b');
  await first.journal.close();
  const second = await open(t, dir);
  t.equal(second.journal.id, first.journal.id);
  tell(second.journal, 'c');
  t.match(second.journal.pageAfter(0, 10), { next: 3, gap: null });
  t.strictSame(reasons(second.journal.pageAfter(0, 10)), ['a', 'b', 'c']);
  await second.journal.close();
  const third = await open(t, dir);
  t.strictSame(reasons(third.journal.pageAfter(2, 10)), ['c']);
  t.strictSame([...first.said, ...second.said, ...third.said], []);
});

test('another end: numbers are left out, and told as a gap, at once and before what comes next', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a', 'b');
  await first.journal.close();
  // Opened and killed before it had given a number: what it might have given is left out all the same.
  await open(t, dir);
  const { journal } = await open(t, crashed(t, dir));
  t.equal(journal.id, first.journal.id);
  const left = { from: 3, to: 2 + LEFT_OUT };
  t.match(journal.pageAfter(2, 10), { events: [], next: left.to, gap: left });
  t.match(journal.pageAfter(journal.newest, 10), { events: [], gap: null }, 'who begins now is told of none');
  tell(journal, 'c');
  t.match(journal.pageAfter(0, 10), { next: 2, gap: null }, 'first what is before it');
  t.strictSame(reasons(journal.pageAfter(0, 10)), ['a', 'b']);
  t.match(journal.pageAfter(2, 10), { events: [{ seq: 3 + LEFT_OUT, reason: 'c' }], gap: left });
});

test('a number beyond the newest is answered at once', async (t) => {
  const { journal } = await open(t, directory(t));
  tell(journal, 'a');
  t.strictSame(journal.pageAfter(7, 10), {
    journal: journal.id,
    events: [],
    next: 1,
    gap: { from: 2, to: 7 },
  });
});

test('the bounds hold in memory and on disk, and what had to go is a gap', async (t) => {
  const text = 'x'.repeat(200);
  for (const bounds of [
    { events: 40, bytes: 1 << 20 },
    { events: 10_000, bytes: 10_000 },
  ]) {
    const dir = directory(t);
    const { journal } = await open(t, dir, bounds);
    for (let i = 0; i < 500; i++) {
      tell(journal, text);
      if (i % 7 === 0) await onDisk(dir, i + 1);
    }
    const page = journal.pageAfter(0, 1000);
    t.equal(page.next, 500);
    t.strictSame(page.gap, { from: 1, to: 500 - page.events.length });
    t.ok(page.events.length <= bounds.events);
    t.ok(page.events.length >= Math.min(bounds.events, Math.floor(bounds.bytes / 300)), 'and are used');
    await journal.close();
    const kept = files(dir).map((name) => readFileSync(join(dir, name), 'utf8'));
    const lines = kept
      .join('')
      .split('\n')
      .filter((line) => line.includes('"seq"'));
    t.ok(lines.length >= page.events.length, `${lines.length} of ${page.events.length} are on disk`);
    t.ok(lines.length <= bounds.events * 1.5 + 10);
    t.ok(kept.join('').length <= bounds.bytes * 1.5 + 2000);
    t.ok(files(dir).length > 1, 'in several files');
    const again = await open(t, dir, bounds);
    t.strictSame(seqs(again.journal.pageAfter(0, 1000)), seqs(page), 'after a restart the same are told');
  }
});

test('one answer is bounded, and long texts are cut', async (t) => {
  const { journal } = await open(t, directory(t));
  for (let i = 0; i < 600; i++) tell(journal, 'é'.repeat(5000));
  const page = journal.pageAfter(0, 1000);
  t.ok(JSON.stringify(page).length < 300 * 1024);
  t.equal(String(reasons(page)[0]).length, 1024);
  t.match(String(reasons(page)[0]), /^é+…$/);
  t.match(journal.pageAfter(page.next, 1000), { gap: null, events: [{ seq: page.next + 1 }] }, 'and goes on');
});

test('a last line that is torn is dropped, and what follows is written on a line of its own', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a', 'b');
  await first.journal.close();
  for (const [what, damage] of [
    ['cut in the last event', () => truncateSync(only(dir), readFileSync(only(dir)).lastIndexOf('"b"'))],
    ['an end of zeroes, as after a power cut', () => appendFileSync(only(dir), Buffer.alloc(512))],
  ] as const) {
    damage();
    const { journal, said } = await open(t, dir);
    tell(journal, what);
    t.match(journal.pageAfter(0, 1), { events: [{ reason: 'a' }], journal: first.journal.id });
    t.strictSame(said, [], what);
    await journal.close();
    const again = await open(t, dir);
    t.equal(reasons(again.journal.pageAfter(journal.newest - 1, 10))[0], what);
    await again.journal.close();
  }
});

test('a line in the middle that cannot be read is a gap', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a', 'b', 'c');
  await first.journal.close();
  writeFileSync(only(dir), readFileSync(only(dir), 'utf8').replace('"reason":"b"', '"reason'));
  const { journal } = await open(t, dir);
  t.strictSame(seqs(journal.pageAfter(0, 10)), [1]);
  t.match(journal.pageAfter(1, 10), { events: [{ seq: 3, reason: 'c' }], gap: { from: 2, to: 2 } });
});

test('a file that cannot be read is set aside: a new journal, and a message', async (t) => {
  for (const content of [
    'nonsense\n',
    '\0\0\0\0',
    '{"version":2,"kind":"events","journal":"of the future"}\n',
    '{"version":1,"kind":"export"}\n',
  ]) {
    const dir = directory(t);
    const first = await open(t, dir);
    tell(first.journal, 'a');
    await first.journal.close();
    writeFileSync(only(dir), content);
    const { journal, said } = await open(t, dir);
    t.not(journal.id, first.journal.id);
    t.match(said, [/set a file of the event journal aside/]);
    t.match(files(dir), [/^0{15}1\.jsonl$/, /^0{15}1\.jsonl\.unreadable-/]);
    tell(journal, 'b');
    t.match(journal.pageAfter(0, 10), { events: [{ seq: 1, reason: 'b' }], gap: null });
    await journal.close();
    t.match(readFileSync(join(dir, files(dir)[1] ?? ''), 'utf8'), content, 'what it was is kept');
    t.equal((await open(t, dir)).journal.id, journal.id, 'and the new one goes on');
  }
});

test('of several files one cannot be read: the journal goes on, with a gap', async (t) => {
  const dir = directory(t);
  const bounds = { events: 40, bytes: 1 << 20 };
  const first = await open(t, dir, bounds);
  for (let i = 0; i < 45; i++) {
    tell(first.journal, 'x');
    await onDisk(dir, i + 1);
  }
  await first.journal.close();
  const last = files(dir).at(-1) ?? '';
  writeFileSync(join(dir, last), 'nonsense');
  const { journal } = await open(t, dir, bounds);
  t.equal(journal.id, first.journal.id);
  t.ok(journal.newest >= 45 + LEFT_OUT - 40, 'beyond what that file may have had');
  t.ok(journal.newest > LEFT_OUT);
});

test('an empty file, begun when the host died, is nothing', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a');
  await first.journal.close();
  writeFileSync(join(dir, '0000000000000002.jsonl'), '');
  const { journal, said } = await open(t, dir);
  t.equal(journal.id, first.journal.id);
  t.strictSame(said, []);
  t.strictSame(files(dir), ['0000000000000001.jsonl']);
});

test('a disk at fault: events are told all the same, it is said once, and written when it is back', async (t) => {
  const dir = directory(t);
  writeFileSync(dir, 'a file where the directory should be');
  const { journal, said } = await open(t, dir);
  for (let i = 0; i < 5; i++) {
    tell(journal, `lost ${i}`);
    await poll('the fault to be said', 10_000, () => said.length > 0);
  }
  t.strictSame(seqs(journal.pageAfter(0, 10)), [1, 2, 3, 4, 5]);
  t.match(said, [/cannot be kept on disk/]);
  t.equal(said.length, 1);
  rmSync(dir);
  tell(journal, 'back');
  await journal.close();
  const again = await open(t, dir);
  t.strictSame(seqs(again.journal.pageAfter(0, 10)), [1, 2, 3, 4, 5, 6], 'none is missing');
});

test('a journal that began at a disk at fault is the one that the next start goes on with', async (t) => {
  const dir = directory(t);
  const first = await open(t, dir);
  tell(first.journal, 'a');
  await onDisk(dir, 1);
  const later = crashed(t, dir);
  const old = await open(t, later); // its numbers go on beyond a million
  tell(old.journal, 'old');
  await old.journal.close();
  renameSync(later, `${later}.away`);
  writeFileSync(later, 'a file where the directory should be');
  const { journal, said } = await open(t, later);
  tell(journal, 'new');
  await poll('the fault to be said', 10_000, () => said.length > 0);
  rmSync(later);
  renameSync(`${later}.away`, later);
  tell(journal, 'back');
  await journal.close();
  const again = await open(t, later);
  t.equal(again.journal.id, journal.id);
  t.strictSame(reasons(again.journal.pageAfter(0, 10)), ['new', 'back']);
});

test('a disk that is full from the middle of a line on', async (t) => {
  // /dev/full takes nothing: the second segment is put there, as a disk that fills up between two.
  const dir = directory(t);
  const bounds = { events: 100, bytes: 1 << 20 };
  const { journal, said } = await open(t, dir, bounds);
  for (let i = 0; i < 25; i++) tell(journal, 'first file');
  await onDisk(dir, 25);
  symlinkSync('/dev/full', join(dir, '0000000000000026.jsonl'));
  tell(journal, 'no room');
  await poll('the disk to be full', 10_000, () => said.length > 0);
  t.match(said, [/cannot be kept on disk/]);
  t.ok(statSync('/dev/full').isCharacterDevice(), 'the device is untouched');
  tell(journal, 'room again');
  await journal.close();
  const again = await open(t, dir, bounds);
  t.strictSame(reasons(again.journal.pageAfter(25, 10)), ['no room', 'room again']);
});

test('waiting ends with the next event, with the signal, and for all when they are released', async (t) => {
  const { journal } = await open(t, directory(t));
  const never = new AbortController();
  const woken = journal.change(never.signal);
  tell(journal, 'a');
  await woken;
  const given = new AbortController();
  const ended = journal.change(given.signal);
  given.abort();
  await ended;
  await journal.change(given.signal);
  const both = Promise.all([journal.change(never.signal), journal.change(never.signal)]);
  journal.release();
  await both;
  await journal.change(never.signal);
  tell(journal, 'still kept');
  t.equal(journal.newest, 2);
});

interface Said {
  journal: string;
  seq: number;
  reason: string;
}

/** Runs test/events/emitter.ts until it is dead; what it has said. */
async function emitter(t: Test, dir: string, args: string[], killAfterMs?: number): Promise<Said[]> {
  const script = fileURLToPath(new URL('emitter.ts', import.meta.url));
  const said = directory(t);
  const child = spawn(process.execPath, ['--import', 'tsx', script, dir, said, ...args], {
    stdio: 'inherit',
  });
  const closed = once(child, 'close');
  t.teardown(() => child.kill('SIGKILL'));
  if (killAfterMs !== undefined) {
    await poll('the first event', 60_000, () => existsSync(said) && statSync(said).size > 0, 1);
    await new Promise((resolve) => setTimeout(resolve, killAfterMs));
    child.kill('SIGKILL');
  }
  t.strictSame(await closed, [null, 'SIGKILL']);
  const lines = readFileSync(said, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Said);
}

test('kill -9, again and again: no number is given twice, and each end is followed by a gap', async (t) => {
  const dir = directory(t);
  const given = new Map<number, string>();
  const ends: number[] = [];
  for (const [args, killAfterMs] of [
    [['at once', '300'], undefined],
    [['in time'], 3],
    [['at once', '1'], undefined],
    [['in time'], 40],
    [['in time'], 150],
  ] as const) {
    const said = await emitter(t, dir, [...args], killAfterMs);
    t.ok(said.length > 0);
    for (const { seq, reason } of said) {
      t.notOk(given.has(seq), `${seq} is new`);
      given.set(seq, reason);
    }
    t.ok((said[0]?.seq ?? 0) > (ends.at(-1) ?? 0));
    ends.push(said.at(-1)?.seq ?? 0);
  }
  const { journal } = await open(t, dir);
  let told = 0;
  for (let from = 0; from < journal.newest; ) {
    const page = journal.pageAfter(from, 100);
    for (const event of page.events) {
      t.match(event, { reason: given.get(event.seq) }, 'what is told is what was given');
      told += 1;
    }
    t.ok(page.next > from);
    from = page.next;
  }
  for (const end of ends) {
    t.match(
      journal.pageAfter(end, 1),
      { gap: { from: end + 1 } },
      'who had seen all is told that more may have been',
    );
  }
  t.ok(told > 0 && told <= given.size, `${told} of ${given.size} had come to the disk`);
});

type Step =
  | { kind: 'emit'; count: number }
  | { kind: 'read'; reader: number; max: number }
  | { kind: 'end' | 'crash' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('emit' as const), count: fc.integer({ min: 1, max: 15 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      reader: fc.integer({ min: 0, max: 2 }),
      max: fc.integer({ min: 1, max: 12 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('end' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) },
);

test('whatever happens, each reader sees numbers go up, each once or in a gap, and each event as it was given', async (t) => {
  const bounds = { events: 25, bytes: 1 << 20 };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      let dir = directory(t);
      let { journal } = await open(t, dir, bounds);
      const given = new Map<number, string>();
      /** Given since the last crash: these cannot be lost but to the bounds. */
      let safe = 1;
      const readers = [0, 0, 0];
      const read = (reader: number, max: number) => {
        const after = readers[reader] ?? 0;
        const { events, next, gap } = journal.pageAfter(after, max);
        let at = after;
        if (gap !== null) {
          if (gap.from !== at + 1 || gap.to < gap.from)
            throw new Error(`a gap ${gap.from}-${gap.to} after ${at}`);
          const lost = [...given.keys()].filter((seq) => seq >= Math.max(gap.from, safe) && seq <= gap.to);
          if (lost.some((seq) => seq > journal.newest - bounds.events)) throw new Error(`${lost} are kept`);
          at = gap.to;
        }
        for (const event of events) {
          if (event.seq !== at + 1) throw new Error(`${event.seq} after ${at}`);
          if (!('reason' in event) || event.reason !== given.get(event.seq))
            throw new Error(`other ${event.seq}`);
          at = event.seq;
        }
        if (next !== at || events.length > max) throw new Error(`next ${next} after ${at}`);
        readers[reader] = next;
        return events.length > 0 || gap !== null;
      };
      for (const one of steps) {
        if (one.kind === 'emit') {
          for (let i = 0; i < one.count; i++) {
            const reason = `${given.size}`;
            tell(journal, reason);
            if (given.has(journal.newest)) throw new Error(`${journal.newest} was given twice`);
            given.set(journal.newest, reason);
          }
        } else if (one.kind === 'read') {
          read(one.reader, one.max);
        } else {
          if (one.kind === 'end') await journal.close();
          else dir = crashed(t, dir);
          const before = journal.newest;
          ({ journal } = await open(t, dir, bounds));
          if (one.kind === 'end' && journal.newest !== before) throw new Error('numbers were left out');
          if (one.kind === 'crash') safe = journal.newest + 1;
        }
      }
      for (const reader of readers.keys()) while (read(reader, 10));
      t.strictSame(readers, [journal.newest, journal.newest, journal.newest]);
    }),
    { numRuns: 40 },
  );
});
