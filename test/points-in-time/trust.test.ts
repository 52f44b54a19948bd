/** What may happen to a disk behind a checkpoint's back: the next incremental is the named error, never a map that lacks a change. Needs root. */
import { renameSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { ErrorName } from '../../agent/errors.js';
import { defineVm, MiB, prepare, refused, verb } from '../exports/rig.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { Copies, io, point, remains, same, smallImage, virtio, writeTo } from './rig.js';

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

const startVm = (name: string) => host.virsh('start', '--paused', name);
const destroy = (name: string) => host.virsh('destroy', name);
const write = (name: string, command: string) => writeTo(host, name, 'virtio-disk0', command);

let runs = 0;
const exportId = () => `run-${++runs}`;

const row = async (vmId: string, checkpoint: string) =>
  (await verb(daemon, 'listCheckpoints', { vmId })).checkpoints.find((one) => one.checkpoint === checkpoint);

/** A run that ends well; returns the copy. */
async function good(
  t: Test,
  vmId: string,
  given: { checkpoint?: string; since?: string; base?: string },
): Promise<string> {
  const { checkpoint, since, base } = given;
  if (since !== undefined) t.match(await row(vmId, since), { state: 'good', reason: null });
  const id = exportId();
  const made = await prepare(daemon, {
    ...{ exportId: id, vmId, disk: 'vda' },
    ...(checkpoint !== undefined && { checkpoint }),
    ...(since !== undefined && { since: { checkpoint: since } }),
  });
  t.equal(made.cbt.mode, since === undefined ? 'full' : 'incremental');
  if (since !== undefined) t.equal(made.cbt.changedBytes, K64);
  const copy = await copies.take(t, made, base ?? null);
  await verb(daemon, 'teardownBackupDisk', {
    exportId: id,
    ...(checkpoint !== undefined && { outcome: 'success' }),
  });
  return copy;
}

/** A running VM with the good checkpoint `before`, and a write after it. */
async function tracked(t: Test, name: string): Promise<string> {
  const image = await smallImage({ host, name: `${name}.qcow2` });
  await defineVm(host, { name, disks: [virtio('vda', image)] });
  await startVm(name);
  await good(t, name, { checkpoint: 'before' });
  await write(name, 'write -P 9 1M 64k');
  return image;
}

/** The map since `before` is that error, on the VM as it is, running or off; and the checkpoint is listed as broken. */
async function untrusted(
  t: Test,
  name: string,
  error: ErrorName,
  told: RegExp,
  since = 'before',
): Promise<void> {
  const wanted = { vmId: name, disk: 'vda', since: { checkpoint: since } };
  await refused(t, host, error, () => prepare(daemon, { exportId: exportId(), ...wanted }), told, {
    disk: 'vda',
  });
  t.match(await row(name, since), { state: 'broken', reason: String });
  const id = exportId();
  const full = await prepare(daemon, { exportId: id, ...wanted, ifUntracked: 'full' });
  t.match(full.cbt, { mode: 'full', origin: 'allocation', reason: { name: error, message: told } });
  t.notOk('since' in full.cbt);
  await copies.take(t, full, null);
  await verb(daemon, 'teardownBackupDisk', { exportId: id });
}

/** A full run with a new checkpoint begins a chain that counts, and nobody has deleted anything. */
async function healthyAgain(t: Test, name: string): Promise<void> {
  const base = await good(t, name, { checkpoint: 'after' });
  await write(name, 'write -P 11 3M 64k');
  const copy = await good(t, name, { since: 'after', checkpoint: 'later', base });
  same(t, copy, await good(t, name, {}), 'the new chain');
  await destroy(name);
  t.strictSame(await remains(host), []);
}

/** kill -9, and libvirt has noticed. */
async function killQemu(name: string): Promise<void> {
  const qemu = (await host.processes()).find(({ args }) =>
    args.some((arg) => arg.startsWith(`guest=${name}`)),
  );
  await host.must('kill', ['-9', String(qemu?.pid)]);
  await poll(`${name} to be off`, 30_000, async () => /shut off/.test(await host.virsh('domstate', name)));
}

/** The command of QEMU for the bitmap of the active layer. */
async function bitmapCommand(name: string, execute: string, bitmap: string): Promise<void> {
  const query = { execute: 'query-named-block-nodes', arguments: { flat: true } };
  const answer = JSON.parse(await host.virsh('qemu-monitor-command', name, JSON.stringify(query)));
  const node = answer.return.find((one: { 'dirty-bitmaps'?: { name: string }[] }) =>
    one['dirty-bitmaps']?.some((candidate) => candidate.name === bitmap),
  )['node-name'];
  const command = { execute, arguments: { node, name: bitmap } };
  await host.virsh('qemu-monitor-command', name, JSON.stringify(command));
}

t.test('the disk has grown', async (t) => {
  await tracked(t, 'grown');
  await host.virsh('blockresize', 'grown', 'vda', `${9 * MiB}B`);
  await untrusted(t, 'grown', 'InconsistentCheckpoint', /had 8388608 bytes then and has 9437184 now/);
  await healthyAgain(t, 'grown');
});

t.test('the disk has shrunk while the VM was off', async (t) => {
  const image = await tracked(t, 'shrunk');
  await destroy('shrunk');
  await host.must('qemu-img', ['resize', '-q', '--shrink', image, String(6 * MiB)]);
  await untrusted(t, 'shrunk', 'InconsistentCheckpoint', /had 8388608 bytes then and has 6291456 now/);
  await startVm('shrunk');
  await untrusted(t, 'shrunk', 'InconsistentCheckpoint', /had 8388608 bytes then and has 6291456 now/);
  await healthyAgain(t, 'shrunk');
});

t.test('the VM is pointed back to an older layer', async (t) => {
  const image = await tracked(t, 'older');
  const overlay = image.replace('.qcow2', '.S1');
  await host.virsh(
    'snapshot-create-as',
    'older',
    'S1',
    '--disk-only',
    '--no-metadata',
    '--diskspec',
    `vda,file=${overlay}`,
  );
  await good(t, 'older', { checkpoint: 'above' });
  await destroy('older');
  await point(host, 'older', overlay, image);
  await untrusted(t, 'older', 'BitmapDoesNotExist', /No bitmap is named "above"/, 'above');
  await startVm('older');
  await untrusted(t, 'older', 'InconsistentCheckpoint', /bitmap/, 'above');
  await healthyAgain(t, 'older');
});

t.test('what a snapshot froze is written to again: depth tells nothing since then', async (t) => {
  const image = await smallImage({ host, name: 'back.qcow2' });
  await defineVm(host, { name: 'back', disks: [virtio('vda', image)] });
  await startVm('back');
  await host.virsh('snapshot-create-as', 'back', 'A', '--disk-only');
  const since = { vmId: 'back', disk: 'vda', since: { snapshot: 'A' } };
  const taken = async (t: Test, given: object) => {
    const id = exportId();
    const made = await prepare(daemon, { exportId: id, ...since, ...given });
    if (made.cbt.mode === 'full') await copies.take(t, made, null);
    await verb(daemon, 'teardownBackupDisk', { exportId: id });
    return made.cbt;
  };
  const unknown = async (t: Test, given: object) => {
    const told = /What the snapshot "A" froze .* is not below the snapshot's own overlay there/;
    await refused(t, host, 'NotTracked', () => prepare(daemon, { exportId: 'x', ...since, ...given }), told);
    t.match(await taken(t, { ...given, ifUntracked: 'full' }), {
      mode: 'full',
      reason: { name: 'NotTracked' },
    });
  };
  await write('back', 'write -P 9 1M 64k');
  await destroy('back');
  const [own] = (await verb(daemon, 'listDisks', { vmId: 'back' })).disks[0]?.chain ?? [];
  const overlay = own?.path ?? '';
  t.match(await taken(t, {}), { mode: 'incremental', changedBytes: K64 }, 'its own overlay');
  t.match(await taken(t, { snapshotId: 'A' }), { mode: 'incremental', changedBytes: 0 }, 'since itself');

  await point(host, 'back', overlay, image);
  await startVm('back');
  await write('back', 'write -P 10 2M 64k');
  await destroy('back');
  await unknown(t, {});
  await startVm('back');
  await host.virsh('snapshot-create-as', 'back', 'B', '--disk-only');
  await unknown(t, { snapshotId: 'B' });
  await host.virsh('snapshot-create-as', 'back', 'C', '--disk-only');
  await unknown(t, { snapshotId: 'C' });
  await destroy('back');
  await unknown(t, {});
  t.strictSame(await remains(host), []);
});

t.test('the VM is given another overlay, to which nobody has carried the bitmaps', async (t) => {
  const image = await tracked(t, 'overlaid');
  await destroy('overlaid');
  const overlay = await host.createImage({
    name: 'overlaid.top',
    format: 'qcow2',
    backing: { path: image, format: 'qcow2' },
  });
  await io(host, overlay, 'write -P 10 2M 64k');
  await point(host, 'overlaid', image, overlay);
  await untrusted(t, 'overlaid', 'InvalidBitmapChain', /lacks the bitmap "before"/);
  await startVm('overlaid');
  await untrusted(t, 'overlaid', 'InconsistentCheckpoint', /bitmap/);
  await healthyAgain(t, 'overlaid');
});

t.test('QEMU is killed: bitmaps that were stored before are in use, those made since are gone', async (t) => {
  await tracked(t, 'killed');
  await destroy('killed');
  await startVm('killed');
  await good(t, 'killed', { checkpoint: 'unstored' });
  await write('killed', 'write -P 10 2M 64k');
  await killQemu('killed');
  await untrusted(t, 'killed', 'InconsistentCheckpoint', /"before".*in use or was not stored properly/);
  await untrusted(t, 'killed', 'BitmapDoesNotExist', /"unstored"/, 'unstored');
  await startVm('killed');
  await untrusted(t, 'killed', 'InconsistentCheckpoint', /bitmap/);
  await untrusted(t, 'killed', 'InconsistentCheckpoint', /bitmap/, 'unstored');
  const rows = (await verb(daemon, 'listCheckpoints', { vmId: 'killed' })).checkpoints;
  t.match(rows, [
    { checkpoint: 'before', state: 'broken' },
    { checkpoint: 'unstored', state: 'broken' },
  ]);
  await verb(daemon, 'deleteCheckpoint', { vmId: 'killed', checkpoint: 'before' });
  await healthyAgain(t, 'killed');
});

t.test(
  'QEMU is killed after a snapshot: what the frozen layer counted says nothing of the active one',
  async (t) => {
    await tracked(t, 'split');
    await host.virsh('snapshot-create-as', 'split', 'S1', '--disk-only', '--no-metadata');
    await write('split', 'write -P 10 2M 64k');
    await killQemu('split');
    await untrusted(t, 'split', 'InvalidBitmapChain', /lacks the bitmap "before"/);
    await startVm('split');
    await untrusted(t, 'split', 'InconsistentCheckpoint', /bitmap/);
    await healthyAgain(t, 'split');
  },
);

t.test('a bitmap is disabled while the VM is off', async (t) => {
  const image = await tracked(t, 'disabled');
  await destroy('disabled');
  await host.must('qemu-img', ['bitmap', '--disable', image, 'before']);
  await untrusted(t, 'disabled', 'InconsistentCheckpoint', /"before".*is disabled/);
  await startVm('disabled');
  await untrusted(t, 'disabled', 'InconsistentCheckpoint', /bitmap/);
  await healthyAgain(t, 'disabled');
});

t.test('a bitmap is disabled, or removed, in a running QEMU', async (t) => {
  await tracked(t, 'switched');
  await good(t, 'switched', { checkpoint: 'second' });
  await bitmapCommand('switched', 'block-dirty-bitmap-disable', 'before');
  await untrusted(t, 'switched', 'InconsistentCheckpoint', /bitmap/);
  await bitmapCommand('switched', 'block-dirty-bitmap-remove', 'second');
  await untrusted(t, 'switched', 'InconsistentCheckpoint', /bitmap/, 'second');
  await healthyAgain(t, 'switched');
});

t.test('another image lies under the same name, bitmaps and all', async (t) => {
  const image = await tracked(t, 'replaced');
  await destroy('replaced');
  await host.must('cp', [image, `${image}.new`]);
  await io(host, `${image}.new`, 'write -P 10 2M 64k');
  renameSync(host.path(`${image}.new`), host.path(image));
  await untrusted(t, 'replaced', 'InconsistentCheckpoint', /another file of the same name/);
  await startVm('replaced');
  await untrusted(t, 'replaced', 'InconsistentCheckpoint', /another file of the same name/);
  await healthyAgain(t, 'replaced');
});

t.test(
  'an image is removed and made again under the same name, with a bitmap of the same name',
  async (t) => {
    const image = await tracked(t, 'remade');
    await destroy('remade');
    // File systems like to give a new file the number of the one that has just gone.
    await host.must('rm', [image]);
    await smallImage({ host, name: 'remade.qcow2' });
    await host.must('qemu-img', ['bitmap', '--add', image, 'before']);
    await io(host, image, 'write -P 10 2M 64k');
    await untrusted(t, 'remade', 'InconsistentCheckpoint', /another file of the same name/);
    await startVm('remade');
    await untrusted(t, 'remade', 'InconsistentCheckpoint', /another file of the same name/);
    await healthyAgain(t, 'remade');
  },
);

t.test('another tool has made the checkpoint again under the same name', async (t) => {
  await tracked(t, 'retaken');
  const [row] = (await verb(daemon, 'listCheckpoints', { vmId: 'retaken' })).checkpoints;
  // libvirt tells the times of checkpoints in whole seconds.
  await poll('the next second', 30_000, () => Date.now() >= Date.parse(row?.created ?? '') + 1000);
  await host.virsh('checkpoint-delete', 'retaken', 'before');
  await host.virsh('checkpoint-create-as', 'retaken', 'before', '--diskspec', 'vda');
  await untrusted(t, 'retaken', 'InconsistentCheckpoint', /made again by another tool/);
  await healthyAgain(t, 'retaken');
});

t.test('another tool has deleted the checkpoint', async (t) => {
  await tracked(t, 'dropped');
  await host.virsh('checkpoint-delete', 'dropped', 'before');
  await untrusted(t, 'dropped', 'NoSuchCheckpoint', /libvirt has lost/);
  await healthyAgain(t, 'dropped');
});

t.test('in a backup of several disks only the one that cannot be trusted is full', async (t) => {
  const images = [
    await smallImage({ host, name: 'two-a.qcow2' }),
    await smallImage({ host, name: 'two-b.qcow2' }),
  ] as const;
  await defineVm(host, { name: 'two', disks: [virtio('vda', images[0]), virtio('vdb', images[1])] });
  await startVm('two');
  const disks = (since?: string) =>
    ['vda', 'vdb'].map((disk) => ({ disk, ...(since !== undefined && { since: { checkpoint: since } }) }));
  const start = (params: object) =>
    daemon.call<{ disks: object[] }>('startBackup', { vmId: 'two', ...params });
  await start({ backupId: 'both', disks: disks(), checkpoint: 'before' });
  await verb(daemon, 'stopBackup', { backupId: 'both', outcome: 'success' });
  await destroy('two');
  await host.must('qemu-img', ['bitmap', '--disable', images[1], 'before']);
  await startVm('two');
  await refused(
    t,
    host,
    'InconsistentCheckpoint',
    () => start({ backupId: 'next', disks: disks('before') }),
    /vdb/,
  );
  const wanted = disks('before').map((disk) => ({ ...disk, ifUntracked: 'full' }));
  const made = await start({ backupId: 'next', disks: wanted });
  t.match(made.disks, [
    { disk: 'vda', mode: 'incremental', since: 'before' },
    { disk: 'vdb', mode: 'full', reason: { name: 'InconsistentCheckpoint' } },
  ]);
  await verb(daemon, 'stopBackup', { backupId: 'next' });
  await destroy('two');
  t.strictSame(await remains(host), []);
});
