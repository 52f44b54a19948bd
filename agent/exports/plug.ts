/** The deed of `hotplugDisk`: a place in the VM, the record, libvirt, and the way back. */
import type { HotplugDiskParams, HotplugDiskResult } from '../api/generated.js';
import type { DomainDisk } from '../domains/config.js';
import { findPlugged, plugIn, unplug } from '../domains/hotplug.js';
import { refuseMigrating } from '../domains/migration.js';
import { choosePlace, guestPathOf } from '../domains/place.js';
import { AgentError } from '../errors.js';
import type { Domain } from '../libvirt/index.js';
import { presenceOf } from './attachments.js';
import { type ExportCall, type ExportsContext, vmLock } from './context.js';
import type { Pluggable } from './pluggable.js';
import type { AttachmentRecord } from './record.js';
import { ofDrive } from './told.js';

/**
 * Plugs a drive into a running VM; one that is there already is answered as before. To be called under its lock.
 * @param ready what has to be in order before QEMU is asked; not done for one that is there
 */
export async function plug(
  context: ExportsContext,
  what: Pluggable,
  domain: Domain,
  params: HotplugDiskParams,
  call: ExportCall,
  ready: () => Promise<void> = async () => {},
): Promise<HotplugDiskResult> {
  const { libvirt, locks } = context;
  const known = what.attachments().find(({ vm }) => vm.uuid === domain.uuid);
  if (known !== undefined) return repeat(context, what, known, domain, params, call);
  refuseSecondWriter(what, domain);
  await ready();
  return locks.run(vmLock(domain.uuid), `hotplugDisk into ${domain.name}`, call.signal, async () => {
    await refuseMigrating(libvirt, domain, call.signal);
    return begin(context, what, domain, params, call);
  });
}

/** What a caller is told of a VM that is off. */
export function notRunning({ uuid, name }: Domain, exportId: string): AgentError {
  return new AgentError('VMNotRunning', `${name} does not run; start it, then plug the drive in.`, {
    vmId: uuid,
    exportId,
  });
}

/** What a caller is told of a drive that is in the VM in another way than it was asked for now. */
export function otherwisePlugged(
  { uuid, name }: Domain,
  { target }: AttachmentRecord,
  exportId: string,
): AgentError {
  return new AgentError(
    'AlreadyExists',
    `The drive is plugged into ${name} as ${target} already, in another way; unplug it first.`,
    { vmId: uuid, disk: target, exportId },
  );
}

async function repeat(
  { libvirt }: ExportsContext,
  { drive, exportId }: Pluggable,
  known: AttachmentRecord,
  domain: Domain,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { target = known.target, bus = known.bus, persistent = false } = params;
  const disk = await findPlugged(libvirt, domain, known.alias, call.signal);
  const same = target === known.target && bus === known.bus && persistent === known.persistent;
  if (disk === undefined || !same) throw otherwisePlugged(domain, known, exportId);
  return answer(domain, drive.serial, known, disk);
}

/** Two guests that write to one disk destroy it. */
function refuseSecondWriter(what: Pluggable, domain: Domain): void {
  const [other] = what.attachments();
  if (what.drive.readonly || other === undefined) return;
  throw new AgentError(
    'DiskInUse',
    `The drive of "${what.exportId}" can be written to and is plugged into ${other.vm.name} as ${other.target}; hotunplugDisk it there first.`,
    { vmId: domain.uuid, exportId: what.exportId },
  );
}

async function begin(
  context: ExportsContext,
  what: Pluggable,
  domain: Domain,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { libvirt, events, log } = context;
  const { drive, exportId } = what;
  const { bus, target, persistent = false } = params;
  const request = { drive, bus, target, persistent };
  const place = await choosePlace(libvirt, domain, request, call.signal);
  const attachment: AttachmentRecord = {
    vm: { uuid: domain.uuid, name: domain.name },
    target: place.target,
    bus: place.bus,
    alias: place.alias,
    persistent,
    state: 'attaching',
  };
  let disk: DomainDisk;
  try {
    await what.note(attachment);
    disk = await plugIn(libvirt, domain, request, place, call.signal);
    await what.note({ ...attachment, state: 'attached' });
  } catch (error) {
    await takeBack(context, what, domain, attachment).catch((err: unknown) =>
      log.error({ exportId, err }, 'a drive that could not be plugged in could not be taken back'),
    );
    throw error;
  }
  const about = ofDrive(what, domain.uuid, attachment.target);
  events.emit({ kind: 'driveAttached', ...about, serial: drive.serial });
  return answer(domain, drive.serial, attachment, disk);
}

/** Unplugs what may have been plugged in, and forgets it. Where libvirt cannot be asked the record stays. */
async function takeBack(
  { points, libvirt }: ExportsContext,
  what: Pluggable,
  domain: Domain,
  attachment: AttachmentRecord,
): Promise<void> {
  const timeoutMs = points.stateMs.detach;
  const signal = AbortSignal.timeout(timeoutMs); // the verb's own deadline may have passed by now
  const where = await presenceOf(libvirt, attachment, signal);
  if (where.live || where.stored) await unplug(libvirt, domain, attachment, where, { timeoutMs, signal });
  await what.forget(attachment);
}

function answer(
  domain: Domain,
  serial: string,
  { target, bus, alias }: AttachmentRecord,
  { address }: DomainDisk,
): HotplugDiskResult {
  return {
    vmId: domain.uuid,
    target,
    bus,
    alias,
    serial,
    address: { type: 'unknown', ...address },
    guestPath: guestPathOf(bus, serial),
  };
}
