import type { Drive, HotplugDiskParams, HotplugDiskResult } from '../api/generated.js';
import { readDomain } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import type { Domain } from '../libvirt/index.js';
import { refreshAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock } from './context.js';
import { isSameDrive } from './drive.js';
import { deathOf, failed } from './failure.js';
import { attachForeign } from './foreign-drive.js';
import { refuseAddress, throughNetwork } from './network-drive.js';
import { notRunning, plug } from './plug.js';
import { exportedDrive } from './pluggable.js';
import type { ExportRecord } from './record.js';
import { liveExport } from './registry.js';

/** Plugs a drive into a running VM; repeated, it gives the same answer. */
export async function attachDrive(
  context: ExportsContext,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { drive } = params;
  if (drive.hosts[0].transport === 'unix') return attachOwn(context, params, call);
  const own = context.registry.allLive().find((one) => one.drive?.serial === drive.serial);
  refuseAddress(context, drive, own);
  return own === undefined ? attachForeign(context, params, call) : attachOwn(context, params, call);
}

/** The drive of an export of this host, on its UNIX socket or by way of the gateway. */
async function attachOwn(
  context: ExportsContext,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { locks, libvirt } = context;
  const { exportId } = ourExport(context, params.drive);
  return locks.run(exportLock(exportId), `hotplugDisk of ${exportId}`, call.signal, async () => {
    const { domain, running } = await readDomain(libvirt, params.vmId, call.signal);
    const record = await refreshAttachments(context, ourExport(context, params.drive), call.signal);
    if (record.state !== 'ready') throw failed(record);
    const error = await deathOf(context, record); // libvirt would only say that nobody listens
    if (error !== null) throw failed({ ...record, error });
    if (!running) throw notRunning(domain, exportId);
    refuseOwnBackup(record, domain);
    const what = exportedDrive(context, exportId);
    if (what === null) throw failed(record);
    return throughNetwork(context, what.drive, domain, call, (ready) =>
      plug(context, what, domain, params, call, ready),
    );
  });
}

/**
 * The record of the export that the drive is of. QEMU is never sent to an address that a caller made up: every
 * member that we gave must be as we gave it.
 */
function ourExport({ registry }: ExportsContext, drive: Drive): ExportRecord {
  // The exports of one backup bear the names that their disks have at QEMU's server: the serial tells them apart.
  const named = registry.allLive().filter((one) => one.drive?.name === drive.name);
  const record =
    named.find((one) => one.drive?.serial === drive.serial) ?? named[0] ?? liveExport(registry, drive.name);
  if (record.drive !== null && isSameDrive(record.drive, drive)) return record;
  if (record.drive === null) throw failed(record);
  throw new AgentError(
    'NotAuthorized',
    `The drive differs from what prepareBackupDisk returned for "${drive.name}"; pass it on as it came.`,
    { exportId: drive.name },
  );
}

/**
 * QEMU connects to a drive before it goes on, so it would wait for its own server for ever, and the VM with it.
 * @throws AgentError `HotplugDiskFailed`
 */
function refuseOwnBackup({ exportId, server, vm }: ExportRecord, domain: Domain): void {
  if (server?.kind !== 'backup' || vm?.uuid !== domain.uuid) return;
  throw new AgentError(
    'HotplugDiskFailed',
    `"${exportId}" is a live backup that ${domain.name} itself serves, and QEMU would wait for itself; plug it into another VM, or export a snapshot.`,
    { vmId: domain.uuid, exportId },
  );
}
