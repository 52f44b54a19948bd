import type { Domain, LibvirtClient } from '../libvirt/index.js';
import { libvirtFault } from './faults.js';
import { elements, parseXml } from './xml.js';

/** Whether a running domain has a guest agent that is connected (libvirt, docs/formatdomain.rst, channel target state). */
export async function hasGuestAgent(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const document = parseXml(await libvirt.domains.getXMLDesc(domain, 0, { signal }));
    const agent = '/domain/devices/channel/target[@name="org.qemu.guest_agent.0"][@state="connected"]';
    return elements(agent, document).length > 0;
  } catch (cause) {
    throw libvirtFault(cause, 'BackupError', `read the configuration of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}
