import { AgentError } from '../errors.js';
import { type Domain, DomainXmlFlag, isNoDomain, isUuid, type LibvirtClient } from '../libvirt/index.js';
import { type DomainConfig, parseDomain } from './config.js';
import { libvirtFault } from './faults.js';

/** A domain and the configuration that counts now: of the running VM, or the stored one of a shut-off VM. */
export interface DomainState {
  domain: Domain;
  running: boolean;
  config: DomainConfig;
}

/**
 * The domain that `vmId`, a UUID or a name, means.
 * @throws AgentError `NoSuchVM`, `LibvirtUnavailable`, `Timeout`
 */
export async function findDomain(client: LibvirtClient, vmId: string, signal: AbortSignal): Promise<Domain> {
  try {
    if (isUuid(vmId)) {
      const byUuid = await client.domains.lookupByUUID(vmId, { signal }).catch((cause: unknown) => {
        if (isNoDomain(cause)) return undefined; // a name may look like a UUID
        throw cause;
      });
      if (byUuid !== undefined) return byUuid;
    }
    return await client.domains.lookupByName(vmId, { signal });
  } catch (cause) {
    if (isNoDomain(cause)) {
      throw new AgentError(
        'NoSuchVM',
        `No VM on this host has the UUID or name "${vmId}"; \`virsh list --all\` shows those there are.`,
        { vmId, cause },
      );
    }
    throw libvirtFault(cause, 'NoSuchVM', `look up the VM "${vmId}"`, { vmId });
  }
}

/** As `findDomain`, and null where there is none. */
export async function findDomainIfAny(
  client: LibvirtClient,
  vmId: string,
  signal: AbortSignal,
): Promise<Domain | null> {
  return findDomain(client, vmId, signal).catch(nullIfNoSuchVM);
}

function nullIfNoSuchVM(error: unknown): null {
  if (error instanceof AgentError && error.name === 'NoSuchVM') return null;
  throw error;
}

/** The domain and its configuration now. @throws AgentError as `findDomain` */
export async function readDomain(
  client: LibvirtClient,
  vmId: string,
  signal: AbortSignal,
): Promise<DomainState> {
  const domain = await findDomain(client, vmId, signal);
  try {
    const config = parseDomain(await client.domains.getXMLDesc(domain, 0, { signal }));
    return { domain, running: domain.id !== -1, config };
  } catch (cause) {
    throw libvirtFault(cause, 'NoSuchVM', `read the configuration of ${domain.name}`, { vmId: domain.uuid });
  }
}

/** As `readDomain`, and null where there is none. */
export async function readDomainIfAny(
  client: LibvirtClient,
  vmId: string,
  signal: AbortSignal,
): Promise<DomainState | null> {
  return readDomain(client, vmId, signal).catch(nullIfNoSuchVM);
}

/** The stored configuration, which the VM will have at its next start; a transient VM's running one. */
export async function readStoredConfig(
  client: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<DomainConfig> {
  try {
    return parseDomain(await client.domains.getXMLDesc(domain, DomainXmlFlag.inactive, { signal }));
  } catch (cause) {
    throw libvirtFault(cause, 'NoSuchVM', `read the configuration of ${domain.name}`, { vmId: domain.uuid });
  }
}

/** All domains, running or not, and their configurations. One that goes away in between is left out. */
export async function readAllDomains(client: LibvirtClient, signal: AbortSignal): Promise<DomainState[]> {
  try {
    const domains = await client.domains.listAll(0, { signal });
    const states = await Promise.all(
      domains.map(async (domain) => {
        try {
          const config = parseDomain(await client.domains.getXMLDesc(domain, 0, { signal }));
          return { domain, running: domain.id !== -1, config };
        } catch (cause) {
          if (isNoDomain(cause)) return undefined;
          throw cause;
        }
      }),
    );
    return states.filter((state) => state !== undefined);
  } catch (cause) {
    throw libvirtFault(cause, 'LibvirtUnavailable', "ask which VMs' disks are in use");
  }
}
