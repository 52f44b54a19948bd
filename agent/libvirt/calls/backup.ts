/** Calls about a domain's backup job, which gives out a point in time while the guest goes on. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type Domain, domain, optionalText, text } from '../wire-types.js';
import { nothing, struct, uint } from '../xdr-types.js';

const backupBegin = procedure(
  'domainBackupBegin',
  421,
  struct({ domain, backupXml: text, checkpointXml: optionalText, flags: uint }),
  nothing,
);
const backupGetXMLDesc = procedure(
  'domainBackupGetXMLDesc',
  422,
  struct({ domain, flags: uint }),
  struct({ xml: text }),
);

export class BackupCalls {
  constructor(private readonly call: Caller) {}

  /**
   * Begins a backup job and, with `checkpointXml`, a checkpoint at the same instant. `jobs.abort` ends it.
   * @param flags `BackupBeginFlag`. (virDomainBackupBegin)
   */
  async begin(
    domain: Domain,
    backupXml: string,
    checkpointXml: string | null = null,
    flags = 0,
    options?: CallOptions,
  ): Promise<void> {
    return this.call(backupBegin, { domain, backupXml, checkpointXml, flags }, options, domain);
  }

  /**
   * The running job with all that libvirt filled in. Answers at once, whatever is busy.
   * @throws LibvirtError with `isNoBackup`. (virDomainBackupGetXMLDesc)
   */
  async getXMLDesc(domain: Domain, options?: CallOptions): Promise<string> {
    return (await this.call(backupGetXMLDesc, { domain, flags: 0 }, options, domain)).xml;
  }
}
