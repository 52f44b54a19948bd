/** A drive into the appliance, and out again. */
import type { Drive, HotplugDiskResult, HotunplugDiskResult } from '../../agent/api/generated.js';
import type { Stage } from './stage.js';

const PLUG_PARAMS = '{"vmId":"appliance","drive":<the drive, as it came>}';

/** Returns when the guest has the disk under its stable name. */
export async function plugIn({ rpc, report, appliance }: Stage, drive: Drive): Promise<HotplugDiskResult> {
  const plugged = await rpc<HotplugDiskResult>('hotplugDisk', { vmId: 'appliance', drive }, PLUG_PARAMS);
  const { guestPath } = plugged;
  await appliance.sh(`until [ -e ${guestPath} ]; do sleep 0.1; done`);
  report.done(`in the appliance it is ${guestPath}`);
  return plugged;
}

export async function plugOut(
  { rpc, report, appliance }: Stage,
  drive: Drive,
  { target, guestPath }: HotplugDiskResult,
): Promise<void> {
  const out = await rpc<HotunplugDiskResult>('hotunplugDisk', { vmId: 'appliance', drive }, PLUG_PARAMS);
  const inLibvirt = /<disk type=.network/.test(await appliance.xml());
  const inGuest = (await appliance.try(`test -e ${guestPath}`)).exitCode === 0;
  const gone = out.target === target && !inLibvirt && !inGuest;
  report.check(gone, `QEMU has let go of ${target}: it is neither in libvirt nor in the guest`);
}
