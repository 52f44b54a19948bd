import fc from 'fast-check';
import { test } from 'tap';
import { FrameReader, FrameTooLong } from '../../agent/rpc/framing.js';

/** The frames that come out when `bytes` arrive chopped at `cuts`. */
function framesOf(bytes: Buffer, cuts: readonly number[], limit: number): string[] {
  const reader = new FrameReader(limit);
  const frames: string[] = [];
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < edges.length; i++) {
    for (const frame of reader.push(bytes.subarray(edges[i - 1], edges[i])))
      frames.push(frame.toString('latin1'));
  }
  return frames;
}

test('frames are the same however the stream is chopped', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b.filter((byte) => byte !== 10)))),
      fc.array(fc.nat(2000), { maxLength: 20 }),
      (frames, cuts) => {
        const bytes = Buffer.concat(frames.flatMap((frame) => [frame, Buffer.from('\n')]));
        const found = framesOf(bytes, cuts, 64);
        return JSON.stringify(found) === JSON.stringify(frames.map((frame) => frame.toString('latin1')));
      },
    ),
  );
  t.same(framesOf(Buffer.from('a\nbc'), [1, 2, 3], 10), ['a'], 'what has no newline yet is no frame');
});

test('the limit is exact, in one chunk or byte by byte', async (t) => {
  const longest = Buffer.from(`${'x'.repeat(10)}\n`);
  const tooLong = Buffer.from(`${'x'.repeat(11)}\n`);
  const everyByte = Array.from({ length: 12 }, (_, i) => i);
  for (const cuts of [[], everyByte]) {
    t.same(framesOf(longest, cuts, 10), ['x'.repeat(10)]);
    t.throws(() => framesOf(tooLong, cuts, 10), FrameTooLong);
    t.throws(() => framesOf(Buffer.from('x'.repeat(11)), cuts, 10), FrameTooLong, 'also without an end');
  }
});

test('frames before one that is too long come out first', async (t) => {
  const reader = new FrameReader(4);
  const frames = reader.push(Buffer.from('one\ntwo\nthree\nsix\n'));
  t.equal(frames.next().value?.toString(), 'one');
  t.equal(frames.next().value?.toString(), 'two');
  t.throws(() => frames.next(), FrameTooLong);
});

test('a long frame that comes in one-byte chunks is held in memory of its own size', async (t) => {
  const reader = new FrameReader(1024 * 1024);
  const byte = Buffer.from('x');
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 1024 * 1024; i++)
    for (const frame of reader.push(byte)) t.fail(`a frame: ${frame.length}`);
  const [frame] = [...reader.push(Buffer.from('\n'))];
  t.equal(frame?.length, 1024 * 1024);
  // 1 MiB held, the doublings before it, and the finished frame.
  t.ok(process.memoryUsage().arrayBuffers - before < 8 * 1024 * 1024);
});
