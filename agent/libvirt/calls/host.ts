/** Calls about the host and the daemon. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { optionalText, text } from '../wire-types.js';
import { nothing, size, struct, uint } from '../xdr-types.js';

const getLibVersion = procedure('connectGetLibVersion', 157, nothing, struct({ version: size }));
const getVersion = procedure('connectGetVersion', 4, nothing, struct({ version: size }));
const getHostname = procedure('connectGetHostname', 59, nothing, struct({ hostname: text }));
const getURI = procedure('connectGetURI', 110, nothing, struct({ uri: text }));
const getCapabilities = procedure('connectGetCapabilities', 7, nothing, struct({ capabilities: text }));
const getDomainCapabilities = procedure(
  'connectGetDomainCapabilities',
  342,
  struct({
    emulator: optionalText,
    arch: optionalText,
    machine: optionalText,
    virtType: optionalText,
    flags: uint,
  }),
  struct({ capabilities: text }),
);

/** Which kind of domain is asked about; what is left out is libvirt's default. */
export interface DomainCapabilitiesQuery {
  /** The emulator's path. */
  readonly emulator?: string;
  readonly arch?: string;
  readonly machine?: string;
  /** `kvm` or `qemu`. */
  readonly virtType?: string;
}

/** libvirt's version numbers are 1,000,000 × major + 1,000 × minor + release; this is `9.0.0` for 9000000. */
export function formatVersion(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1_000) % 1_000}.${version % 1_000}`;
}

export class HostCalls {
  constructor(private readonly call: Caller) {}

  /** The daemon's version, as a number; see `formatVersion`. (virConnectGetLibVersion) */
  async getLibVersion(options?: CallOptions): Promise<number> {
    return (await this.call(getLibVersion, undefined, options)).version;
  }

  /** The hypervisor's version, as a number; for QEMU that of the host's emulator. (virConnectGetVersion) */
  async getVersion(options?: CallOptions): Promise<number> {
    return (await this.call(getVersion, undefined, options)).version;
  }

  /** (virConnectGetHostname) */
  async getHostname(options?: CallOptions): Promise<string> {
    return (await this.call(getHostname, undefined, options)).hostname;
  }

  /** (virConnectGetURI) */
  async getURI(options?: CallOptions): Promise<string> {
    return (await this.call(getURI, undefined, options)).uri;
  }

  /** XML: the host's CPU, memory, guests that it can run. (virConnectGetCapabilities) */
  async getCapabilities(options?: CallOptions): Promise<string> {
    return (await this.call(getCapabilities, undefined, options)).capabilities;
  }

  /** XML: what an emulator can give a domain, `<backup>` among its features. (virConnectGetDomainCapabilities) */
  async getDomainCapabilities(query: DomainCapabilitiesQuery = {}, options?: CallOptions): Promise<string> {
    const { emulator = null, arch = null, machine = null, virtType = null } = query;
    const args = { emulator, arch, machine, virtType, flags: 0 };
    return (await this.call(getDomainCapabilities, args, options)).capabilities;
  }
}
