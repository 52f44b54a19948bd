import type { HotplugDiskParams, HotplugDiskResult } from '../api/generated.js';
import type { DomainDisk } from '../domains/config.js';
import { findPlugged, plugIn, unplug } from '../domains/hotplug.js';
import { readDomain } from '../domains/lookup.js';
import { refuseMigrating } from '../domains/migration.js';
import { choosePlace, guestPathOf } from '../domains/place.js';
import { AgentError } from '../errors.js';
import type { Domain } from '../libvirt/index.js';
import { presenceOf, refreshAttachments, withAttachments } from './attachments.js';
import { type ExportCall, type ExportsContext, exportLock, vmLock } from './context.js';
import { isSameDrive } from './drive.js';
import { deathOf, failed } from './failure.js';
import { tcpTransport } from './find-gateway.js';
import type { AttachmentRecord, ExportRecord } from './record.js';
import { liveExport } from './registry.js';
import { ofDrive } from './told.js';

/** Plugs an export's drive into a running VM; repeated, it gives the same answer. */
export async function attachDrive(
  context: ExportsContext,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { registry, locks, libvirt } = context;
  const { exportId } = ourExport(context, params);
  return locks.run(exportLock(exportId), `hotplugDisk of ${exportId}`, call.signal, async () => {
    const { domain, running } = await readDomain(libvirt, params.vmId, call.signal);
    const record = await refreshAttachments(context, ourExport(context, params), call.signal);
    if (record.state !== 'ready') throw failed(record);
    const error = await deathOf(context, record); // libvirt would only say that nobody listens
    if (error !== null) throw failed({ ...record, error });
    if (!running) {
      throw new AgentError('VMNotRunning', `${domain.name} does not run; start it, then plug the drive in.`, {
        vmId: domain.uuid,
        exportId,
      });
    }
    refuseOwnBackup(record, domain);
    return locks.run(vmLock(domain.uuid), `hotplugDisk into ${domain.name}`, call.signal, async () => {
      const known = record.attachments.find(({ vm }) => vm.uuid === domain.uuid);
      if (known !== undefined)
        return repeat(context, liveExport(registry, exportId), known, domain, params, call);
      await refuseMigrating(libvirt, domain, call.signal);
      return begin(context, record, domain, params, call);
    });
  });
}

/**
 * The record of the export that the drive is of. QEMU is never sent to an address that a caller made up: every
 * member that we gave must be as we gave it.
 */
function ourExport({ registry }: ExportsContext, { drive }: HotplugDiskParams): ExportRecord {
  if (drive.hosts[0]?.transport !== 'unix') {
    const known = registry.find(drive.name);
    if (known !== undefined && tcpTransport(known.params)?.tls === 'psk') {
      throw new AgentError(
        'NotAuthorized',
        `The drive "${drive.name}" is opened with a pre-shared key, and libvirt has certificates only; prepare it with tls "x509", or on a UNIX socket.`,
        { exportId: drive.name },
      );
    }
    throw new AgentError(
      'NotAuthorized',
      `The drive "${drive.name}" is reached over the network, and no address is allowed for that here; plug in ` +
        'drives that this host exports on a UNIX socket.',
      { exportId: drive.name },
    );
  }
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

async function repeat(
  { libvirt }: ExportsContext,
  { exportId, drive }: ExportRecord,
  known: AttachmentRecord,
  domain: Domain,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { target = known.target, bus = known.bus, persistent = false } = params;
  const disk = await findPlugged(libvirt, domain, known.alias, call.signal);
  const same = target === known.target && bus === known.bus && persistent === known.persistent;
  if (drive === null || disk === undefined || !same) {
    throw new AgentError(
      'AlreadyExists',
      `The drive is plugged into ${domain.name} as ${known.target} already, in another way; unplug it first.`,
      { vmId: domain.uuid, disk: known.target, exportId },
    );
  }
  return answer(domain, drive.serial, known, disk);
}

async function begin(
  context: ExportsContext,
  record: ExportRecord,
  domain: Domain,
  params: HotplugDiskParams,
  call: ExportCall,
): Promise<HotplugDiskResult> {
  const { libvirt, registry, events, log } = context;
  const { exportId, drive } = record;
  if (drive === null) throw failed(record);
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
    await withAttachments(context, record, [...record.attachments, attachment]);
    disk = await plugIn(libvirt, domain, request, place, call.signal);
    const attachments = liveExport(registry, exportId).attachments.map((one) =>
      one === attachment ? { ...one, state: 'attached' as const } : one,
    );
    await registry.save({ ...liveExport(registry, exportId), attachments });
  } catch (error) {
    await takeBack(context, exportId, domain, attachment).catch((err: unknown) =>
      log.error({ exportId, err }, 'a drive that could not be plugged in could not be taken back'),
    );
    throw error;
  }
  const about = ofDrive(record, domain.uuid, attachment.target);
  events.emit({ kind: 'driveAttached', ...about, serial: drive.serial });
  return answer(domain, drive.serial, attachment, disk);
}

/** Unplugs what may have been plugged in, and forgets it. Where libvirt cannot be asked the record stays. */
async function takeBack(
  context: ExportsContext,
  exportId: string,
  domain: Domain,
  attachment: AttachmentRecord,
): Promise<void> {
  const timeoutMs = context.points.stateMs.detach;
  const signal = AbortSignal.timeout(timeoutMs); // the verb's own deadline may have passed by now
  const where = await presenceOf(context.libvirt, attachment, signal);
  if (where.live || where.stored) {
    await unplug(context.libvirt, domain, attachment, where, { timeoutMs, signal });
  }
  const record = liveExport(context.registry, exportId);
  const rest = record.attachments.filter(
    ({ vm, alias }) => vm.uuid !== attachment.vm.uuid || alias !== attachment.alias,
  );
  await withAttachments(context, record, rest);
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
