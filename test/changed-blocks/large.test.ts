import { readFileSync } from 'node:fs';
import t from 'tap';
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import type { Extent } from '../../agent/changed-blocks/extents.js';
import { leftBehind } from '../golden/maps.golden.js';
import { FLAG, nbdinfoRanges, rangesOf } from '../golden/nbdinfo.js';
import { assertWhole, pagedBits, pagedExtents } from '../golden/paging.js';
import type { Range } from '../golden/ranges.js';
import { type Host, startHost } from '../host/host.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

const CAPACITY = 40 * GiB;
const GRANULARITY = 4 * KiB;
const BITMAP = 'large';
/**
 * Where every other block is dirty: at both ends, and across 32 GiB, where a page of a bitmap of 1 MiB ends. In
 * between lie 31 GiB and 7 GiB of nothing.
 */
const FRAGMENTED: Range[] = [
  { start: 0, end: 800 * MiB },
  { start: 32 * GiB - 400 * MiB, end: 32 * GiB + 400 * MiB },
  { start: CAPACITY - 800 * MiB, end: CAPACITY },
];
const DIRTY_RUNS = 307_200;
const MAX_GROWTH = 64 * MiB;

/**
 * Trims are recorded in the bitmap and change nothing else in an empty image, so that this takes seconds; every
 * thousandth is a write. 64 at a time are on their way.
 */
const FRAGMENT = `
import json, sys
data = nbd.Buffer.from_bytearray(bytearray(b"x" * ${GRANULARITY}))
pending = set()
count = 0
for start, end in json.load(sys.stdin):
    for at in range(start, end, ${2 * GRANULARITY}):
        pending.add(h.aio_pwrite(data, at) if count % 1000 == 0 else h.aio_trim(${GRANULARITY}, at))
        count += 1
        while len(pending) >= 64:
            h.poll(-1)
            pending = {cookie for cookie in pending if not h.aio_command_completed(cookie)}
while pending:
    h.poll(-1)
    pending = {cookie for cookie in pending if not h.aio_command_completed(cookie)}
h.shutdown()
`;

/** Resident memory of the daemon, in bytes; its pid is one of the host's own numbering. */
function residentMemory(host: Host, pid: number): number {
  const status = readFileSync(`/proc/${host.pid}/root/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * KiB;
}

async function makeImage(host: Host, name: string, backing?: string): Promise<string> {
  const path = await host.createImage({
    ...{ name, format: 'qcow2', size: CAPACITY },
    ...(backing !== undefined && { backing: { path: backing, format: 'qcow2' } }),
  });
  await host.must('qemu-img', ['bitmap', '--add', '-g', String(GRANULARITY), path, BITMAP]);
  return path;
}

async function fragment(host: Host, path: string, ranges: readonly Range[]): Promise<void> {
  const pairs = ranges.map(({ start, end }) => [start, end]);
  const server = ['qemu-nbd', '-f', 'qcow2', '--cache=unsafe', '--discard=unmap', path];
  const script = `h.connect_systemd_socket_activation(${JSON.stringify(server)})\n${FRAGMENT}`;
  await host.must('nbdsh', ['-c', script], { input: JSON.stringify(pairs) });
}

t.setTimeout(300_000);

await t.test('a map of 600,000 extents', async (t) => {
  const host = await startHost(t);
  const daemon = await host.startDaemon();
  const path = await makeImage(host, 'large.qcow2');
  await fragment(host, path, FRAGMENTED);
  const overlay = await makeImage(host, 'overlay.qcow2', path);
  await fragment(host, overlay, [{ start: 16 * GiB + GRANULARITY, end: 16 * GiB + 64 * MiB }]);

  const prepare = (exportId: string, image: string, inlineExtents: number) =>
    daemon.call<PrepareBackupDiskResult>('prepareBackupDisk', {
      ...{ exportId, path: image, format: 'qcow2', since: { bitmap: BITMAP }, inlineExtents },
    });
  const before = residentMemory(host, daemon.pid);
  let most = before;
  const sample = (): void => {
    most = Math.max(most, residentMemory(host, daemon.pid));
  };

  const { uri, cbt } = await prepare('none', path, 0);
  sample();
  let whole: Extent[] = [];

  await t.test('pages of extents make the whole map, which is that of nbdinfo', async (t) => {
    let pages = 0;
    whole = await pagedExtents(daemon, { exportId: 'none', capacity: CAPACITY, maxExtents: 10_000 }, () => {
      pages += 1;
      sample();
    });
    assertWhole(whole, 0, CAPACITY);
    t.equal(pages, Math.ceil(whole.length / 10_000), 'every page but the last is full');
    const dirty = rangesOf(whole, 'dirty');
    t.equal(dirty.length, DIRTY_RUNS);
    // Compared as text: a difference of two lists of this length takes the runner minutes to print.
    const seen = await nbdinfoRanges(host, uri, `qemu:dirty-bitmap:${BITMAP}`, FLAG.dirty);
    t.ok(JSON.stringify(dirty) === JSON.stringify(seen), 'dirty is what nbdinfo sees');
    const zeroes = await nbdinfoRanges(host, uri, 'base:allocation', FLAG.zero);
    t.ok(JSON.stringify(rangesOf(whole, 'zero')) === JSON.stringify(zeroes), 'so is zero');
    t.ok(whole.some(({ dirty, zero }) => dirty && !zero) && whole.some(({ dirty, zero }) => dirty && zero));
  });

  await t.test('pages of bits make the same map', async (t) => {
    let pages = 0;
    const onPage = (): void => {
      pages += 1;
      sample();
    };
    const expected = JSON.stringify(rangesOf(whole, 'dirty'));
    const largest = await pagedBits(daemon, { exportId: 'none', capacity: CAPACITY }, onPage);
    t.ok(JSON.stringify(largest) === expected, 'in pages as large as the daemon gives');
    t.equal(pages, 2, 'a page of 1 MiB covers 32 GiB');
    const odd = await pagedBits(daemon, { exportId: 'none', capacity: CAPACITY, blocks: 333_333 }, onPage);
    t.ok(JSON.stringify(odd) === expected, 'in pages of an odd size');
  });

  await t.test(
    'what comes inline is the beginning of the map, and nextOffset where it goes on',
    async (t) => {
      t.match(cbt, { extents: [], nextOffset: 0, changedBytes: null }, 'none');
      for (const inlineExtents of [1, 10_000]) {
        const { cbt } = await prepare(`inline-${inlineExtents}`, path, inlineExtents);
        sample();
        t.same(cbt.extents, whole.slice(0, inlineExtents), `${inlineExtents}`);
        t.equal(cbt.nextOffset, whole[inlineExtents]?.start, 'nextOffset is where the next extent begins');
        t.equal(cbt.changedBytes, null, 'the sum is not known');
        await daemon.call('teardownBackupDisk', { exportId: `inline-${inlineExtents}` });
      }
      await t.rejects(prepare('too-many', path, 10_001), { code: -32602 }, 'more is refused');
    },
  );

  await t.test('bits merged from two layers page alike', async (t) => {
    const { cbt } = await prepare('merged', overlay, 0);
    t.equal(cbt.metaContext, null, 'no one context is the map');
    const request = { exportId: 'merged', capacity: CAPACITY, maxExtents: 10_000 };
    const dirty = rangesOf(await pagedExtents(daemon, request, sample), 'dirty');
    const layers = await Promise.all(
      [path, overlay].map((image) =>
        nbdinfoRanges(
          host,
          ['qemu-nbd', '-r', '-f', 'qcow2', '-B', BITMAP, image],
          `qemu:dirty-bitmap:${BITMAP}`,
          FLAG.dirty,
        ),
      ),
    );
    const both = layers.flat().sort((a, b) => a.start - b.start);
    t.equal(dirty.length, DIRTY_RUNS + (64 * MiB) / (2 * GRANULARITY));
    t.ok(JSON.stringify(dirty) === JSON.stringify(both), 'dirty is what either layer recorded');
    await daemon.call('teardownBackupDisk', { exportId: 'merged' });
  });

  await daemon.call('teardownBackupDisk', { exportId: 'none' });
  const growth = (most - before) / MiB;
  t.comment(
    `resident memory of the daemon: ${(before / MiB).toFixed(0)} MiB, grew by ${growth.toFixed(0)} MiB`,
  );
  t.ok(most - before < MAX_GROWTH, `resident memory grew by ${growth.toFixed(0)} MiB`);
  t.same(await leftBehind(host), [], 'nothing is left');
});
