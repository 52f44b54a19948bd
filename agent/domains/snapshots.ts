import { AgentError } from '../errors.js';
import { type Domain, isNoSnapshot, type LibvirtClient, SnapshotXmlFlag } from '../libvirt/index.js';
import type { DiskSource, DomainDisk } from './config.js';
import { libvirtFault } from './faults.js';
import type { DomainState } from './lookup.js';
import { parseSnapshot, type SnapshotFacts } from './snapshot-xml.js';

/**
 * What libvirt knows of a snapshot; undefined where it has none of that name.
 * @param secrets with passwords in the domain's configuration
 */
export async function readSnapshot(
  libvirt: LibvirtClient,
  domain: Domain,
  name: string,
  signal: AbortSignal,
  { secrets = false }: { secrets?: boolean } = {},
): Promise<SnapshotFacts | undefined> {
  try {
    const snapshot = await libvirt.snapshots.lookupByName(domain, name, { signal });
    return parseSnapshot(
      await libvirt.snapshots.getXMLDesc(snapshot, secrets ? SnapshotXmlFlag.secure : 0, { signal }),
    );
  } catch (cause) {
    if (isNoSnapshot(cause)) return undefined;
    throw libvirtFault(cause, 'NoSuchSnapshot', `read the snapshot "${name}" of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

/** All snapshots that libvirt knows of a domain, whoever made them, parents before children. */
export async function readSnapshots(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<SnapshotFacts[]> {
  try {
    const found: SnapshotFacts[] = [];
    for (const snapshot of await libvirt.snapshots.listAll(domain, 0, { signal })) {
      const xml = await libvirt.snapshots.getXMLDesc(snapshot, 0, { signal }).catch((cause: unknown) => {
        if (isNoSnapshot(cause)) return undefined; // deleted in between
        throw cause;
      });
      if (xml !== undefined) found.push(parseSnapshot(xml));
    }
    return parentsFirst(found);
  } catch (cause) {
    throw libvirtFault(cause, 'NoSuchSnapshot', `list the snapshots of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

/** Roots by their time, each followed by its descendants. */
function parentsFirst(facts: readonly SnapshotFacts[]): SnapshotFacts[] {
  const names = new Set(facts.map(({ name }) => name));
  const byTime = [...facts].sort((a, b) => (a.created < b.created ? -1 : 1));
  const below = (parent: string | null): SnapshotFacts[] =>
    byTime
      .filter((one) => (one.parent !== null && names.has(one.parent) ? one.parent : null) === parent)
      .flatMap((one) => [one, ...below(one.name)]);
  return below(null);
}

/** What a libvirt external snapshot made of a disk. */
export interface FrozenDisk {
  /** What the VM wrote to until then, as the domain inside the snapshot's XML names it. */
  source: Pick<DiskSource, 'type' | 'path' | 'format'>;
  /** The file that it has written to since; null where that is no file. */
  overlay: string | null;
}

/**
 * Where the state of a disk lies that a snapshot froze; undefined where libvirt knows no such snapshot.
 * @throws AgentError `NoSuchSnapshot` where the snapshot did not cover the disk, or is an internal one
 */
export async function frozenDisk(
  libvirt: LibvirtClient,
  { domain }: DomainState,
  disk: DomainDisk,
  snapshotId: string,
  signal: AbortSignal,
): Promise<FrozenDisk | undefined> {
  const about = { vmId: domain.uuid, disk: disk.target };
  const facts = await readSnapshot(libvirt, domain, snapshotId, signal);
  if (facts === undefined) return undefined;
  const { mode = 'no', active = null } = facts.disks.find(({ target }) => target === disk.target) ?? {};
  const frozen = facts.domain.disks.find(({ target }) => target === disk.target);
  if (mode !== 'external' || frozen === undefined) {
    throw new AgentError(
      'NoSuchSnapshot',
      `The snapshot "${snapshotId}" of ${domain.name} holds no external snapshot of ${disk.target} ` +
        `(${mode}); make one with createSnapshot.`,
      about,
    );
  }
  return { source: frozen.source, overlay: active };
}

export function noSuchSnapshot(
  { uuid, name }: { uuid: string; name: string },
  snapshotId: string,
  about: { disk?: string } = {},
): AgentError {
  return new AgentError(
    'NoSuchSnapshot',
    `${name} has no snapshot "${snapshotId}"; listSnapshots shows those there are.`,
    { vmId: uuid, ...about },
  );
}
