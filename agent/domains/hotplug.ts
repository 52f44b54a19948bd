import type { Drive, DriveHost } from '../api/generated.js';
import { AgentError } from '../errors.js';
import {
  DeviceFlag,
  type Domain,
  isDeviceMissing,
  type LibvirtClient,
  LibvirtError,
} from '../libvirt/index.js';
import type { DomainDisk } from './config.js';
import { libvirtFault } from './faults.js';
import { readDomain } from './lookup.js';
import { refuseMigrating } from './migration.js';
import { noFreeSlot, type PlugPlace, type PlugRequest } from './place.js';
import { element, toXml, type XmlElement } from './xml.js';

/** How often the running configuration is looked at in case the event that a device is gone was missed. */
const LOOK_AGAIN_MS = 1000;

/**
 * The disk element for a drive. `tls` is always said (a host-wide setting would decide otherwise), and an error is
 * reported to the guest instead of pausing it. `tlsHostname` is libvirt's since 8.2.0, with QEMU 7.0.
 */
export function driveXml(drive: Drive, { target, bus, alias, scsi }: PlugPlace): string {
  const { name, tls, tlsHostname } = drive;
  return toXml(
    element(
      'disk',
      { type: 'network', device: 'disk' },
      element('driver', { name: 'qemu', type: drive.format, error_policy: 'report' }),
      element(
        'source',
        { protocol: 'nbd', name, tls: tls ? 'yes' : 'no', tlsHostname: tls ? tlsHostname : undefined },
        hostElement(drive.hosts[0]),
      ),
      element('target', { dev: target, bus }),
      drive.readonly ? element('readonly') : undefined,
      element('serial', {}, drive.serial),
      element('alias', { name: alias }),
      scsi &&
        element('address', {
          type: 'drive',
          controller: scsi.controller,
          bus: 0,
          target: scsi.target,
          unit: 0,
        }),
    ),
  );
}

function hostElement(host: DriveHost): XmlElement {
  return host.transport === 'unix'
    ? element('host', { transport: 'unix', socket: host.socket })
    : element('host', { name: host.name, port: host.port });
}

/**
 * Plugs the drive in and returns the disk as the running domain then has it.
 * @throws AgentError `NoFreeSlot`, `HotplugDiskFailed`, `VMNotRunning`, `LibvirtUnavailable`, `Timeout`
 */
export async function plugIn(
  client: LibvirtClient,
  domain: Domain,
  { drive, persistent }: PlugRequest,
  place: PlugPlace,
  signal: AbortSignal,
): Promise<DomainDisk> {
  const about = { vmId: domain.uuid, disk: place.target };
  try {
    const flags = DeviceFlag.live | (persistent ? DeviceFlag.config : 0);
    await client.devices.attach(domain, driveXml(drive, place), flags, { signal });
  } catch (cause) {
    if (cause instanceof LibvirtError && isNoSlot(cause)) {
      const { code, domain: origin, message } = cause;
      throw noFreeSlot(domain.name, place.bus, {
        ...about,
        libvirt: { code, domain: origin, message },
        cause,
      });
    }
    throw libvirtFault(cause, 'HotplugDiskFailed', `plug the drive into ${domain.name}`, about);
  }
  const disk = await findPlugged(client, domain, place.alias, signal);
  if (disk === undefined) {
    throw new AgentError(
      'HotplugDiskFailed',
      `${domain.name} lost the drive again at once; see QEMU's log.`,
      about,
    );
  }
  return disk;
}

/** The disk with that alias in the running domain; undefined when it is not there or the domain does not run. */
export async function findPlugged(
  client: LibvirtClient,
  domain: Domain,
  alias: string,
  signal: AbortSignal,
): Promise<DomainDisk | undefined> {
  const { running, config } = await readDomain(client, domain.uuid, signal);
  return running ? config.disks.find((disk) => disk.alias === alias) : undefined;
}

/**
 * Unplugs a disk and returns once QEMU has removed it: libvirt's own answer says only that the guest was asked. A
 * removal that an earlier call began is waited for in the same way.
 * @param where whether the disk is in the running domain, the stored configuration, or both
 * @param wait how long the guest has to let go of it
 * @throws AgentError `MigrationInProgress`, `HotunplugTimeout`, `HotunplugRefused`, `HotunplugDiskFailed`, `LibvirtUnavailable`, `Timeout`
 */
export async function unplug(
  client: LibvirtClient,
  domain: Domain,
  { alias, target }: { alias: string; target: string },
  where: { live: boolean; stored: boolean },
  wait: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const about = { vmId: domain.uuid, disk: target };
  await refuseMigrating(client, domain, wait.signal);
  const outcome = new Outcome();
  const events = [
    client.subscribe('deviceRemoved', (event) => event.alias === alias && outcome.settle('removed'), {
      domain,
    }),
    client.subscribe('deviceRemovalFailed', (event) => event.alias === alias && outcome.settle('refused'), {
      domain,
    }),
  ];
  try {
    await Promise.all(events.map((event) => event.registered({ signal: wait.signal })));
    const flags = (where.live ? DeviceFlag.live : 0) | (where.stored ? DeviceFlag.config : 0);
    await client.devices
      .detachAlias(domain, alias, flags, { signal: wait.signal })
      .catch((cause: unknown) => {
        if (!isUnderWay(cause) && !isDeviceMissing(cause)) throw cause;
      });
    if (!where.live) return;
    const deadline = Date.now() + wait.timeoutMs;
    for (;;) {
      wait.signal.throwIfAborted();
      const settled = await outcome.within(Math.min(LOOK_AGAIN_MS, Math.max(0, deadline - Date.now())));
      if (settled === 'refused') {
        throw new AgentError(
          'HotunplugRefused',
          `The guest of ${domain.name} refused to let ${target} go; unmount it there, then try again.`,
          about,
        );
      }
      if ((await findPlugged(client, domain, alias, wait.signal)) === undefined) return;
      if (Date.now() >= deadline) {
        throw new AgentError(
          'HotunplugTimeout',
          `The guest of ${domain.name} has not let ${target} go within ${wait.timeoutMs / 1000} s; see that it runs ` +
            'and does not use the disk, then try again. A removal that completes later is noticed.',
          about,
        );
      }
    }
  } catch (cause) {
    throw libvirtFault(cause, 'HotunplugDiskFailed', `unplug ${target} from ${domain.name}`, about);
  } finally {
    for (const event of events) event.close();
  }
}

/** What an event told, at most once, waited for in slices. */
class Outcome {
  #value: 'removed' | 'refused' | undefined;
  #wake: (() => void) | undefined;

  settle(value: 'removed' | 'refused'): void {
    this.#value ??= value;
    this.#wake?.();
  }

  async within(ms: number): Promise<'removed' | 'refused' | undefined> {
    if (this.#value !== undefined) return this.#value;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    return this.#value;
  }
}

/** libvirt has no code for it (src/conf/domain_addr.c): `No more available PCI slots`, `no free … slot`. */
function isNoSlot({ message }: LibvirtError): boolean {
  return /no more available pci slots|no (more )?(free|available) .*(slot|address|unit)/i.test(message);
}

/** QEMU (hw/core/qdev): a second request while the guest has not answered the first one. */
function isUnderWay(cause: unknown): boolean {
  return cause instanceof LibvirtError && /already in the process of unplug/i.test(cause.message);
}
