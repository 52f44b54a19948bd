/** Calls that put devices into a domain and take them out. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type Domain, domain, text } from '../wire-types.js';
import { nothing, struct, uint } from '../xdr-types.js';

const xmlArgs = struct({ domain, xml: text, flags: uint });

const attachDeviceFlags = procedure('domainAttachDeviceFlags', 160, xmlArgs, nothing);
const detachDeviceFlags = procedure('domainDetachDeviceFlags', 161, xmlArgs, nothing);
const updateDeviceFlags = procedure('domainUpdateDeviceFlags', 174, xmlArgs, nothing);
const detachDeviceAlias = procedure(
  'domainDetachDeviceAlias',
  392,
  struct({ domain, alias: text, flags: uint }),
  nothing,
);

/** `flags` is `DeviceFlag`, 0 (the running instance or, shut off, the configuration) where it is left out. */
export class DeviceCalls {
  constructor(private readonly call: Caller) {}

  /** (virDomainAttachDeviceFlags) */
  async attach(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(attachDeviceFlags, { domain, xml, flags }, options, domain);
  }

  /**
   * Asks for the removal of the device that `xml` describes. May return with the device still there, since the guest has
   * a say: wait for `deviceRemoved` or `deviceRemovalFailed`.
   * @throws LibvirtError with `isDeviceMissing`. (virDomainDetachDeviceFlags)
   */
  async detach(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(detachDeviceFlags, { domain, xml, flags }, options, domain);
  }

  /**
   * As `detach`, by alias, and without waiting for the guest at all.
   * @throws LibvirtError; libvirt 9.0 has no code of its own for a missing alias. (virDomainDetachDeviceAlias)
   */
  async detachAlias(domain: Domain, alias: string, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(detachDeviceAlias, { domain, alias, flags }, options, domain);
  }

  /** (virDomainUpdateDeviceFlags) */
  async update(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(updateDeviceFlags, { domain, xml, flags }, options, domain);
  }
}
