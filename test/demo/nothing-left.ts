/** The end: what was kept on purpose is named and deleted, and then nothing is left. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type {
  ListBackupsResult,
  ListCheckpointsResult,
  ListExportsResult,
  ListSnapshotsResult,
} from '../../agent/api/generated.js';
import { poll } from '../host/poll.js';
import { IMAGE, type Stage } from './stage.js';

const GONE_MS = 10_000;
const RUN = ['/run/vmdiskd/exports', '/run/vmdiskd/backups', '/var/lib/vmdiskd/scratch'];

export async function expectNothingLeft({ report, rpc, host }: Stage): Promise<void> {
  report.step('See that nothing is left');
  const vm = { vmId: 'shop' };
  const { checkpoints } = await rpc<ListCheckpointsResult>('listCheckpoints', vm);
  const kept = checkpoints.map(({ checkpoint, state }) => `${checkpoint} (${state})`).join(', ');
  report.check(kept === 'monday (good), tuesday (good)', `kept on purpose: ${kept}. No longer wanted:`);
  for (const { checkpoint } of checkpoints) await rpc('deleteCheckpoint', { ...vm, checkpoint });

  const { exports } = await rpc<ListExportsResult>('listExports', {});
  const { backups } = await rpc<ListBackupsResult>('listBackups', {});
  const { snapshots } = await rpc<ListSnapshotsResult>('listSnapshots', vm);
  report.check(exports.length + backups.length + snapshots.length === 0, 'no exports, backups or snapshots');
  const inLibvirt = `${await host.virsh('checkpoint-list', 'shop', '--name')}${await host.virsh('snapshot-list', 'shop', '--name')}`;
  report.check(inLibvirt.trim() === '', 'libvirt has neither checkpoints nor snapshots');
  let left: string[] = [];
  // A server that has just ended is in the list of processes until it is reaped.
  await poll('the end of it all', GONE_MS, async () => {
    left = [...(await host.leftovers()), ...RUN.flatMap((path) => filesIn(host.path(path)))];
    return left.length === 0;
  }).catch(() => {});
  report.check(
    left.length === 0,
    `no NBD server, socket, scratch file or mount${left.map((what) => `: ${what}`)}`,
  );
  const images = readdirSync(host.path('/var/lib/libvirt/images')).join(', ');
  report.check(images === IMAGE, `one image, and no overlay: ${images}`);
  const records = filesIn(host.path('/var/lib/vmdiskd/exports'));
  const states = records.map((file) => JSON.parse(readFileSync(file, 'utf8')).state as string);
  report.check(
    states.length === 4 && states.every((state) => state === 'ended'),
    'the records say "ended"; they are kept for an hour, so that a late retry brings nothing back',
  );
  const running = (await host.virsh('list', '--name')).split('\n').filter(Boolean).sort().join(' and ');
  report.check(running === 'appliance and shop', `${running} run on`);
}

function filesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).map((name) => `${folder}/${name}`) : [];
}
