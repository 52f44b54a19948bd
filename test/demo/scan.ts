/** Another use: a scanner mounts a running VM's file system, which takes writing, and nothing of that reaches the VM. */
import type { ExportRow, MountDiskResult } from '../../agent/api/generated.js';
import { size } from './map.js';
import { plugIn, plugOut } from './plug.js';
import { type Stage, timed } from './stage.js';

const BAD = 'not-a-virus-but-looks-like-one';

export async function scan(stage: Stage): Promise<void> {
  const { report, shop, appliance, rpc } = stage;
  report.step("Another use: a scanner in the appliance mounts shop's disk, and may write");
  const mails = `mkdir /mnt/mail && echo hello >/mnt/mail/1 && echo ${BAD} >/mnt/mail/2 && sync`;
  const made = shop.sh(`mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt && ${mails}`);
  report.done('shop has a file system on vda now, mounted, with two mails in it', (await timed(made))[1]);

  const params = { exportId: 'scan', vmId: 'shop', disk: 'vda', access: 'scratch' };
  const { drive } = await rpc<MountDiskResult>('mountDisk', params);
  const plugged = await plugIn(stage, drive);
  const [, mountMs] = await timed(appliance.sh(`mkdir -p /mnt && mount ${plugged.guestPath} /mnt`));
  const journal = await appliance.sh('dmesg | grep -o "EXT4-fs (sda): recovery complete" | tail -n 1');
  report.check(journal !== '', 'the appliance has mounted it, and replayed the journal', mountMs);
  const [found, foundMs] = await timed(appliance.sh(`grep -rl ${BAD} /mnt`));
  report.check(
    found === '/mnt/mail/2',
    `the scanner finds ${found}, and removes it from what it sees`,
    foundMs,
  );
  await appliance.sh(`rm ${found} && umount /mnt`);
  const { scratch } = await rpc<ExportRow>('getExport', { exportId: params.exportId });
  if (scratch === null) throw new Error('The export has no throw-away layer.');
  report.done(`written to the throw-away layer: ${size(scratch.used)}, of at most ${size(scratch.limit)}`);
  await plugOut(stage, drive, plugged);
  await rpc('unmountDisk', { exportId: params.exportId });
  // What the guest still has in memory is no proof.
  const there = await shop.sh('echo 3 >/proc/sys/vm/drop_caches; cat /mnt/mail/2');
  report.check(there === BAD, 'shop has it still: what the scanner wrote went with the export');
}
