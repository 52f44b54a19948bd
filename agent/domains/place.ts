import type { Drive } from '../api/generated.js';
import { AgentError, type ErrorDetails } from '../errors.js';
import type { Domain, LibvirtClient } from '../libvirt/index.js';
import type { DomainConfig, ScsiTarget } from './config.js';
import { readDomain, readStoredConfig } from './lookup.js';
import { busOfTarget, freeScsiTarget, freeTarget, type HotplugBus } from './targets.js';

/** What is to be plugged in, and how. */
export interface PlugRequest {
  drive: Drive;
  bus: HotplugBus | undefined;
  target: string | undefined;
  /** Also put it into the stored configuration. */
  persistent: boolean;
}

/** Where a drive goes, chosen before it is plugged in so that it can be written down first. */
export interface PlugPlace {
  target: string;
  bus: HotplugBus;
  alias: string;
  /** On the bus `scsi`. */
  scsi: ScsiTarget | undefined;
}

/** A user alias (libvirt wants `ua-` in front) that tells our disks from others; the drive's serial makes it one. */
export function aliasOf(serial: string): string {
  return `ua-vmdiskd-${serial}`;
}

/** Whether a disk's alias is one that only `hotplugDisk` gives. */
export function isOurAlias(alias: string | null): alias is string {
  return alias !== null && /^ua-vmdiskd-[a-z2-7]{20}$/.test(alias);
}

/** The stable name of the disk inside a Linux guest, as udev's 60-persistent-storage.rules make it. */
export function guestPathOf(bus: HotplugBus, serial: string): string {
  return bus === 'virtio'
    ? `/dev/disk/by-id/virtio-${serial}`
    : `/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_${serial}`;
}

/**
 * Chooses bus and target in a running domain.
 * @throws AgentError `AlreadyExists` for a target that is taken, `HotplugDiskFailed` for a bus that does not fit it
 *   or that the domain does not have, `NoFreeSlot`
 */
export async function choosePlace(
  client: LibvirtClient,
  domain: Domain,
  { drive, bus, target, persistent }: PlugRequest,
  signal: AbortSignal,
): Promise<PlugPlace> {
  const running = await readRunning(client, domain, signal);
  const configs = persistent ? [running, await readStoredConfig(client, domain, signal)] : [running];
  const about = { vmId: domain.uuid, ...(target !== undefined && { disk: target }) };
  const scsi = freeScsiTarget(configs);
  const chosenBus = bus ?? (target !== undefined ? busOfTarget(target) : scsi ? 'scsi' : 'virtio');
  if (target !== undefined && busOfTarget(target) !== chosenBus) {
    throw new AgentError(
      'HotplugDiskFailed',
      `The target ${target} does not go with the bus ${chosenBus}; name a ${chosenBus === 'scsi' ? 'sd' : 'vd'} target.`,
      about,
    );
  }
  if (target !== undefined && configs.some(({ disks }) => disks.some((disk) => disk.target === target))) {
    throw new AgentError(
      'AlreadyExists',
      `${domain.name} has a disk ${target} already; leave target out to get a free one.`,
      about,
    );
  }
  if (chosenBus === 'scsi' && scsi === undefined) {
    // libvirt would add a controller, of a model that few guests drive, and it would stay in the VM.
    throw new AgentError(
      'HotplugDiskFailed',
      `${domain.name} has no virtio-scsi controller; add one while it is off, or plug the drive in on virtio.`,
      about,
    );
  }
  if (chosenBus === 'scsi' && scsi === null) throw noFreeSlot(domain.name, 'scsi', about);
  return {
    bus: chosenBus,
    target: target ?? freeTarget(chosenBus, configs),
    alias: aliasOf(drive.serial),
    scsi: chosenBus === 'scsi' ? (scsi ?? undefined) : undefined,
  };
}

export function noFreeSlot(vm: string, bus: HotplugBus, details: ErrorDetails): AgentError {
  return new AgentError(
    'NoFreeSlot',
    `${vm} has no free ${bus === 'virtio' ? 'PCI slot or port' : 'SCSI target'} for a disk; unplug one, add ` +
      'controllers (pcie-root-port) while it is off, or give it a virtio-scsi controller.',
    details,
  );
}

/** @throws AgentError `VMNotRunning`, and as `readDomain` */
async function readRunning(
  client: LibvirtClient,
  { uuid, name }: Domain,
  signal: AbortSignal,
): Promise<DomainConfig> {
  const { running, config } = await readDomain(client, uuid, signal);
  if (running) return config;
  throw new AgentError('VMNotRunning', `${name} does not run; start it, then plug the drive in.`, {
    vmId: uuid,
  });
}
