/** Checkpoints through the daemon: pending until good, since any of them, lost and found, of VMs that are off; and maps by depth. Needs root. */
import { writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Outcome, PrepareBackupDiskParams, PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { defineVm, failureOf, type Given, joinBy, MiB, prepare, refused, verb } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import {
  bitmapsIn,
  Copies,
  checkpointsOf,
  io,
  remains,
  same,
  smallImage,
  startBackup,
  virtio,
  writeTo,
} from './rig.js';

t.setTimeout(900_000);

const K64 = 65536;
let host: Host;
let daemon: DaemonHandle;
let copies: Copies;

t.before(async () => {
  host = await startHost(t);
  copies = new Copies(host);
  daemon = await host.startDaemon({ limits: { scratchReserve: MiB } });
});

let runs = 0;
/** One run of a backup tool on one disk: prepare, copy, tear down. */
async function run(
  t: Test,
  given: Given<PrepareBackupDiskParams>,
  base: string | null,
  outcome?: Outcome,
): Promise<{ made: PrepareBackupDiskResult; copy: string }> {
  runs += 1;
  const exportId = `run-${runs}`;
  const made = await prepare(daemon, { exportId, disk: 'vda', ...given });
  const copy = await copies.take(t, made, made.cbt.mode === 'full' ? null : base);
  const ended = await verb(daemon, 'teardownBackupDisk', {
    exportId,
    ...(outcome !== undefined && { outcome }),
  });
  if (given.checkpoint !== undefined) {
    t.strictSame(ended.checkpoint, {
      id: given.checkpoint,
      state: outcome === 'success' ? 'kept' : 'deleted',
    });
  }
  return { made, copy };
}

/** A VM of that name whose QEMU holds a small disk; the writes of its guest are `writeTo`'s. */
async function vm(name: string): Promise<string> {
  const image = await smallImage({ host, name: `${name}.qcow2` });
  await defineVm(host, { name, disks: [virtio('vda', image)] });
  await host.virsh('start', '--paused', name);
  return image;
}

const write = (name: string, ...commands: string[]) => writeTo(host, name, 'virtio-disk0', ...commands);
const list = async (vmId: string) => (await verb(daemon, 'listCheckpoints', { vmId })).checkpoints;
const states = async (vmId: string) =>
  Object.fromEntries((await list(vmId)).map(({ checkpoint, state }) => [checkpoint, state]));
const dirty = ({ cbt }: PrepareBackupDiskResult): [start: number, length: number][] =>
  joinBy(cbt.extents, 'dirty').flatMap(({ start, length, value }) => (value ? [[start, length]] : []));
/** The disk now, as a full backup of its own reads it. */
const now = async (t: Test, vmId: string) => (await run(t, { vmId }, null)).copy;

t.test('a checkpoint is pending until its backup is called good', async (t) => {
  await vm('web');
  const first = { exportId: 'p1', vmId: 'web', disk: 'vda', checkpoint: 'c1' };
  await prepare(daemon, first);
  t.strictSame(await states('web'), { c1: 'pending' });
  await verb(daemon, 'teardownBackupDisk', { exportId: 'p1', outcome: 'failed' });
  t.strictSame(await states('web'), {});
  await startBackup(daemon, { backupId: 'b1', vmId: 'web', disks: [{ disk: 'vda' }], checkpoint: 'c1' });
  const early = { vmId: 'web', disk: 'vda', backupId: 'b1' };
  await prepare(daemon, { exportId: 'p2', ...early });
  for (const outcome of ['success', 'failed'] as const) {
    const confirm = verb(daemon, 'confirmCheckpoint', { vmId: 'web', checkpoint: 'c1', outcome });
    t.match((await failureOf(confirm)).message, /decided at the end of the backup "b1"/);
  }
  const deletion = () => verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'c1' });
  await refused(t, host, 'ExportInUse', deletion, /belongs to the backup "b1"/);
  await verb(daemon, 'stopBackup', { backupId: 'b1', outcome: 'success', force: true });
  t.strictSame(await states('web'), { c1: 'good' });
  t.strictSame(
    await verb(daemon, 'confirmCheckpoint', { vmId: 'web', checkpoint: 'c1', outcome: 'failed' }),
    { vmId: (await host.virsh('domuuid', 'web')).trim(), checkpoint: { id: 'c1', state: 'kept' } },
    'what is decided stays',
  );
  t.strictSame(await remains(host), []);
});

t.test('a checkpoint made with a snapshot waits for confirmCheckpoint', async (t) => {
  const image = await vm('snap');
  const snapshot = { vmId: 'snap', checkpoint: 'c1', quiesce: 'no' as const };
  const made = await verb(daemon, 'createSnapshot', { snapshotId: 's1', ...snapshot });
  t.equal(made.checkpoint, 'c1');
  t.strictSame(
    await verb(daemon, 'createSnapshot', { snapshotId: 's1', ...snapshot }),
    made,
    'the same answer',
  );
  t.strictSame(await states('snap'), { c1: 'pending' });
  const since = { vmId: 'snap', disk: 'vda', since: { checkpoint: 'c1' } };
  await refused(
    t,
    host,
    'CheckpointPending',
    () => prepare(daemon, { exportId: 's-early', ...since }),
    /"c1"/,
  );
  const again = () => verb(daemon, 'createSnapshot', { snapshotId: 's2', ...snapshot });
  await refused(t, host, 'AlreadyExists', again, /checkpoint "c1" already/);

  const { copy } = await run(t, { vmId: 'snap', snapshotId: 's1' }, null);
  const kept = { vmId: made.vmId, checkpoint: { id: 'c1', state: 'kept' } };
  const confirm = (outcome: Outcome) =>
    verb(daemon, 'confirmCheckpoint', { vmId: 'snap', checkpoint: 'c1', outcome });
  t.strictSame(await confirm('success'), kept);
  t.strictSame(await confirm('success'), kept, 'once more');
  await write('snap', 'write -P 9 2M 128k');
  const next = await run(t, since, copy);
  t.strictSame(dirty(next.made), [[2 * MiB, 128 * 1024]]);

  const bad = await verb(daemon, 'createSnapshot', { snapshotId: 's3', ...snapshot, checkpoint: 'c3' });
  t.equal(bad.checkpoint, 'c3');
  await write('snap', 'write -P 10 3M 64k');
  await verb(daemon, 'createSnapshot', { snapshotId: 's3b', vmId: 'snap', quiesce: 'no' });
  await prepare(daemon, { exportId: 'reads-c3', vmId: 'snap', disk: 'vda', snapshotId: 's3b' });
  const told = /"reads-c3" reads a file of vda of snap that has the bitmap of the checkpoint "c/;
  const reject = () =>
    verb(daemon, 'confirmCheckpoint', { vmId: 'snap', checkpoint: 'c3', outcome: 'failed' });
  await refused(t, host, 'ExportInUse', reject, told, { exportId: 'reads-c3' });
  const older = () => verb(daemon, 'deleteCheckpoint', { vmId: 'snap', checkpoint: 'c1' });
  await refused(t, host, 'ExportInUse', older, told);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'reads-c3' });
  t.match(await verb(daemon, 'confirmCheckpoint', { vmId: 'snap', checkpoint: 'c3', outcome: 'failed' }), {
    checkpoint: { id: 'c3', state: 'deleted' },
  });
  t.strictSame(await states('snap'), { c1: 'good' });

  await host.virsh('destroy', 'snap');
  const off = () => verb(daemon, 'createSnapshot', { snapshotId: 's4', ...snapshot, checkpoint: 'c4' });
  await refused(t, host, 'SnapshotFailed', off, /off and has checkpoints; start it first/);
  t.notOk((await checkpointsOf(host, 'snap')).includes('c4'));
  t.ok((await bitmapsIn(host, image)).includes('c1'));
  t.strictSame(await remains(host), []);
});

t.test('a backup that has waited for a snapshot is of the disk as that has left it', async (t) => {
  await vm('turns');
  let backupId = '';
  // On a busy machine the snapshot may take longer than it is waited for.
  await poll('a backup to begin right after a snapshot', 60_000, async () => {
    backupId = `turn-${runs++}`;
    const wanted = { backupId, vmId: 'turns', disks: [{ disk: 'vda' }], checkpoint: backupId };
    const [snapshot, backup] = await Promise.allSettled([
      verb(daemon, 'createSnapshot', { snapshotId: backupId, vmId: 'turns', quiesce: 'no' }),
      startBackup(daemon, wanted),
    ]);
    if (backup.status === 'fulfilled') await verb(daemon, 'stopBackup', { backupId, outcome: 'success' });
    return snapshot.status === 'fulfilled' && backup.status === 'fulfilled';
  });
  await write('turns', 'write -P 7 2M 64k');
  const since = { vmId: 'turns', disk: 'vda', since: { checkpoint: backupId } };
  t.strictSame(dirty(await prepare(daemon, { exportId: 'turns', ...since })), [[2 * MiB, K64]]);
  await verb(daemon, 'teardownBackupDisk', { exportId: 'turns' });
  await host.virsh('destroy', 'turns');
  t.strictSame(await remains(host), []);
});

t.test('a map since a pending checkpoint is refused, also where a full one would do', async (t) => {
  // Of a VM that is off: a running one has no second job while the first waits for its outcome.
  const image = await smallImage({ host, name: 'wait.qcow2' });
  await defineVm(host, { name: 'wait', disks: [virtio('vda', image)] });
  const unknown = verb(daemon, 'confirmCheckpoint', { vmId: 'wait', checkpoint: 'x', outcome: 'failed' });
  t.equal((await failureOf(unknown)).data.name, 'NoSuchCheckpoint');
  await prepare(daemon, { exportId: 'w1', vmId: 'wait', disk: 'vda', checkpoint: 'off' });
  for (const ifUntracked of ['fail', 'full'] as const) {
    const wanted = { exportId: 'w2', vmId: 'wait', disk: 'vda', since: { checkpoint: 'off' }, ifUntracked };
    await refused(t, host, 'CheckpointPending', () => prepare(daemon, wanted), /"off".*not confirmed/);
  }
  await verb(daemon, 'teardownBackupDisk', { exportId: 'w1', outcome: 'failed' });
  t.strictSame(await remains(host), []);
});

t.test('since any of the checkpoints, not only the last; listed in order, deleted one by one', async (t) => {
  const chain: { at: string; copy: string }[] = [];
  for (const [index, at] of ['zulu', 'alpha', 'mike'].entries()) {
    const { copy } = await run(t, { vmId: 'web', checkpoint: at }, null, 'success');
    chain.push({ at, copy });
    await write('web', `write -P ${10 + index} ${index}M 64k`);
  }
  t.match(await list('web'), [
    {
      checkpoint: 'c1',
      parent: null,
      disks: ['vda'],
      state: 'good',
      reason: null,
      xml: /<domaincheckpoint>/,
    },
    { checkpoint: 'zulu', parent: 'c1', state: 'good' },
    { checkpoint: 'alpha', parent: 'zulu', state: 'good' },
    { checkpoint: 'mike', parent: 'alpha', state: 'good' },
  ]);
  const state = await now(t, 'web');
  for (const [index, { at, copy }] of chain.entries()) {
    const { made, copy: later } = await run(t, { vmId: 'web', since: { checkpoint: at } }, copy);
    t.match(made.cbt, { mode: 'incremental', origin: 'bitmap', since: { checkpoint: at } });
    t.equal(made.cbt.changedBytes, (3 - index) * K64, `since ${at}`);
    same(t, later, state, at);
  }
  const { next: after } = await verb(daemon, 'waitEvents', { timeoutSeconds: 0 });
  const uuid = (await host.virsh('domuuid', 'web')).trim();
  const deleteAlpha = (vmId: string) => verb(daemon, 'deleteCheckpoint', { vmId, checkpoint: 'alpha' });
  await Promise.allSettled([deleteAlpha('web'), deleteAlpha(uuid)]); // the second may be told that the first is at work
  await deleteAlpha('web');
  const { events } = await verb(daemon, 'waitEvents', { after, timeoutSeconds: 0 });
  t.equal(events.filter(({ kind }) => kind === 'checkpointDeleted').length, 1, 'told once');
  t.strictSame(
    (await list('web')).map(({ checkpoint }) => checkpoint),
    ['c1', 'zulu', 'mike'],
  );
  const { copy } = await run(t, { vmId: 'web', since: { checkpoint: 'zulu' } }, chain[0]?.copy ?? null);
  same(t, copy, state, 'zulu still counts without the one after it');
  const gone = () =>
    prepare(daemon, { exportId: 'x', vmId: 'web', disk: 'vda', since: { checkpoint: 'alpha' } });
  await refused(t, host, 'NoSuchCheckpoint', gone, /no checkpoint "alpha"/);
});

t.test('what libvirt has lost is listed as broken, defined again from our records, and counts', async (t) => {
  const before = await now(t, 'web');
  const { copy } = await run(t, { vmId: 'web', checkpoint: 'kept' }, null, 'success');
  same(t, copy, before, 'a full one');
  await host.virsh('destroy', 'web');
  const xml = await host.virsh('dumpxml', '--inactive', 'web');
  await host.virsh('undefine', '--checkpoints-metadata', 'web');
  writeFileSync(host.path('/run/web-again.xml'), xml);
  await host.virsh('define', '/run/web-again.xml');
  await host.virsh('start', '--paused', 'web');
  t.strictSame(await checkpointsOf(host, 'web'), []);
  t.match(await list('web'), [
    { checkpoint: 'c1', state: 'broken', reason: /redefineCheckpoints/ },
    { checkpoint: 'zulu', state: 'broken' },
    { checkpoint: 'mike', state: 'broken' },
    { checkpoint: 'kept', state: 'broken' },
  ]);
  const lost = () =>
    prepare(daemon, { exportId: 'x', vmId: 'web', disk: 'vda', since: { checkpoint: 'kept' } });
  await refused(t, host, 'NoSuchCheckpoint', lost, /libvirt has lost.*redefineCheckpoints/);
  const again = await verb(daemon, 'redefineCheckpoints', { vmId: 'web' });
  t.strictSame(
    again.checkpoints,
    ['c1', 'zulu', 'mike', 'kept'].map((checkpoint) => ({ checkpoint, state: 'defined', reason: null })),
    'also the child of one that was deleted before',
  );
  t.match((await verb(daemon, 'redefineCheckpoints', { vmId: 'web' })).checkpoints, [
    { state: 'known' },
    {},
    {},
    {},
  ]);
  await write('web', 'write -P 20 5M 64k');
  const state = await now(t, 'web');
  const { made, copy: later } = await run(t, { vmId: 'web', since: { checkpoint: 'kept' } }, copy);
  t.strictSame(dirty(made), [[5 * MiB, K64]]);
  same(t, later, state, 'right after all that');
});

t.test(
  'a transient VM loses its checkpoints with its end, and gets them back when it runs again',
  async (t) => {
    const image = await smallImage({ host, name: 'brief.qcow2' });
    await defineVm(host, { name: 'brief', disks: [virtio('vda', image)] });
    const xml = await host.virsh('dumpxml', 'brief');
    await host.virsh('undefine', 'brief');
    writeFileSync(host.path('/run/brief-again.xml'), xml);
    await host.virsh('create', '--paused', '/run/brief-again.xml');
    const { copy } = await run(t, { vmId: 'brief', checkpoint: 'c' }, null, 'success');
    await write('brief', 'write -P 30 3M 64k');
    await host.virsh('destroy', 'brief');
    await host.virsh('create', '--paused', '/run/brief-again.xml');
    t.strictSame(await states('brief'), { c: 'broken' });
    t.match((await verb(daemon, 'redefineCheckpoints', { vmId: 'brief' })).checkpoints, [
      { checkpoint: 'c', state: 'defined' },
    ]);
    const { made, copy: later } = await run(t, { vmId: 'brief', since: { checkpoint: 'c' } }, copy);
    t.strictSame(dirty(made), [[3 * MiB, K64]]);
    same(t, later, await now(t, 'brief'), 'with what was written before it ended');
    await host.virsh('destroy', 'brief');
    // Checkpoints of a VM that is gone for good can still be deleted, by its UUID.
    const vmId = /<uuid>(.*)<\/uuid>/.exec(xml)?.[1] ?? '';
    t.strictSame(await verb(daemon, 'deleteCheckpoint', { vmId, checkpoint: 'c' }), {
      vmId,
      checkpoint: 'c',
    });
  },
);

t.test("another product's checkpoints are used, and never touched", async (t) => {
  await host.virsh('checkpoint-create-as', 'web', 'theirs', '--diskspec', 'vda');
  const base = await now(t, 'web');
  await write('web', 'write -P 40 6M 64k');
  t.match((await list('web')).at(-1), { checkpoint: 'theirs', state: 'foreign', disks: ['vda'] });
  const { made, copy } = await run(
    t,
    { vmId: 'web', since: { checkpoint: 'theirs' }, checkpoint: 'ours' },
    base,
    'success',
  );
  t.strictSame(dirty(made), [[6 * MiB, K64]]);
  same(t, copy, await now(t, 'web'), 'since a checkpoint that virsh made');
  const deletion = () => verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'theirs' });
  await refused(t, host, 'NotOurs', deletion, /made by another product/);
  const taken = () => prepare(daemon, { exportId: 'x', vmId: 'web', disk: 'vda', checkpoint: 'theirs' });
  await refused(t, host, 'AlreadyExists', taken, /"theirs" already/);
  const xml = (await list('web')).find(({ checkpoint }) => checkpoint === 'theirs')?.xml ?? '';
  for (const [given, told] of [
    [xml, /\/checkpoints\/0\/xml is of .* "theirs", not "lost"/],
    ['<domain', /no XML of a checkpoint/],
  ] as const) {
    const again = { vmId: 'web', checkpoints: [{ checkpoint: 'lost', xml: given }] };
    const failure = await failureOf(verb(daemon, 'redefineCheckpoints', again));
    t.equal(failure.code, -32602);
    t.match(failure.message, told, 'one that is lost is not redefined as theirs');
  }
  t.ok((await checkpointsOf(host, 'web')).includes('theirs'));
  t.strictSame(await verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'none' }), {
    vmId: (await host.virsh('domuuid', 'web')).trim(),
    checkpoint: 'none',
  });
});

t.test('a checkpoint whose bitmap is broken is listed so, and deleted all the same', async (t) => {
  const nodes = JSON.parse(
    await host.virsh(
      'qemu-monitor-command',
      'web',
      '{"execute":"query-named-block-nodes","arguments":{"flat":true}}',
    ),
  ).return as { 'node-name': string; 'dirty-bitmaps'?: { name: string }[] }[];
  const node = nodes.find((one) => one['dirty-bitmaps']?.some(({ name }) => name === 'mike'))?.['node-name'];
  const command = { execute: 'block-dirty-bitmap-remove', arguments: { node, name: 'mike' } };
  await host.virsh('qemu-monitor-command', 'web', JSON.stringify(command));
  t.match(
    (await list('web')).find(({ checkpoint }) => checkpoint === 'mike'),
    { state: 'broken', reason: /mike|bitmap/ },
  );
  await verb(daemon, 'deleteCheckpoint', { vmId: 'web', checkpoint: 'mike' });
  t.notOk((await checkpointsOf(host, 'web')).includes('mike'));
  const order = (await list('web')).map(({ checkpoint }) => checkpoint);
  t.strictSame(order, ['c1', 'zulu', 'kept', 'theirs', 'ours'], 'the order of the others is kept');
  await host.virsh('destroy', 'web');
});

t.test(
  'a VM that is off: full, incremental, and a checkpoint that counts also after its start',
  async (t) => {
    const image = await smallImage({ host, name: 'off.qcow2' });
    await defineVm(host, { name: 'off', disks: [virtio('vda', image)] });
    const first = await run(t, { vmId: 'off', checkpoint: 'one' }, null, 'success');
    t.equal(first.made.blocksStart, true);
    t.strictSame(await checkpointsOf(host, 'off'), ['one']);
    await io(host, image, 'write -P 50 1M 64k', 'discard 4M 64k');
    const second = await run(
      t,
      { vmId: 'off', since: { checkpoint: 'one' }, checkpoint: 'two' },
      first.copy,
      'success',
    );
    t.strictSame(dirty(second.made), [
      [MiB, K64],
      [4 * MiB, K64],
    ]);
    t.ok(
      second.made.cbt.extents.some(({ start, dirty, zero }) => start === 4 * MiB && dirty && zero),
      'a discard is both',
    );
    const third = await run(
      t,
      { vmId: 'off', since: { checkpoint: 'two' }, checkpoint: 'not' },
      second.copy,
      'failed',
    );
    t.strictSame(dirty(third.made), []);
    t.strictSame(await bitmapsIn(host, image), ['one', 'two'], 'a failed one leaves no bitmap');
    await host.virsh('start', '--paused', 'off');
    await write('off', 'write -P 51 2M 64k');
    for (const [at, base, bytes] of [
      ['one', first.copy, 3 * K64],
      ['two', second.copy, K64],
    ] as const) {
      const { made, copy } = await run(t, { vmId: 'off', since: { checkpoint: at } }, base);
      t.equal(made.cbt.changedBytes, bytes, `since ${at}, made while it was off`);
      same(t, copy, await now(t, 'off'), at);
    }
    const live = await run(
      t,
      { vmId: 'off', since: { checkpoint: 'two' }, checkpoint: 'three' },
      second.copy,
      'success',
    );
    await write('off', 'write -P 52 3M 64k');
    await host.virsh('destroy', 'off');
    const last = await run(t, { vmId: 'off', since: { checkpoint: 'three' } }, live.copy);
    t.strictSame(dirty(last.made), [[3 * MiB, K64]], 'since one made while it ran');
    same(t, last.copy, await copies.ofImage(image, 'qcow2'), 'as qemu-img reads it');
    await verb(daemon, 'deleteCheckpoint', { vmId: 'off', checkpoint: 'two' });
    t.strictSame((await bitmapsIn(host, image)).sort(), ['one', 'three']);
    await host.must('qemu-img', ['bitmap', '--add', image, 'foreign']);
    const taken = () => prepare(daemon, { exportId: 'x', vmId: 'off', disk: 'vda', checkpoint: 'foreign' });
    await refused(t, host, 'AlreadyExists', taken, /a bitmap "foreign" already/);
    t.ok((await bitmapsIn(host, image)).includes('foreign'), "another's bitmap stays");
    t.strictSame(await remains(host), []);
  },
);

t.test('images that cannot hold a bitmap: no checkpoint, on or off', async (t) => {
  const raw = await host.createImage({ name: 'r.raw', format: 'raw', size: MiB });
  const old = await host.createImage({
    name: 'v2.qcow2',
    format: 'qcow2',
    size: MiB,
    options: ['compat=0.10'],
  });
  await defineVm(host, { name: 'plain', disks: [virtio('vda', raw, 'raw'), virtio('vdb', old)] });
  for (const state of ['off', 'on']) {
    for (const disk of ['vda', 'vdb']) {
      const wanted = { exportId: 'x', vmId: 'plain', disk, checkpoint: 'c' };
      await refused(
        t,
        host,
        'NotTracked',
        () => prepare(daemon, wanted),
        /cannot hold a checkpoint's bitmap/,
      );
    }
    if (state === 'off') await host.virsh('start', '--paused', 'plain');
  }
  const disks = [{ disk: 'vda' }, { disk: 'vdb' }];
  const made = await startBackup(daemon, { backupId: 'plain', vmId: 'plain', disks, checkpoint: 'c' });
  t.match(made.disks, [{ tracked: false }, { tracked: false }]);
  t.notOk('checkpoint' in made, 'none was made');
  await verb(daemon, 'stopBackup', { backupId: 'plain' });
  await host.virsh('destroy', 'plain');
  t.strictSame(await remains(host), []);
});

t.test(
  'by depth: what was written between two snapshots, also on raw images and without bitmaps',
  async (t) => {
    const raw = await host.createImage({ name: 'deep-raw.raw', format: 'raw', size: 8 * MiB });
    const qcow = await smallImage({ host, name: 'deep.qcow2' });
    await defineVm(host, { name: 'deep', disks: [virtio('vda', raw, 'raw'), virtio('vdb', qcow)] });
    await host.virsh('start', '--paused', 'deep');
    const both = async (...commands: string[]) => {
      for (const alias of ['virtio-disk0', 'virtio-disk1']) await writeTo(host, 'deep', alias, ...commands);
    };
    const last = new Map<string, string>();
    const take = (id: string) => host.virsh('snapshot-create-as', 'deep', id, '--disk-only', '--atomic');
    await both('write -P 60 0 1M', 'write -P 61 4M 128k');
    await take('S1');
    await both('write -P 62 2M 64k', 'discard 4M 64k', 'write -z 512k 64k');
    await take('S2');
    await both('write -P 63 6M 64k');
    for (const disk of ['vda', 'vdb']) {
      const s1 = await run(t, { vmId: 'deep', disk, snapshotId: 'S1' }, null);
      const s2 = await run(t, { vmId: 'deep', disk, snapshotId: 'S2', since: { snapshot: 'S1' } }, s1.copy);
      t.match(s2.made.cbt, {
        mode: 'incremental',
        origin: 'depth',
        since: { snapshot: 'S1' },
        metaContext: null,
      });
      t.strictSame(
        dirty(s2.made),
        [
          [512 * 1024, K64],
          [2 * MiB, K64],
          [4 * MiB, K64],
        ],
        disk,
      );
      t.ok(
        s2.made.cbt.extents.some(({ start, dirty, zero }) => start === 4 * MiB && dirty && zero),
        'a discard is both',
      );
      const live = () => prepare(daemon, { exportId: 'x', vmId: 'deep', disk, since: { snapshot: 'S2' } });
      await refused(t, host, 'NotTracked', live, /deep runs/);
      const anyway = { vmId: 'deep', disk, since: { snapshot: 'S2' }, ifUntracked: 'full' } as const;
      t.match((await run(t, anyway, null)).made.cbt, {
        mode: 'full',
        origin: 'allocation',
        reason: { name: 'NotTracked', message: /deep runs/ },
      });
      const wrong = () =>
        prepare(daemon, { exportId: 'x', vmId: 'deep', disk, snapshotId: 'S1', since: { snapshot: 'S2' } });
      await refused(t, host, 'NotTracked', wrong, /not below/);
      const full = await run(
        t,
        { vmId: 'deep', disk, snapshotId: 'S1', since: { snapshot: 'S2' }, ifUntracked: 'full' },
        null,
      );
      t.match(full.made.cbt, { mode: 'full', origin: 'allocation', reason: { name: 'NotTracked' } });
      last.set(disk, s2.copy);
    }
    await host.virsh('destroy', 'deep');
    for (const disk of ['vda', 'vdb']) {
      const off = await run(t, { vmId: 'deep', disk, since: { snapshot: 'S2' } }, last.get(disk) ?? null);
      t.match(off.made.cbt, { mode: 'incremental', origin: 'depth' });
      t.strictSame(dirty(off.made), [[6 * MiB, K64]], `${disk} of the VM that is off`);
    }
    t.strictSame(await remains(host), []);
  },
);

t.test('since a checkpoint across snapshots: the bitmaps of the layers are merged', async (t) => {
  await vm('layers');
  const first = await run(t, { vmId: 'layers', checkpoint: 'c' }, null, 'success');
  await write('layers', 'write -P 70 1M 64k');
  await host.virsh('snapshot-create-as', 'layers', 'S1', '--disk-only');
  await write('layers', 'write -P 71 2M 64k', 'discard 4M 64k');
  await host.virsh('snapshot-create-as', 'layers', 'S2', '--disk-only');
  await write('layers', 'write -P 72 3M 64k');
  const s1 = await run(t, { vmId: 'layers', snapshotId: 'S1', since: { checkpoint: 'c' } }, first.copy);
  t.match(s1.made.cbt, { origin: 'bitmap', metaContext: 'qemu:dirty-bitmap:c' });
  t.strictSame(dirty(s1.made), [[MiB, K64]]);
  const s2 = await run(t, { vmId: 'layers', snapshotId: 'S2', since: { checkpoint: 'c' } }, first.copy);
  t.match(s2.made.cbt, { origin: 'bitmap', metaContext: null });
  t.strictSame(dirty(s2.made), [
    [MiB, K64],
    [2 * MiB, K64],
    [4 * MiB, K64],
  ]);
  const live = await run(
    t,
    { vmId: 'layers', since: { checkpoint: 'c' }, checkpoint: 'd' },
    first.copy,
    'success',
  );
  t.strictSame(dirty(live.made), [
    [MiB, K64],
    [2 * MiB, K64],
    [3 * MiB, K64],
    [4 * MiB, K64],
  ]);
  await host.virsh('destroy', 'layers');
  const off = await run(t, { vmId: 'layers', since: { checkpoint: 'c' } }, first.copy);
  t.strictSame(dirty(off.made), dirty(live.made), 'the same of the VM that is off');
  const early = () =>
    prepare(daemon, {
      exportId: 'x',
      vmId: 'layers',
      disk: 'vda',
      snapshotId: 'S1',
      since: { checkpoint: 'd' },
    });
  await refused(t, host, 'BitmapDoesNotExist', early, /"d"/);
  t.strictSame(await remains(host), []);
});
