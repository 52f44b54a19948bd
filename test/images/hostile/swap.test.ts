/**
 * What was checked is what is opened: files, directories, links and headers are exchanged while an export is prepared, at each
 * point that the daemon passes and at random moments, and never does a byte of the forbidden file come out of an export.
 * Needs root. `SWAPS=N` moments (default 40; `SWAPS=1000 npm test test/images/hostile/swap` is the long form), `SEED=S` those
 * of an earlier run, as a failure tells it.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import t, { type Test } from 'tap';
import { prepare, remains, sha256OfExport, sha256OfImage, verb } from '../../exports/rig.js';
import { type InjectedDaemon, startInjected } from '../../faults/injected-daemon.js';
import { SeededRandom } from '../../golden/random.js';
import { RpcFailure, untilRecovered } from '../../host/daemon.js';
import { type Host, startHost } from '../../host/host.js';
import { EXTENSION, qcow2Image } from './qcow2-image.js';

t.setTimeout(1_800_000);

const IMAGES = '/var/lib/libvirt/images';
const SIZE = 1 << 20;
const { SWAPS = '40', SEED = randomBytes(4).toString('hex') } = process.env;
/** Milliseconds from the call in which moments lie: an answer takes some 100. */
const SPAN_MS = 160;

let host: Host;
let daemon: InjectedDaemon;
let secret: string;
/** SHA-256 of the disk that may be read. */
let allowed: string;
let sound: Map<string, Buffer>;

/**
 * An exchange, as a shell command in the images' directory, which is over in one system call or write; `sound` is restored
 * afterwards. Prepared beforehand in `swap/`.
 */
const EXCHANGES = {
  'the top for a link': 'mv -T swap/link-top top.qcow2',
  'the base for a link': 'mv -T swap/link-base below/base.raw',
  'the directory of the base for a link': 'mv below swap/away; mv -T swap/link-below below',
  'the top for one backed by the forbidden file': 'mv -T swap/backed.qcow2 top.qcow2',
  'the header of the top, in place, for one with a data file':
    'dd if=swap/header of=top.qcow2 conv=notrunc status=none',
} as const;
type Exchange = keyof typeof EXCHANGES;
const exchanges = Object.keys(EXCHANGES) as [Exchange, ...Exchange[]];

t.before(async () => {
  host = await startHost(t);
  secret = `${host.dir}/secret`;
  mkdirSync(secret);
  // As large as the disk, and under the name of the base: nothing about it is odd but where it lies.
  for (const name of ['key', 'base.raw'])
    writeFileSync(`${secret}/${name}`, Buffer.alloc(SIZE, 'forbidden '));
  mkdirSync(at('below'));
  writeFileSync(at('below/base.raw'), Buffer.alloc(SIZE, 'allowed '));
  writeFileSync(at('top.qcow2'), qcow2Image({ backing: 'below/base.raw', backingFormat: 'raw' }));
  sound = new Map(['below/base.raw', 'top.qcow2'].map((name) => [name, readFileSync(at(name))]));
  allowed = await sha256OfImage(host, `${IMAGES}/top.qcow2`, 'qcow2');
  daemon = await startInjected(host, {});
  await untilRecovered(daemon);
});

const at = (name: string): string => host.path(`${IMAGES}/${name}`);
const inImages = (script: string): string => `cd ${IMAGES} && { ${script}; }`;

/** All as it should be, and the exchanges ready. */
function restore(): void {
  for (const name of ['below', 'swap']) rmSync(at(name), { recursive: true, force: true });
  mkdirSync(at('below'));
  mkdirSync(at('swap'));
  for (const [name, content] of sound) {
    writeFileSync(at(`${name}.new`), content);
    renameSync(at(`${name}.new`), at(name));
  }
  symlinkSync(`${secret}/key`, at('swap/link-base'));
  symlinkSync(`${secret}/key`, at('swap/link-top'));
  symlinkSync(secret, at('swap/link-below'));
  writeFileSync(at('swap/backed.qcow2'), qcow2Image({ backing: `${secret}/key`, backingFormat: 'raw' }));
  const header = qcow2Image({
    backing: 'below/base.raw',
    backingFormat: 'raw',
    fields: { incompatible: 1n << 2n, autoclear: 1n << 1n },
    extensions: [{ type: EXTENSION.dataFile, data: `${secret}/key` }],
  });
  writeFileSync(at('swap/header'), header.subarray(0, 65536));
}

/** An export prepared while something happens: refused with a fit reason, or the allowed disk to the last byte. */
async function outcome(t: Test, exportId: string, what: string): Promise<'served' | 'refused'> {
  try {
    const made = await prepare(daemon, { exportId, path: `${IMAGES}/top.qcow2`, format: 'qcow2' });
    const read = await sha256OfExport(host, made.uri);
    if (read !== allowed) t.fail(`${what}: another disk came out`);
    return 'served';
  } catch (error) {
    if (!(error instanceof RpcFailure)) throw error;
    const { name } = error.data;
    const fit = ['UnsafeImage', 'PathNotAllowed', 'NoSuchImage', 'WrongFormat', 'ExportFailed'];
    if (!fit.includes(String(name))) t.fail(`${what}: ${error.message}`);
    return 'refused';
  } finally {
    await verb(daemon, 'teardownBackupDisk', { exportId });
  }
}

t.test('at each point that the daemon passes', async (t) => {
  restore();
  await daemon.arm({ at: null, tag: 'recorded' });
  const plain = await outcome(t, 'recorded', 'nothing');
  t.equal(plain, 'served');
  // Up to where the answer has gone out, no later.
  const passed = daemon.passed();
  const points = passed.slice(
    0,
    passed.findIndex((point) => point.startsWith('before signal')),
  );
  t.ok(
    points.some((point) => point.startsWith('before spawn qemu-nbd')),
    points.join('\n'),
  );
  const seen = { served: 0, refused: 0 };
  for (const exchange of exchanges) {
    for (const [i, point] of points.entries()) {
      restore();
      const exportId = `point${exchanges.indexOf(exchange)}n${i}`;
      await daemon.arm({ at: point, harm: inImages(EXCHANGES[exchange]), tag: exportId });
      seen[await outcome(t, exportId, `${exchange} at ${point}`)] += 1;
      if (!daemon.passed().some((line) => line.startsWith('HARMED'))) t.fail(`${point} was not passed`);
    }
  }
  t.comment(`${points.length} points, ${JSON.stringify(seen)}`);
  t.ok(
    seen.served > 0 && seen.refused > 0,
    'some exchanges came too late to matter, and some in time to be found',
  );
  restore();
  t.strictSame(await remains(host), []);
});

t.test('at random moments', async (t) => {
  await daemon.arm({ at: null });
  const random = new SeededRandom(SEED);
  const seen = { served: 0, refused: 0 };
  for (let i = 0; i < Number(SWAPS); i++) {
    restore();
    const exchange = random.pick(exchanges);
    const moment = random.below(SPAN_MS);
    const swapped = sleep(moment).then(() =>
      execa('sh', ['-c', EXCHANGES[exchange]], { cwd: host.path(IMAGES) }),
    );
    seen[await outcome(t, `random-${i}`, `${exchange} after ${moment} ms (SEED=${SEED})`)] += 1;
    await swapped;
  }
  t.comment(`SEED=${SEED}: ${JSON.stringify(seen)}`);
  t.equal(seen.served + seen.refused, Number(SWAPS));
  restore();
  t.strictSame(await remains(host), []);
});

t.test('without confinement, a data file shows before anybody is let in', async (t) => {
  await daemon.kill();
  await host.must('mount', ['--bind', '/dev/null', '/usr/bin/unshare']);
  daemon = await startInjected(host, {}, { at: null }, { confined: false });
  await untilRecovered(daemon);
  t.match(daemon.log(), /they cannot be confined here/);
  restore();
  t.equal(await outcome(t, 'plain', 'nothing'), 'served');
  const point = 'before opening the gate of qemu-nbd@1';
  for (const [exportId, exchange] of exchanges.map((one, i) => [`plain${i}`, one] as const)) {
    restore();
    await daemon.arm({ at: point, harm: inImages(EXCHANGES[exchange]), tag: exportId });
    const isHeader = EXCHANGES[exchange].startsWith('dd');
    t.equal(await outcome(t, exportId, exchange), isHeader ? 'refused' : 'served', exchange);
  }
  t.strictSame(await remains(host), []);
});
