import { libvirtFault } from '../domains/faults.js';
import type { DomainState } from '../domains/lookup.js';
import { withoutDisks } from '../domains/snapshot-xml.js';
import { AgentError } from '../errors.js';
import { isNoSnapshot, LibvirtError, SnapshotCreateFlag, SnapshotXmlFlag } from '../libvirt/index.js';
import type { PointsContext } from './context.js';
import type { SnapshotRecord } from './snapshot-record.js';

/** Milliseconds that libvirt may take: it copies all data of the overlays in one call. */
const MERGE_MS = 24 * 60 * 60 * 1000;
const ASK_MS = 60_000;

/**
 * Merges the snapshot of a VM that is off, with `virDomainSnapshotDelete`, which keeps bitmaps that only the overlay has
 * (`qemu-img commit` drops them). libvirt starts QEMU for it, without the guest, and tells neither progress nor can it be
 * stopped. Disks that a live merge has finished are taken out of the snapshot first: libvirt would refuse.
 * @param targets the disks that are left to be merged
 */
export async function mergeOffline(
  { libvirt }: PointsContext,
  { domain }: DomainState,
  { snapshotId }: Pick<SnapshotRecord, 'snapshotId'>,
  targets: readonly string[],
): Promise<void> {
  const about = { vmId: domain.uuid };
  try {
    const snapshot = await libvirt.snapshots.lookupByName(domain, snapshotId, { timeoutMs: ASK_MS });
    const xml = await libvirt.snapshots.getXMLDesc(snapshot, SnapshotXmlFlag.secure, { timeoutMs: ASK_MS });
    const rest = withoutDisks(xml, targets);
    if (rest !== null) {
      await libvirt.snapshots.create(domain, rest, SnapshotCreateFlag.redefine, { timeoutMs: ASK_MS });
    }
    await libvirt.snapshots.delete(snapshot, 0, { timeoutMs: MERGE_MS });
  } catch (cause) {
    if (isNoSnapshot(cause)) {
      throw new AgentError(
        'MergeFailed',
        `libvirt has lost the snapshot "${snapshotId}" and cannot merge it while ${domain.name} is off; start the VM ` +
          'and call deleteSnapshot again.',
        { ...about, cause },
      );
    }
    if (cause instanceof LibvirtError && /could not find base/.test(cause.message)) {
      throw new AgentError(
        'MergeFailed',
        `libvirt cannot merge the snapshot "${snapshotId}" of ${domain.name} while that is off, since its definition does not ` +
          'name the layers below its disks; start the VM, or delete its newer snapshots first, and call deleteSnapshot again.',
        { ...about, cause },
      );
    }
    throw libvirtFault(cause, 'MergeFailed', `merge the snapshot "${snapshotId}" of ${domain.name}`, about);
  }
}
