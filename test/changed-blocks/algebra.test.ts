import fc from 'fast-check';
import t from 'tap';
import { type BitmapLayer, bitmapLayers } from '../../agent/changed-blocks/bitmap-chain.js';
import { BlockBits, bitmapBytes, toBits } from '../../agent/changed-blocks/bits.js';
import { coalesce, type Extent, overlay, pageOf, type Run } from '../../agent/changed-blocks/extents.js';

const runsOf = (capacity: number) =>
  fc.array(fc.record({ length: fc.integer({ min: 1, max: 40 }), value: fc.boolean() })).map((parts) => {
    const runs: Run<boolean>[] = [];
    let start = 0;
    for (const { length, value } of [...parts, { length: capacity, value: false }]) {
      const cut = Math.min(length, capacity - start);
      if (cut > 0) runs.push({ start, length: cut, value });
      start += cut;
    }
    return runs;
  });

const valueAt = <T>(runs: Iterable<Run<T>>, position: number): T | undefined => {
  for (const { start, length, value } of runs)
    if (position >= start && position < start + length) return value;
  return undefined;
};

async function* stream<T>(items: Iterable<T>) {
  yield* items;
}

const CAPACITY = 200;

t.test('overlay tells at every byte what both lists tell there', async (t) => {
  fc.assert(
    fc.property(runsOf(CAPACITY), runsOf(CAPACITY), (first, second) => {
      const both = [...overlay(first, second)];
      for (let byte = 0; byte < CAPACITY; byte++) {
        const [a, b] = valueAt(both, byte) ?? [];
        if (a !== valueAt(first, byte) || b !== valueAt(second, byte)) return false;
      }
      return both.reduce((sum, { length }) => sum + length, 0) === CAPACITY;
    }),
  );
  t.pass('1 property');
});

const extentsOf = fc.tuple(runsOf(CAPACITY), runsOf(CAPACITY)).map(([dirty, zero]): Extent[] =>
  [...overlay(dirty, zero)].map(({ start, length, value: [d, z] }) => ({
    start,
    length,
    dirty: d,
    zero: z,
  })),
);

t.test(
  'pages of any size put together are the whole map, without neighbours that say the same',
  async (t) => {
    await fc.assert(
      fc.asyncProperty(extentsOf, fc.integer({ min: 1, max: 7 }), async (extents, pageSize) => {
        const whole: Extent[] = [];
        for await (const extent of coalesce(stream(extents))) whole.push(extent);
        const paged: Extent[] = [];
        let offset: number | null = 0;
        while (offset !== null) {
          const from: number = offset;
          const rest = extents
            .map((e) => ({ ...e, start: Math.max(e.start, from), end: e.start + e.length }))
            .filter(({ start, end }) => end > start)
            .map(({ start, end, dirty, zero }) => ({ start, length: end - start, dirty, zero }));
          const page = await pageOf(coalesce(stream(rest)), pageSize, CAPACITY, CAPACITY);
          paged.push(...page.extents);
          offset = page.nextOffset;
        }
        t.same(paged, whole);
        return whole.every((extent, i) => {
          const before = whole[i - 1];
          return before === undefined || before.dirty !== extent.dirty || before.zero !== extent.zero;
        });
      }),
      { numRuns: 60 },
    );
  },
);

t.test('a page that ends before the disk does names where the next one begins', async (t) => {
  const extents = [{ start: 0, length: 10, dirty: true, zero: false }];
  t.same(await pageOf(stream(extents), 5, 10, 30), { extents, nextOffset: 10 });
  t.same(await pageOf(stream(extents), 5, 10, 10), { extents, nextOffset: null });
});

t.test('a bit is set exactly where any byte of its block is dirty', async (t) => {
  await fc.assert(
    fc.asyncProperty(extentsOf, fc.constantFrom(1, 4, 16, 64), async (extents, granularity) => {
      const bytes = await toBits(stream(extents), granularity, 0, CAPACITY);
      if (bytes.length !== bitmapBytes(CAPACITY, granularity)) return false;
      for (let block = 0; block < bytes.length * 8; block++) {
        const dirty = extents.some(
          (e) => e.dirty && e.start < (block + 1) * granularity && e.start + e.length > block * granularity,
        );
        if (((((bytes[block >> 3] ?? 0) >> (block & 7)) & 1) === 1) !== dirty) return false;
      }
      return true;
    }),
  );
  t.pass('1 property');
});

t.test('runs read back from bits cover the range that was asked for and agree with the bits', async (t) => {
  fc.assert(
    fc.property(
      runsOf(CAPACITY),
      fc.integer({ min: 0, max: CAPACITY - 1 }),
      fc.integer({ min: 1, max: CAPACITY }),
      (runs, start, wanted) => {
        const bits = new BlockBits(8, 0, CAPACITY);
        for (const run of runs) if (run.value) bits.set(run.start, run.length);
        const length = Math.min(wanted, CAPACITY - start);
        const back = [...bits.runs(start, length)];
        let at = start;
        for (const run of back) {
          if (run.start !== at || run.length === 0) return false;
          at += run.length;
        }
        for (let byte = start; byte < start + length; byte++) {
          const block = Math.floor(byte / 8) * 8;
          const dirty = runs.some((r) => r.value && r.start < block + 8 && r.start + r.length > block);
          if (valueAt(back, byte) !== dirty) return false;
        }
        return at === start + length;
      },
    ),
  );
  t.pass('1 property');
});

t.test('which chains a bitmap may be read from', async (t) => {
  const layer = (path: string, ...names: string[]): BitmapLayer => ({
    path,
    capacity: 100,
    bitmaps: names.map((name) => ({
      name: name.replace(/[!-]$/, ''),
      granularity: 65536,
      recording: !name.endsWith('-'),
      inconsistent: name.endsWith('!'),
    })),
  });
  const spanned = (...chain: BitmapLayer[]) => bitmapLayers(chain, 'b').map(({ path }) => path);
  t.same(spanned(layer('top', 'a', 'b')), ['top']);
  t.same(spanned(layer('top', 'b'), layer('mid', 'b'), layer('base')), ['top', 'mid']);
  const refused: [string, BitmapLayer[], RegExp][] = [
    ['BitmapDoesNotExist', [layer('top', 'a'), layer('base')], /No bitmap is named "b" in top/],
    ['InvalidBitmapChain', [layer('top'), layer('base', 'b')], /top lacks/],
    ['InvalidBitmapChain', [layer('top', 'b'), layer('mid'), layer('base', 'b')], /mid lacks/],
    ['InvalidBitmapChain', [{ ...layer('top', 'b'), capacity: 50 }, layer('base', 'b')], /smaller disk/],
    ['InconsistentCheckpoint', [layer('top', 'b!')], /in use/],
    ['InconsistentCheckpoint', [layer('top', 'b'), layer('base', 'b!')], /base is in use/],
    ['InconsistentCheckpoint', [layer('top', 'b-')], /disabled/],
    ['InconsistentCheckpoint', [layer('top', 'b'), layer('base', 'b-')], /disabled/],
  ];
  for (const [name, chain, message] of refused) {
    t.throws(() => bitmapLayers(chain, 'b'), { name, message }, `${name}: ${message}`);
  }
});
