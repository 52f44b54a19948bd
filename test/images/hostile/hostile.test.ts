/**
 * Every image of the corpus through the real daemon: refused by name, with nothing opened but images that were allowed,
 * nothing run and nothing dialled. Needs root, and strace.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import {
  defineVm,
  failureOf,
  MiB,
  prepare,
  remains,
  sha256OfExport,
  sha256OfImage,
  verb,
} from '../../exports/rig.js';
import type { DaemonHandle } from '../../host/daemon.js';
import { type Host, startHost } from '../../host/host.js';
import { poll } from '../../host/poll.js';
import { hostileCases, type Places } from './corpus.js';
import { EXTENSION, qcow2Image } from './qcow2-image.js';
import { startTrace, type Trace } from './trace.js';

t.setTimeout(600_000);

const IMAGES = '/var/lib/libvirt/images';
const SECRET = Buffer.alloc(65536, 'the secret of the host; ');
let host: Host;
let daemon: DaemonHandle;
let places: Places;

t.before(async () => {
  host = await startHost(t);
  places = { images: IMAGES, secret: `${host.dir}/secret` };
  mkdirSync(places.secret);
  writeFileSync(`${places.secret}/key`, SECRET);
  daemon = await host.startDaemon();
});

const write = (name: string, content: Buffer) => writeFileSync(host.path(`${IMAGES}/${name}`), content);
const make = (script: string) =>
  host.must('sh', ['-euc', `cd ${IMAGES}; ${script}`], { env: { SECRET: places.secret } });

t.test('what the corpus is made of is an image, as far as QEMU can tell', async (t) => {
  write('sound.qcow2', qcow2Image());
  await host.must('qemu-img', ['check', '-q', '-f', 'qcow2', `${IMAGES}/sound.qcow2`]);
  write('near.raw', SECRET);
  write(
    'data.qcow2',
    qcow2Image({
      fields: { incompatible: 4n },
      extensions: [{ type: EXTENSION.dataFile, data: 'near.raw' }],
    }),
  );
  const info = await host.must('qemu-img', ['info', '--output=json', '-f', 'qcow2', `${IMAGES}/data.qcow2`]);
  t.match(JSON.parse(info), { 'format-specific': { data: { 'data-file': 'near.raw' } } });
});

t.test('each is refused by name, and nothing else is opened, run or dialled', async (t) => {
  const cases = hostileCases(places);
  t.ok(cases.length >= 40, `${cases.length} cases`);
  for (const { files = {}, make: script } of cases) {
    for (const [name, content] of Object.entries(files)) write(name, content);
    if (script !== undefined) await make(script);
  }
  const trace = await startTrace(host, daemon.pid);
  try {
    for (const [i, { what, refusedAs, path, format }] of cases.entries()) {
      const whole = path.startsWith('/') ? path : `${IMAGES}/${path}`;
      const failure = await failureOf(prepare(daemon, { exportId: `case-${i}`, path: whole, format }));
      t.equal(failure.data.name, refusedAs, `${what}: ${failure.message}`);
    }
    t.strictSame(trace.ran(), [], 'nothing was run');
    await assertUntouched(t, trace);
    // The trace can see: this one is opened and run.
    await prepare(daemon, { exportId: 'sound', path: `${IMAGES}/sound.qcow2`, format: 'qcow2' });
    t.ok(
      trace.ran().some((program) => program.endsWith('/qemu-nbd')),
      'and a sound one is served',
    );
    t.ok(trace.opened().includes(`${IMAGES}/sound.qcow2`));
    await verb(daemon, 'teardownBackupDisk', { exportId: 'sound' });
  } finally {
    await trace.stop();
  }
  t.strictSame(await remains(host), []);
});

async function assertUntouched(t: Test, trace: Trace): Promise<void> {
  const bad =
    /\/secret\/|\/(fifo|backing-fifo|socket|character|directory|backing-directory)$|-else\/|^\/dev\/(zero|mem)|\/mem$|shadow/;
  t.strictSame(
    trace.opened().filter((name) => bad.test(name)),
    [],
    'no file that must not be touched was opened',
  );
  t.strictSame(trace.dialled(), [], 'nobody was dialled');
}

t.test(
  'what looks like another format is served byte by byte as the raw disk that it is said to be',
  async (t) => {
    const overlay = qcow2Image({ backing: `${places.secret}/key`, backingFormat: 'raw' });
    const descriptor = `# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 128 FLAT "${places.secret}/key" 0\n`;
    const contents = { overlay, vmdk: Buffer.from(descriptor.padEnd(512, '\n')) };
    const trace = await startTrace(host, daemon.pid);
    try {
      for (const [exportId, content] of Object.entries(contents)) {
        write(`${exportId}.raw`, content);
        const path = `${IMAGES}/${exportId}.raw`;
        const made = await prepare(daemon, { exportId, path, format: 'raw' });
        t.equal(made.drive.capacity, content.length, exportId);
        t.equal(await sha256OfExport(host, made.uri), await sha256OfImage(host, path, 'raw'));
        await verb(daemon, 'teardownBackupDisk', { exportId });
      }
      await assertUntouched(t, trace);
    } finally {
      await trace.stop();
    }
  },
);

t.test('a data file that is named but not used is not opened', async (t) => {
  write(
    'unused.qcow2',
    qcow2Image({ extensions: [{ type: EXTENSION.dataFile, data: `${places.secret}/key` }] }),
  );
  const trace = await startTrace(host, daemon.pid);
  try {
    const made = await prepare(daemon, {
      exportId: 'unused',
      path: `${IMAGES}/unused.qcow2`,
      format: 'qcow2',
    });
    t.equal(made.cbt.changedBytes, 0, 'the disk is empty');
    await verb(daemon, 'teardownBackupDisk', { exportId: 'unused' });
    await assertUntouched(t, trace);
  } finally {
    await trace.stop();
  }
});

t.test(
  'a merge asks what images of VMs that are off lead to, and opens none of it outside the roots',
  async (t) => {
    const at = (name: string) => `${IMAGES}/${name}`;
    const key = `${places.secret}/key`;
    const off: Record<string, Parameters<typeof qcow2Image>[0]> = {
      'off-qcow2.qcow2': { backing: key, backingFormat: 'qcow2' },
      'off-any.qcow2': { backing: key },
      'off-link.qcow2': { backing: 'off-link', backingFormat: 'qcow2' },
      'off-up.qcow2': { backing: `../../../../../../..${key}`, backingFormat: 'qcow2' },
      'off-json.qcow2': { backing: `json:{"driver":"qcow2","file":{"driver":"file","filename":"${key}"}}` },
      'off-file.qcow2': { backing: `file:${key}` },
      'off-over.qcow2': { backing: 'off-any.qcow2', backingFormat: 'qcow2' },
      'off-fifo.qcow2': { backing: 'fifo', backingFormat: 'qcow2' },
    };
    await make(`ln -s "$SECRET/key" off-link`);
    const disks = Object.entries(off).map(([name, parts], i) => {
      write(name, qcow2Image(parts));
      return { path: at(name), format: 'qcow2' as const, target: `vd${'abcdefgh'[i]}` };
    });
    await defineVm(host, { name: 'hostile', disks });
    const path = await host.createImage({ name: 'merged.qcow2', format: 'qcow2', size: MiB });
    await defineVm(host, { name: 'merged', disks: [{ path, format: 'qcow2', target: 'vda' }] });
    await host.virsh('start', '--paused', 'merged');
    const overlays = () =>
      readdirSync(host.path(IMAGES)).filter((name) => name.startsWith('merged.qcow2.vmdiskd-'));
    const merge = async (snapshotId: string) => {
      await verb(daemon, 'createSnapshot', { vmId: 'merged', snapshotId });
      const { jobId } = await verb(daemon, 'deleteSnapshot', { vmId: 'merged', snapshotId });
      const job = () => verb(daemon, 'getJob', { jobId });
      await poll('the merge to end', 30_000, async () => (await job()).state !== 'running');
      t.match(await job(), { state: 'done' });
    };
    const trace = await startTrace(host, daemon.pid);
    try {
      await merge('one');
      await assertUntouched(t, trace);
      t.ok(trace.opened().includes(at('off-over.qcow2')), 'the trace sees that they are looked at');
    } finally {
      await trace.stop();
    }
    t.equal(overlays().length, 1, 'what cannot be ruled out to be needed stays');
    await host.virsh('undefine', 'hostile');
    const raw = qcow2Image({ backing: key, backingFormat: 'raw' });
    write('off-raw.qcow2', raw);
    await defineVm(host, {
      name: 'foreign',
      disks: [{ path: at('off-raw.qcow2'), format: 'qcow2', target: 'vda' }],
    });
    await merge('two');
    t.equal(overlays().length, 1, 'a raw base leads nowhere, wherever it lies');
    await host.virsh('destroy', 'merged');
  },
);
