/** The first way, begun: all of a running VM's disk at one instant, without a snapshot, read in another VM. */
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { copyByMap, drawing, size } from './map.js';
import { plugIn, plugOut } from './plug.js';
import { jsonLines } from './report.js';
import { checksum, compared, MIB, type Stage, timed } from './stage.js';
import { startWriting, stopWriting, THREE_PLACES, write } from './writer.js';

/** The backup that the appliance keeps: a plain file in it. */
export const COPY = '/tmp/copy';

export async function fullBackup(stage: Stage): Promise<void> {
  const { report, shop, appliance, rpc } = stage;
  report.step('A full backup of the running VM, without a snapshot');
  const commands = [
    write(4 * MIB, 12 * MIB),
    `discard-range /dev/vda ${8 * MIB} ${3 * MIB}`,
    write(33 * MIB, MIB / 8),
    write(48 * MIB, 4 * MIB),
    write(63 * MIB, MIB),
  ];
  const [, writeMs] = await timed(shop.sh(commands.join(' && ')));
  report.done('shop wrote random bytes in four places, and discarded 3 MiB of the first', writeMs);
  const [monday, sumMs] = await timed(shop.sha256('/dev/vda'));
  report.done(`all of its disk vda: ${checksum(monday)}`, sumMs);

  const params = { exportId: 'mon', vmId: 'shop', disk: 'vda', checkpoint: 'monday' };
  const exported = await rpc<PrepareBackupDiskResult>('prepareBackupDisk', params);
  await startWriting(shop, THREE_PLACES);
  report.done(
    'that instant is frozen, and from it on changes are tracked; shop writes on. The drive, on NBD:',
  );
  const { drive, cbt } = exported;
  report.detail(jsonLines(drive));
  if (cbt.changedBytes === null) throw new Error('The map did not fit inline.');
  report.done(
    `the map (${cbt.mode}): ${size(cbt.changedBytes)} of ${size(drive.capacity)} hold data; ` +
      'a character is 1 MiB: # data, + partly, . zeroes',
  );
  report.detail([`|${drawing(cbt.extents, drive.capacity)}|`]);

  const plugged = await plugIn(stage, drive);
  const { guestPath } = plugged;
  const [whole, wholeMs] = await timed(appliance.sha256(guestPath));
  report.check(whole === monday, compared('the appliance reads the whole drive', whole), wholeMs);
  const [, copyMs] = await timed(appliance.sh(copyByMap(cbt.extents, guestPath, COPY)));
  const copied = await appliance.sha256(COPY);
  const data = size(cbt.changedBytes);
  report.check(copied === monday, compared(`its copy, of the ${data} that hold data alone`, copied), copyMs);
  // All three places: then the next map is the same in every run.
  const writes = await stopWriting(shop, 3);
  const [now, nowMs] = await timed(shop.sha256('/dev/vda'));
  report.check(now !== monday, compared(`shop's own disk, ${writes} writes later: another`, now), nowMs);
  await plugOut(stage, drive, plugged);
  await end(stage, params.exportId, 'monday');
}

/** Ends an export whose backup is good: its checkpoint stays. */
export async function end({ report, rpc }: Stage, exportId: string, checkpoint: string): Promise<void> {
  const { checkpoint: kept } = await rpc<{ checkpoint: { id: string; state: string } | null }>(
    'teardownBackupDisk',
    { exportId, outcome: 'success' },
  );
  const holds = kept?.id === checkpoint && kept.state === 'kept';
  report.check(holds, `the checkpoint "${checkpoint}" is kept: the next backup can count from it`);
}
