import { AgentError, type ErrorName } from '../errors.js';
import type { Domain, LibvirtClient } from '../libvirt/index.js';
import { libvirtFault } from './faults.js';

/**
 * A VM that is off may have been saved (`virsh managedsave`, libvirt-guests at a host's shutdown): its next start goes on
 * where its memory stopped, with the files that its disks had then, and not with those of its definition (libvirt,
 * src/qemu/qemu_saveimage.c: the domain's XML is in the saved state). An overlay made meanwhile would not be written to but what it lies
 * on, and one merged away would be missed. To be asked before the files of a VM that is off are put in another order.
 * @param name the verb's error
 * @param doing the middle of a sentence: `make a snapshot of web1`
 * @throws AgentError of that name
 */
export async function refuseSaved(
  libvirt: LibvirtClient,
  domain: Domain,
  name: ErrorName,
  doing: string,
  signal: AbortSignal,
): Promise<void> {
  if (domain.id !== -1) return;
  const saved = await libvirt.domains.hasManagedSave(domain, { signal }).catch((cause: unknown) => {
    throw libvirtFault(cause, name, `ask whether ${domain.name} was saved`, { vmId: domain.uuid });
  });
  if (!saved) return;
  throw new AgentError(
    name,
    `Cannot ${doing}: it was saved with its memory and will go on with the files that its disks have now. Start it first, ` +
      `or, where its memory is not wanted, drop that (\`virsh managedsave-remove ${domain.name}\`); then try again.`,
    { vmId: domain.uuid },
  );
}
