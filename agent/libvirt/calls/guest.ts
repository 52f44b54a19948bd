/** Calls that the guest agent carries out. They take as long as the guest does: give them a time limit of their own. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type Domain, domain, text } from '../wire-types.js';
import { array, int, struct, uint } from '../xdr-types.js';

/** REMOTE_DOMAIN_FSFREEZE_MOUNTPOINTS_MAX. */
const mountpoints = array(text, 256);
const args = struct({ domain, mountpoints, flags: uint });
const result = struct({ filesystems: int });

const fsFreeze = procedure('domainFSFreeze', 335, args, result);
const fsThaw = procedure('domainFSThaw', 336, args, result);

/** All methods throw LibvirtError with `isAgentUnavailable` where no agent answers. */
export class GuestCalls {
  constructor(private readonly call: Caller) {}

  /**
   * Freezes file systems, all of them where none is named. Always thaw afterwards, also after an error or a timeout: the
   * agent may have frozen all the same. @returns how many are frozen. (virDomainFSFreeze)
   */
  async fsFreeze(
    domain: Domain,
    mountpoints: readonly string[] = [],
    options?: CallOptions,
  ): Promise<number> {
    return (await this.call(fsFreeze, { domain, mountpoints, flags: 0 }, options, domain)).filesystems;
  }

  /** @returns how many were thawed. (virDomainFSThaw) */
  async fsThaw(domain: Domain, mountpoints: readonly string[] = [], options?: CallOptions): Promise<number> {
    return (await this.call(fsThaw, { domain, mountpoints, flags: 0 }, options, domain)).filesystems;
  }
}
