import type { Document, Element } from '@xmldom/xmldom';
import { elements, parseXml, text } from './xml.js';

/** Where a disk's data, or those of a layer below it, lie according to the VM's configuration. */
export interface DiskSource {
  /** libvirt's source type: `file`, `block`, `network`, `volume`, … */
  type: string;
  /** Path of the file or block device; null for the other types. */
  path: string | null;
  format: string | null;
}

/** A disk of a domain, as its XML tells. */
export interface DomainDisk {
  /** The target name, `vda`: unique in the domain. */
  target: string;
  bus: string;
  serial: string | null;
  alias: string | null;
  device: string;
  readonly: boolean;
  shareable: boolean;
  transient: boolean;
  encrypted: boolean;
  source: DiskSource;
  /** The layers below, the nearest first. Complete for a running domain only. */
  backing: DiskSource[];
  /** Where a block job copies or commits the active layer to; `ready` when it can be pivoted. */
  mirror: { path: string | null; ready: boolean } | null;
  /** Of a network disk: the NBD export and socket it is connected to. */
  nbd: { exportName: string; socket: string | null } | null;
  /** The device address as libvirt writes it (`type`, `bus`, `slot`, …); null before it has been given one. */
  address: Record<string, string> | null;
}

/** What the agent needs to know of a domain's configuration. */
export interface DomainConfig {
  uuid: string;
  name: string;
  disks: DomainDisk[];
  /** The indexes of its virtio-scsi controllers, on which disks can be plugged in. */
  virtioScsi: number[];
  /** Where something sits on a controller already, be it a disk or a device of the host. */
  scsiTargets: ScsiTarget[];
}

/** A target on a controller's one bus, by the numbers of a `drive` address. */
export interface ScsiTarget {
  controller: number;
  target: number;
}

/** Reads a `<domain>` document, or the `<domain>` element inside a snapshot's XML. */
export function parseDomain(xml: string | Document | Element): DomainConfig {
  const root = typeof xml === 'string' ? parseXml(xml) : xml;
  const domain = elements('descendant-or-self::domain[1]', root)[0];
  if (domain === undefined) throw new Error('XML from libvirt has no <domain> element');
  return {
    uuid: text('uuid', domain) ?? '',
    name: text('name', domain) ?? '',
    disks: elements('devices/disk', domain).map(parseDisk),
    virtioScsi: elements('devices/controller[@type="scsi"][starts-with(@model, "virtio-")]', domain).map(
      (controller) => Number(text('@index', controller)),
    ),
    scsiTargets: elements('devices/*/address[@type="drive"]', domain).map((address) => ({
      controller: Number(text('@controller', address)),
      target: Number(text('@target', address)),
    })),
  };
}

function parseDisk(disk: Element): DomainDisk {
  const backing: DiskSource[] = [];
  for (
    let layer = elements('backingStore[@type]', disk)[0];
    layer !== undefined;
    layer = elements('backingStore[@type]', layer)[0]
  ) {
    backing.push({
      type: text('@type', layer) ?? 'file',
      path: text('source/@file', layer) ?? text('source/@dev', layer),
      format: text('format/@type', layer),
    });
  }
  const address = elements('address', disk)[0];
  const mirror = elements('mirror', disk)[0];
  return {
    target: text('target/@dev', disk) ?? '',
    bus: text('target/@bus', disk) ?? '',
    serial: text('serial', disk),
    alias: text('alias/@name', disk),
    device: text('@device', disk) ?? 'disk',
    readonly: elements('readonly', disk).length > 0,
    shareable: elements('shareable', disk).length > 0,
    transient: elements('transient', disk).length > 0,
    encrypted: elements('encryption | source/encryption', disk).length > 0,
    source: {
      type: text('@type', disk) ?? 'file',
      path: text('source/@file', disk) ?? text('source/@dev', disk),
      format: text('driver/@type', disk),
    },
    backing,
    mirror:
      mirror === undefined
        ? null
        : {
            path: text('source/@file', mirror) ?? text('source/@dev', mirror),
            ready: text('@ready', mirror) === 'yes',
          },
    nbd:
      text('source/@protocol', disk) === 'nbd'
        ? { exportName: text('source/@name', disk) ?? '', socket: text('source/host/@socket', disk) }
        : null,
    address:
      address === undefined
        ? null
        : Object.fromEntries(Array.from(address.attributes).map(({ name, value }) => [name, value])),
  };
}
