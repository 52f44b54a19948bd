import { AgentError } from '../errors.js';
import { isNoSnapshot, type LibvirtClient } from '../libvirt/index.js';
import type { DiskSource, DomainDisk } from './config.js';
import { parseDomain } from './config.js';
import { libvirtFault } from './faults.js';
import type { DomainState } from './lookup.js';
import { elements, parseXml, text } from './xml.js';

/**
 * Where the state of a disk lies that a libvirt external snapshot froze: the file that the VM wrote to until then,
 * as the domain inside the snapshot's XML names it.
 * @throws AgentError `NoSuchSnapshot` also where the snapshot did not cover the disk, or is an internal one
 */
export async function frozenSource(
  client: LibvirtClient,
  { domain }: DomainState,
  disk: DomainDisk,
  snapshotId: string,
  signal: AbortSignal,
): Promise<DiskSource> {
  const about = { vmId: domain.uuid, disk: disk.target };
  let xml: string;
  try {
    const snapshot = await client.snapshots.lookupByName(domain, snapshotId, { signal });
    xml = await client.snapshots.getXMLDesc(snapshot, 0, { signal });
  } catch (cause) {
    if (isNoSnapshot(cause)) {
      throw new AgentError(
        'NoSuchSnapshot',
        `${domain.name} has no snapshot "${snapshotId}"; \`virsh snapshot-list ${domain.name}\` shows those there are.`,
        { ...about, cause },
      );
    }
    throw libvirtFault(cause, 'NoSuchSnapshot', `read the snapshot "${snapshotId}" of ${domain.name}`, about);
  }
  const document = parseXml(xml);
  const entry = elements('/domainsnapshot/disks/disk', document).find(
    (candidate) => text('@name', candidate) === disk.target,
  );
  const mode = entry === undefined ? 'no' : (text('@snapshot', entry) ?? 'no');
  const frozen = parseDomain(document).disks.find(({ target }) => target === disk.target);
  if (mode !== 'external' || frozen === undefined) {
    throw new AgentError(
      'NoSuchSnapshot',
      `The snapshot "${snapshotId}" of ${domain.name} holds no external snapshot of ${disk.target} ` +
        `(${mode}); make one with \`virsh snapshot-create-as --disk-only\`.`,
      about,
    );
  }
  return frozen.source;
}
