import type { HotunplugDiskParams, HotunplugDiskResult } from '../api/generated.js';
import { unplug } from '../domains/hotplug.js';
import { type DomainState, readDomain, readDomainIfAny, readStoredConfig } from '../domains/lookup.js';
import { aliasOf } from '../domains/place.js';
import { AgentError } from '../errors.js';
import { presenceOf, whyGone } from './attachments.js';
import { type ExportCall, type ExportsContext, vmLock } from './context.js';
import { type Plugged, pluggedByAlias } from './pluggable.js';
import { ofDrive } from './told.js';

/** Takes a drive that `attachDrive` plugged in out of its VM; one that is gone already is success. */
export async function detachDrive(
  context: ExportsContext,
  params: HotunplugDiskParams,
  call: ExportCall,
): Promise<HotunplugDiskResult> {
  const { locks, libvirt } = context;
  const state = await readDomainIfAny(libvirt, params.vmId, call.signal);
  if (state === null) return { vmId: params.vmId, target: null };
  const { domain } = state;
  const alias = await aliasMeant(context, state, params, call.signal);
  const found = pluggedByAlias(context, domain.uuid, alias);
  if (found === undefined) return { vmId: domain.uuid, target: null };
  const { lock, exportId } = found.what;
  const timeoutMs = (params.timeoutSeconds ?? 30) * 1000;
  return locks.run(lock, `hotunplugDisk of ${exportId}`, call.signal, async () => {
    const plugged = pluggedByAlias(context, domain.uuid, alias);
    if (plugged === undefined) return { vmId: domain.uuid, target: null };
    const was = await detach(context, plugged, timeoutMs, call.signal);
    return { vmId: domain.uuid, target: was ? plugged.attachment.target : null };
  });
}

/**
 * Unplugs a drive from one VM and forgets it there. To be called under the drive's lock.
 * @returns whether the disk was still there
 */
export async function detach(
  context: ExportsContext,
  { what, attachment }: Plugged,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { libvirt, locks, events } = context;
  const { vm, target } = attachment;
  return locks.run(vmLock(vm.uuid), `hotunplugDisk from ${vm.name}`, signal, async () => {
    const where = await presenceOf(libvirt, attachment, signal);
    const was = where.live || where.stored;
    if (was) {
      const { domain } = await readDomain(libvirt, vm.uuid, signal);
      await unplug(libvirt, domain, attachment, where, { timeoutMs, signal });
    }
    await what.forget(attachment);
    const reason = was ? 'unplugged' : whyGone(where);
    events.emit({ kind: 'driveDetached', ...ofDrive(what, vm.uuid, target), reason });
    return was;
  });
}

/**
 * The alias of the disk that a caller means.
 * @throws AgentError `NotOurs` for a disk that `hotplugDisk` did not plug in
 */
async function aliasMeant(
  context: ExportsContext,
  { domain, config }: DomainState,
  { drive, target }: HotunplugDiskParams,
  signal: AbortSignal,
): Promise<string | null> {
  if (drive !== undefined) return aliasOf(drive.serial);
  const stored = await readStoredConfig(context.libvirt, domain, signal);
  const disk = [...config.disks, ...stored.disks].find((one) => one.target === target);
  if (disk === undefined) return null;
  if (pluggedByAlias(context, domain.uuid, disk.alias) !== undefined) return disk.alias;
  throw new AgentError(
    'NotOurs',
    `${target} of ${domain.name} was not plugged in by hotplugDisk of this host; unplug it with the tool that did.`,
    { vmId: domain.uuid, ...(target !== undefined && { disk: target }) },
  );
}
