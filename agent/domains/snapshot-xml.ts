import { type Element, XMLSerializer } from '@xmldom/xmldom';
import { type DomainConfig, parseDomain } from './config.js';
import { element, elements, parseXml, text, toXml } from './xml.js';

/** How a disk takes part in a snapshot: in a file of its own above the frozen one, inside the image, or not at all. */
export type SnapshotMode = 'external' | 'internal' | 'no' | 'manual';

/** What libvirt knows of a snapshot (libvirt, docs/formatsnapshot.rst). */
export interface SnapshotFacts {
  name: string;
  parent: string | null;
  /** ISO 8601 UTC. */
  created: string;
  /** `external` where a disk or the memory is, since what then holds is a file beside the image. */
  kind: 'external' | 'internal';
  /** Whether the guest's memory is part of it. */
  memory: boolean;
  disks: {
    target: string;
    mode: SnapshotMode;
    /** The overlay that was put above the frozen image; null for other modes and sources. */
    active: string | null;
    /** What the disk wrote to until then; null for other sources. */
    frozen: { path: string; format: string } | null;
  }[];
  /** The configuration that the VM had, in a form that can be defined. */
  domainXml: string;
  domain: DomainConfig;
}

/** The overlay that a disk is to write to from now on. */
export interface PlannedOverlay {
  target: string;
  active: string;
}

/**
 * The `<domainsnapshot>` that freezes exactly those disks. All disks of the domain are named: one that is left out of
 * the list would be for libvirt to decide.
 */
export function snapshotXml(
  name: string,
  overlays: readonly PlannedOverlay[],
  { disks }: DomainConfig,
): string {
  return toXml(
    element(
      'domainsnapshot',
      {},
      element('name', {}, name),
      element(
        'disks',
        {},
        ...disks.map(({ target }) => {
          const overlay = overlays.find((one) => one.target === target);
          if (overlay === undefined) return element('disk', { name: target, snapshot: 'no' });
          return element(
            'disk',
            { name: target, snapshot: 'external', type: 'file' },
            element('driver', { type: 'qcow2' }),
            element('source', { file: overlay.active }),
          );
        }),
      ),
    ),
  );
}

export function parseSnapshot(xml: string): SnapshotFacts {
  const document = parseXml(xml);
  const domainElement = elements('/domainsnapshot/domain', document)[0];
  if (domainElement === undefined) throw new Error('a snapshot from libvirt has no <domain> element');
  const domain = parseDomain(domainElement);
  const memory = text('/domainsnapshot/memory/@snapshot', document) ?? 'no';
  const disks = elements('/domainsnapshot/disks/disk', document).map((disk) => {
    const target = text('@name', disk) ?? '';
    const mode = (text('@snapshot', disk) ?? 'no') as SnapshotMode;
    const before = domain.disks.find((one) => one.target === target)?.source;
    return {
      target,
      mode,
      active: mode === 'external' ? text('source/@file', disk) : null,
      frozen:
        mode === 'external' && before !== undefined && before.path !== null
          ? { path: before.path, format: before.format ?? 'raw' }
          : null,
    };
  });
  const external = memory === 'external' || disks.some(({ mode }) => mode === 'external');
  return {
    name: text('/domainsnapshot/name', document) ?? '',
    parent: text('/domainsnapshot/parent/name', document),
    created: new Date(Number(text('/domainsnapshot/creationTime', document) ?? 0) * 1000).toISOString(),
    kind: external ? 'external' : 'internal',
    memory: memory !== 'no',
    disks,
    domainXml: serialized(domainElement),
    domain,
  };
}

/**
 * A snapshot's XML, to be defined again, that says of all disks but these that they take no part in it; null where it
 * says so already. libvirt refuses to delete a snapshot of which one disk has been merged.
 */
export function withoutDisks(xml: string, keep: readonly string[]): string | null {
  const document = parseXml(xml);
  const root = document.documentElement;
  if (root === null) throw new Error('a snapshot from libvirt is empty');
  const others = elements('/domainsnapshot/disks/disk[@snapshot!="no"]', document).filter(
    (disk) => !keep.includes(text('@name', disk) ?? ''),
  );
  for (const disk of others) {
    for (const child of elements('*', disk)) disk.removeChild(child);
    disk.removeAttribute('type');
    disk.setAttribute('snapshot', 'no');
  }
  return others.length === 0 ? null : serialized(root);
}

/** Only for what libvirt has written itself: xmldom writes what it was given, well-formed or not. */
function serialized(node: Element): string {
  return new XMLSerializer().serializeToString(node);
}

/** What a configuration says of the firmware's variables, which no snapshot of disks holds. */
export interface NvramFacts {
  /** The file that holds them. */
  path: string;
  /** What it was made from. */
  template: string | null;
}

/** What a configuration says of its TPM, whose state no snapshot of disks holds. */
export interface TpmFacts {
  model: string;
  /** `emulator` (swtpm), `passthrough`, `external`. */
  backend: string;
  version: string | null;
  /** The directory of an emulator's state. */
  state: string | null;
}

export function nvramOf(domainXml: string): NvramFacts | null {
  const os = elements('/domain/os', parseXml(domainXml))[0];
  // Since libvirt 8.5 the path may also be in a source element of its own.
  const path =
    os === undefined ? null : (text('nvram/source/@file', os) ?? text('nvram', os)?.trim() ?? null);
  if (os === undefined || path === null || path === '') return null;
  return { path, template: text('nvram/@template', os) };
}

/** Where swtpm keeps its state: libvirt, src/qemu/qemu_tpm.c, qemuTPMEmulatorStorageBuildPath. */
export function tpmOf(domainXml: string, stateDirectory = '/var/lib/libvirt/swtpm'): TpmFacts | null {
  const document = parseXml(domainXml);
  const tpm = elements('/domain/devices/tpm', document)[0];
  if (tpm === undefined) return null;
  const backend = text('backend/@type', tpm) ?? 'unknown';
  const version = text('backend/@version', tpm);
  const uuid = text('/domain/uuid', document) ?? '';
  const folder = version === '1.2' ? 'tpm1.2' : 'tpm2';
  return {
    model: text('@model', tpm) ?? 'unknown',
    backend,
    version,
    state: backend === 'emulator' ? `${stateDirectory}/${uuid}/${folder}` : null,
  };
}
