/** Calls that find domains, tell about them, and change their state. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type Domain, domain, domainList, optionalText, text, uuid } from '../wire-types.js';
import { bool, int, nothing, size, struct, uhyper, uint } from '../xdr-types.js';

const ofDomain = struct({ domain });
const withFlags = struct({ domain, flags: uint });
const xmlWithFlags = struct({ xml: text, flags: uint });

const lookupByID = procedure('domainLookupByID', 22, struct({ id: int }), ofDomain);
const lookupByName = procedure('domainLookupByName', 23, struct({ name: text }), ofDomain);
const lookupByUUID = procedure('domainLookupByUUID', 24, struct({ uuid }), ofDomain);
const listAll = procedure(
  'connectListAllDomains',
  273,
  struct({ needResults: bool, flags: uint }),
  struct({ domains: domainList, count: uint }),
);
const getXMLDesc = procedure('domainGetXMLDesc', 14, withFlags, struct({ xml: text }));
const getState = procedure('domainGetState', 212, withFlags, struct({ state: int, reason: int }));
const getInfo = procedure(
  'domainGetInfo',
  16,
  ofDomain,
  struct({ state: uint, maxMemoryKiB: size, memoryKiB: size, vcpus: uint, cpuTimeNs: uhyper }),
);
const isActive = procedure('domainIsActive', 150, ofDomain, struct({ active: bool }));
const isPersistent = procedure('domainIsPersistent', 151, ofDomain, struct({ persistent: bool }));
const isUpdated = procedure('domainIsUpdated', 202, ofDomain, struct({ updated: bool }));
const hasManagedSave = procedure('domainHasManagedSaveImage', 183, withFlags, struct({ result: int }));
const createWithFlags = procedure('domainCreateWithFlags', 196, withFlags, ofDomain);
const createXML = procedure('domainCreateXML', 10, xmlWithFlags, ofDomain);
const defineXMLFlags = procedure('domainDefineXMLFlags', 350, xmlWithFlags, ofDomain);
const undefineFlags = procedure('domainUndefineFlags', 231, withFlags, nothing);
const destroyFlags = procedure('domainDestroyFlags', 234, withFlags, nothing);
const shutdownFlags = procedure('domainShutdownFlags', 258, withFlags, nothing);
const suspend = procedure('domainSuspend', 34, ofDomain, nothing);
const resume = procedure('domainResume', 28, ofDomain, nothing);
const reset = procedure('domainReset', 245, withFlags, nothing);
const getMetadata = procedure(
  'domainGetMetadata',
  265,
  struct({ domain, type: int, uri: optionalText, flags: uint }),
  struct({ metadata: text }),
);
const setMetadata = procedure(
  'domainSetMetadata',
  264,
  struct({ domain, type: int, metadata: optionalText, key: optionalText, uri: optionalText, flags: uint }),
  nothing,
);

/** A state and its reason: `DomainState`, and `PausedReason`, `ShutoffReason`, ... by state. */
export interface DomainStateInfo {
  readonly state: number;
  readonly reason: number;
}

export interface DomainInfo {
  /** A `DomainState`. */
  readonly state: number;
  readonly maxMemoryKiB: number;
  readonly memoryKiB: number;
  readonly vcpus: number;
  /** Nanoseconds of all CPUs together; passes 2^53 after 104 days of one. */
  readonly cpuTimeNs: bigint;
}

/** A piece of metadata in a domain's XML. */
export interface Metadata {
  /** A `MetadataType`. */
  readonly type: number;
  /** XML for `MetadataType.element`, else text; null removes it. */
  readonly metadata: string | null;
  /** The prefix of the element's namespace. */
  readonly key?: string;
  /** The namespace that makes the element ours. */
  readonly uri?: string;
}

/** `flags` is 0 where it is left out. All methods throw what `LibvirtClient.call` throws. */
export class DomainCalls {
  constructor(private readonly call: Caller) {}

  /** @throws LibvirtError with `isNoDomain`. (virDomainLookupByUUID) */
  async lookupByUUID(uuid: string, options?: CallOptions): Promise<Domain> {
    return (await this.call(lookupByUUID, { uuid }, options)).domain;
  }

  /** @throws LibvirtError with `isNoDomain`. (virDomainLookupByName) */
  async lookupByName(name: string, options?: CallOptions): Promise<Domain> {
    return (await this.call(lookupByName, { name }, options)).domain;
  }

  /** By the number of a running instance. @throws LibvirtError with `isNoDomain`. (virDomainLookupByID) */
  async lookupByID(id: number, options?: CallOptions): Promise<Domain> {
    return (await this.call(lookupByID, { id }, options)).domain;
  }

  /** All domains, or those that `flags` (`ListDomainsFlag`) leave. (virConnectListAllDomains) */
  async listAll(flags = 0, options?: CallOptions): Promise<readonly Domain[]> {
    return (await this.call(listAll, { needResults: true, flags }, options)).domains;
  }

  /** @param flags `DomainXmlFlag`. (virDomainGetXMLDesc) */
  async getXMLDesc(domain: Domain, flags = 0, options?: CallOptions): Promise<string> {
    return (await this.call(getXMLDesc, { domain, flags }, options, domain)).xml;
  }

  /** (virDomainGetState) */
  async getState(domain: Domain, options?: CallOptions): Promise<DomainStateInfo> {
    return this.call(getState, { domain, flags: 0 }, options, domain);
  }

  /** (virDomainGetInfo) */
  async getInfo(domain: Domain, options?: CallOptions): Promise<DomainInfo> {
    return this.call(getInfo, { domain }, options, domain);
  }

  /** (virDomainIsActive) */
  async isActive(domain: Domain, options?: CallOptions): Promise<boolean> {
    return (await this.call(isActive, { domain }, options, domain)).active;
  }

  /** Whether it has a configuration that outlives the running instance. (virDomainIsPersistent) */
  async isPersistent(domain: Domain, options?: CallOptions): Promise<boolean> {
    return (await this.call(isPersistent, { domain }, options, domain)).persistent;
  }

  /** Whether its configuration was changed under the running instance. (virDomainIsUpdated) */
  async isUpdated(domain: Domain, options?: CallOptions): Promise<boolean> {
    return (await this.call(isUpdated, { domain }, options, domain)).updated;
  }

  /** Whether its next start goes on from a saved state. (virDomainHasManagedSaveImage) */
  async hasManagedSave(domain: Domain, options?: CallOptions): Promise<boolean> {
    return (await this.call(hasManagedSave, { domain, flags: 0 }, options, domain)).result === 1;
  }

  /** Starts a defined domain. @param flags `DomainStartFlag`. @returns it with its new `id`. (virDomainCreateWithFlags) */
  async start(domain: Domain, flags = 0, options?: CallOptions): Promise<Domain> {
    return (await this.call(createWithFlags, { domain, flags }, options, domain)).domain;
  }

  /** Starts a transient domain. @param flags `DomainStartFlag`. (virDomainCreateXML) */
  async createXML(xml: string, flags = 0, options?: CallOptions): Promise<Domain> {
    return (await this.call(createXML, { xml, flags }, options)).domain;
  }

  /** Defines a domain or changes its definition. @param flags `DomainDefineFlag`. (virDomainDefineXMLFlags) */
  async defineXML(xml: string, flags = 0, options?: CallOptions): Promise<Domain> {
    return (await this.call(defineXMLFlags, { xml, flags }, options)).domain;
  }

  /** @param flags `DomainUndefineFlag`. (virDomainUndefineFlags) */
  async undefine(domain: Domain, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(undefineFlags, { domain, flags }, options, domain);
  }

  /** Ends the running instance like a power cut. @param flags `DomainDestroyFlag`. (virDomainDestroyFlags) */
  async destroy(domain: Domain, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(destroyFlags, { domain, flags }, options, domain);
  }

  /** Asks the guest; it may take its time or refuse. @param flags `DomainShutdownFlag`. (virDomainShutdownFlags) */
  async shutdown(domain: Domain, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(shutdownFlags, { domain, flags }, options, domain);
  }

  /** Stops the guest's CPUs. (virDomainSuspend) */
  async suspend(domain: Domain, options?: CallOptions): Promise<void> {
    return this.call(suspend, { domain }, options, domain);
  }

  /** (virDomainResume) */
  async resume(domain: Domain, options?: CallOptions): Promise<void> {
    return this.call(resume, { domain }, options, domain);
  }

  /** Like a press of the reset button. (virDomainReset) */
  async reset(domain: Domain, options?: CallOptions): Promise<void> {
    return this.call(reset, { domain, flags: 0 }, options, domain);
  }

  /**
   * @param type `MetadataType`; `uri` names the element.
   * @param flags `DomainAffect`.
   * @throws LibvirtError with `isNoMetadata`. (virDomainGetMetadata)
   */
  async getMetadata(
    domain: Domain,
    type: number,
    uri: string | null = null,
    flags = 0,
    options?: CallOptions,
  ): Promise<string> {
    return (await this.call(getMetadata, { domain, type, uri, flags }, options, domain)).metadata;
  }

  /** @param flags `DomainAffect`. (virDomainSetMetadata) */
  async setMetadata(domain: Domain, what: Metadata, flags = 0, options?: CallOptions): Promise<void> {
    const { type, metadata, key = null, uri = null } = what;
    return this.call(setMetadata, { domain, type, metadata, key, uri, flags }, options, domain);
  }
}
