/** The first way, gone on with: nothing is read but what has changed since the last time. */
import type { PrepareBackupDiskResult } from '../../agent/api/generated.js';
import { COPY, end } from './full.js';
import { copyByMap, drawing, size, toRead } from './map.js';
import { plugIn, plugOut } from './plug.js';
import { compared, MIB, type Stage, timed } from './stage.js';
import { write } from './writer.js';

export async function incrementalBackup(stage: Stage): Promise<void> {
  const { report, host, shop, appliance, rpc } = stage;
  report.step('An incremental backup: only what has changed since "monday"');
  const changes = [write(16 * MIB, MIB / 4), `discard-range /dev/vda ${49 * MIB} ${MIB}`];
  await shop.sh(changes.join(' && '));
  const tuesday = await shop.sha256('/dev/vda');
  report.done('shop has written 256 KiB more in another place, and discarded 1 MiB');
  const params = {
    exportId: 'tue',
    since: { checkpoint: 'monday' },
    checkpoint: 'tuesday',
    vmId: 'shop',
    disk: 'vda',
  };
  const exported = await rpc<PrepareBackupDiskResult>('prepareBackupDisk', params);
  const { drive, cbt, uri } = exported;
  const { extents } = cbt;
  report.done(`the map (${cbt.mode}, by ${cbt.origin}): # changed, + partly, 0 discarded, . as it was`);
  report.detail([`|${drawing(extents, drive.capacity)}|`]);
  const read = toRead(extents);
  const saved = drive.capacity - read;
  const percent = Math.floor((saved / drive.capacity) * 100);
  report.check(
    cbt.nextOffset === null && cbt.mode === 'incremental' && read > 0 && percent >= 90,
    `to be read: ${size(read)}; NOT to be read: ${size(saved)} of ${size(drive.capacity)} (${percent} %)`,
  );

  const plugged = await plugIn(stage, drive);
  const [, patchMs] = await timed(appliance.sh(copyByMap(extents, plugged.guestPath, COPY)));
  const patched = await appliance.sha256(COPY);
  report.check(patched === tuesday, compared("monday's copy, patched: as shop's disk was", patched), patchMs);
  const file = `${host.dir}/tuesday.raw`;
  const [, fullMs] = await timed(host.must('nbdcopy', [uri, file]));
  const full = (await host.must('sha256sum', [file])).slice(0, 64);
  report.check(
    full === patched,
    compared(`a full copy by nbdcopy, all ${size(drive.capacity)}: the same`, full),
    fullMs,
  );
  await plugOut(stage, drive, plugged);
  await end(stage, params.exportId, 'tuesday');
}
