/** Calls about snapshots. */
import type { CallOptions } from '../deadline.js';
import { isNoSnapshot } from '../errors.js';
import { type Caller, procedure } from '../procedure.js';
import { type Domain, domain, type Snapshot, snapshot, snapshotList, text } from '../wire-types.js';
import { bool, int, nothing, struct, uint } from '../xdr-types.js';

const ofDomain = struct({ domain, flags: uint });
const withFlags = struct({ snapshot, flags: uint });
const oneSnapshot = struct({ snapshot });
const listResult = struct({ snapshots: snapshotList, count: int });

const createXML = procedure(
  'domainSnapshotCreateXML',
  185,
  struct({ domain, xml: text, flags: uint }),
  oneSnapshot,
);
const getXMLDesc = procedure('domainSnapshotGetXMLDesc', 186, withFlags, struct({ xml: text }));
const lookupByName = procedure(
  'domainSnapshotLookupByName',
  189,
  struct({ domain, name: text, flags: uint }),
  oneSnapshot,
);
const hasCurrent = procedure('domainHasCurrentSnapshot', 190, ofDomain, struct({ result: bool }));
const current = procedure('domainSnapshotCurrent', 191, ofDomain, oneSnapshot);
const remove = procedure('domainSnapshotDelete', 193, withFlags, nothing);
const getParent = procedure('domainSnapshotGetParent', 244, withFlags, oneSnapshot);
const numChildren = procedure('domainSnapshotNumChildren', 246, withFlags, struct({ count: int }));
const listAll = procedure(
  'domainListAllSnapshots',
  274,
  struct({ domain, needResults: bool, flags: uint }),
  listResult,
);
const listAllChildren = procedure(
  'domainSnapshotListAllChildren',
  275,
  struct({ snapshot, needResults: bool, flags: uint }),
  listResult,
);

export class SnapshotCalls {
  constructor(private readonly call: Caller) {}

  /** @param flags `SnapshotCreateFlag`. (virDomainSnapshotCreateXML) */
  async create(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<Snapshot> {
    return (await this.call(createXML, { domain, xml, flags }, options, domain)).snapshot;
  }

  /** In no order, unless `flags` has `SnapshotListFlag.topological`. (virDomainListAllSnapshots) */
  async listAll(domain: Domain, flags = 0, options?: CallOptions): Promise<readonly Snapshot[]> {
    return (await this.call(listAll, { domain, needResults: true, flags }, options, domain)).snapshots;
  }

  /** @throws LibvirtError with `isNoSnapshot`. (virDomainSnapshotLookupByName) */
  async lookupByName(domain: Domain, name: string, options?: CallOptions): Promise<Snapshot> {
    return (await this.call(lookupByName, { domain, name, flags: 0 }, options, domain)).snapshot;
  }

  /** @param flags `SnapshotXmlFlag`. (virDomainSnapshotGetXMLDesc) */
  async getXMLDesc(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<string> {
    return (await this.call(getXMLDesc, { snapshot, flags }, options, snapshot.domain)).xml;
  }

  /** (virDomainHasCurrentSnapshot) */
  async hasCurrent(domain: Domain, options?: CallOptions): Promise<boolean> {
    return (await this.call(hasCurrent, { domain, flags: 0 }, options, domain)).result;
  }

  /** The snapshot that the domain's state grew from; null without one. (virDomainSnapshotCurrent) */
  async getCurrent(domain: Domain, options?: CallOptions): Promise<Snapshot | null> {
    try {
      return (await this.call(current, { domain, flags: 0 }, options, domain)).snapshot;
    } catch (error) {
      if (isNoSnapshot(error)) return null;
      throw error;
    }
  }

  /** @throws LibvirtError with `isNoSnapshot` for a root. (virDomainSnapshotGetParent) */
  async getParent(snapshot: Snapshot, options?: CallOptions): Promise<Snapshot> {
    return (await this.call(getParent, { snapshot, flags: 0 }, options, snapshot.domain)).snapshot;
  }

  /** @param flags `SnapshotListFlag`. (virDomainSnapshotNumChildren) */
  async countChildren(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<number> {
    return (await this.call(numChildren, { snapshot, flags }, options, snapshot.domain)).count;
  }

  /** Children, or with `SnapshotListFlag.descendants` theirs too. (virDomainSnapshotListAllChildren) */
  async listAllChildren(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<readonly Snapshot[]> {
    const args = { snapshot, needResults: true, flags };
    return (await this.call(listAllChildren, args, options, snapshot.domain)).snapshots;
  }

  /** @param flags `SnapshotDeleteFlag`. (virDomainSnapshotDelete) */
  async delete(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(remove, { snapshot, flags }, options, snapshot.domain);
  }
}
