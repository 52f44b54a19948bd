// Snapshots of VMs that are off and will come back with the files of then, or are not there at all. Needs root.
import { rmSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { defineVm } from '../exports/rig.js';
import { type Host, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { editSnapshots, MergeRig } from './merge-rig.js';
import { smallImage, virtio, writeTo } from './rig.js';

t.setTimeout(300_000);

let host: Host;
let rig: MergeRig;
let image: string;
const start = () => host.virsh('start', '--paused', 'web');
const write = (byte: number) => writeTo(host, 'web', 'virtio-disk0', `write -P ${byte} 1M 1M`);
/** What goes wrong with a call. */
const failure = (call: Promise<unknown>) =>
  call.then(
    () => 'it succeeded',
    (error: unknown) => error,
  );

t.before(async () => {
  host = await startHost(t);
  image = await smallImage({ host, name: 'a.qcow2' });
  await defineVm(host, { name: 'web', disks: [virtio('vda', image)] });
  rig = MergeRig.around(host, await host.startDaemon());
});

t.test('saved with its memory: no snapshot is made and none is merged until it has gone on', async (t) => {
  const told = (name: string, doing: string) => ({
    data: { name },
    message: new RegExp(`Cannot ${doing} of web: it was saved .*virsh managedsave-remove web`),
  });
  await start();
  await write(1);
  await host.virsh('managedsave', 'web');
  t.match(await failure(rig.snapshot('s')), told('SnapshotFailed', 'make a snapshot'));
  t.strictSame([await rig.states(), rig.images()], [[], ['a.qcow2']]);
  await start();
  await rig.snapshot('s');
  await write(2);
  await host.virsh('managedsave', 'web');
  t.match(await failure(rig.delete('s')), told('MergeFailed', 'delete the snapshot "s"'));
  t.strictSame(await rig.states(), [['s', 'ready']]);
  await start();
  await write(3);
  await rig.done(t, await rig.delete('s'));
  t.strictSame([await rig.states(), rig.images()], [[], ['a.qcow2']]);
  await host.virsh('destroy', 'web');
});

t.test('saved while its snapshot was in the making: that is taken back once it has gone on', async (t) => {
  await start();
  await rig.snapshot('half');
  await host.virsh('managedsave', 'web');
  await rig.daemon.kill('SIGKILL');
  editSnapshots(host, (record) => (record.snapshotId === 'half' ? { ...record, state: 'making' } : record));
  await rig.startDaemon();
  const tried = () => /could not be taken back yet/.test(rig.daemon.log());
  await poll('it to be tried', 60_000, tried);
  t.match(rig.daemon.log(), /it was saved with its memory/);
  t.equal(rig.images().length, 2, 'the saved state needs the overlay');
  await start();
  await poll('it to be taken back', 60_000, async () => (await rig.states()).length === 0);
  t.strictSame(rig.images(), ['a.qcow2']);
  await host.virsh('destroy', 'web');
});

t.test('a VM that is not there: its overlays are not called merged', async (t) => {
  const told = {
    data: { name: 'MergeFailed' },
    message:
      /web is not on this host, and .*a\.qcow2\.vmdiskd-.* host that it has moved to, or here once it is defined or started.*call deleteSnapshot again/,
  };
  await start();
  await rig.snapshot('merged');
  const frozen = await rig.read(await rig.prepare('before', { snapshotId: 'merged' }));
  await rig.tearDown('before');
  await write(4);
  await host.virsh('destroy', 'web');
  const xml = await host.virsh('dumpxml', 'web', '--inactive');
  const undefine = () => host.virsh('undefine', 'web', '--snapshots-metadata');
  await undefine();
  t.match(await failure(rig.delete('merged')), told);
  writeFileSync(host.path('/run/web.xml'), xml);
  await host.virsh('define', '/run/web.xml');
  await start();
  const again = await rig.prepare('again', { snapshotId: 'merged', since: { snapshot: 'merged' } });
  t.strictSame(
    [await rig.read(again), again.cbt.mode],
    [frozen, 'incremental'],
    'libvirt has lost it, we have not',
  );
  await rig.tearDown('again');
  await rig.done(t, await rig.delete('merged'));
  t.strictSame(rig.images(), ['a.qcow2']);
  await rig.snapshot('unwanted');
  await host.virsh('destroy', 'web');
  await undefine();
  t.match(await failure(rig.delete('unwanted')), told);
  for (const name of rig.images()) rmSync(host.path(`/var/lib/libvirt/images/${name}`));
  await rig.done(t, await rig.delete('unwanted'));
  await rig.daemon.kill();
  t.strictSame(await host.leftovers(), []);
});
