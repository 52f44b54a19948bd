import type { HotunplugDiskParams, HotunplugDiskResult } from '../api/generated.js';
import { unplug } from '../domains/hotplug.js';
import { type DomainState, readDomain, readDomainIfAny, readStoredConfig } from '../domains/lookup.js';
import { aliasOf } from '../domains/place.js';
import { AgentError } from '../errors.js';
import { attachmentByAlias, presenceOf, whyGone, withAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock, vmLock } from './context.js';
import type { AttachmentRecord } from './record.js';
import { liveExport } from './registry.js';
import { ofDrive } from './told.js';

/** Takes a drive that `attachDrive` plugged in out of its VM; one that is gone already is success. */
export async function detachDrive(
  context: ExportsContext,
  params: HotunplugDiskParams,
  call: ExportCall,
): Promise<HotunplugDiskResult> {
  const { registry, locks, libvirt } = context;
  const state = await readDomainIfAny(libvirt, params.vmId, call.signal);
  if (state === null) return { vmId: params.vmId, target: null };
  const { domain } = state;
  const alias = await aliasMeant(context, state, params, call.signal);
  const found = attachmentByAlias(registry.allLive(), domain.uuid, alias);
  if (found === undefined) return { vmId: domain.uuid, target: null };
  const { exportId } = found.record;
  const timeoutMs = (params.timeoutSeconds ?? 30) * 1000;
  return locks.run(exportLock(exportId), `hotunplugDisk of ${exportId}`, call.signal, async () => {
    const attachment = attachmentByAlias(registry.allLive(), domain.uuid, alias)?.attachment;
    if (attachment === undefined) return { vmId: domain.uuid, target: null };
    const was = await detach(context, exportId, attachment, timeoutMs, call.signal);
    return { vmId: domain.uuid, target: was ? attachment.target : null };
  });
}

/**
 * Unplugs one attachment and forgets it. To be called under the export's lock.
 * @returns whether the disk was still there
 */
export async function detach(
  context: ExportsContext,
  exportId: string,
  attachment: AttachmentRecord,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { libvirt, locks, registry, events } = context;
  const { vm, alias, target } = attachment;
  return locks.run(vmLock(vm.uuid), `hotunplugDisk from ${vm.name}`, signal, async () => {
    const where = await presenceOf(libvirt, attachment, signal);
    const was = where.live || where.stored;
    if (was) {
      const { domain } = await readDomain(libvirt, vm.uuid, signal);
      await unplug(libvirt, domain, attachment, where, { timeoutMs, signal });
    }
    const record = liveExport(registry, exportId);
    const rest = record.attachments.filter((one) => one.vm.uuid !== vm.uuid || one.alias !== alias);
    await withAttachments(context, record, rest);
    const reason = was ? 'unplugged' : whyGone(where);
    events.emit({ kind: 'driveDetached', ...ofDrive(record, vm.uuid, target), reason });
    return was;
  });
}

/**
 * The alias of the disk that a caller means.
 * @throws AgentError `NotOurs` for a disk that `hotplugDisk` did not plug in
 */
async function aliasMeant(
  { registry, libvirt }: ExportsContext,
  { domain, config }: DomainState,
  { drive, target }: HotunplugDiskParams,
  signal: AbortSignal,
): Promise<string | null> {
  if (drive !== undefined) return aliasOf(drive.serial);
  const stored = await readStoredConfig(libvirt, domain, signal);
  const disk = [...config.disks, ...stored.disks].find((one) => one.target === target);
  if (disk === undefined) return null;
  if (attachmentByAlias(registry.allLive(), domain.uuid, disk.alias) !== undefined) return disk.alias;
  throw new AgentError(
    'NotOurs',
    `${target} of ${domain.name} was not plugged in by hotplugDisk of this host; unplug it with the tool that did.`,
    { vmId: domain.uuid, ...(target !== undefined && { disk: target }) },
  );
}
