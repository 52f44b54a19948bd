/** Calls about checkpoints: the instants since which a domain's writes are recorded. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type Checkpoint, checkpoint, checkpointList, type Domain, domain, text } from '../wire-types.js';
import { bool, int, nothing, struct, uint } from '../xdr-types.js';

const withFlags = struct({ checkpoint, flags: uint });
const listResult = struct({ checkpoints: checkpointList, count: int });

const createXML = procedure(
  'domainCheckpointCreateXML',
  411,
  struct({ domain, xml: text, flags: uint }),
  struct({ checkpoint }),
);
const getXMLDesc = procedure('domainCheckpointGetXMLDesc', 412, withFlags, struct({ xml: text }));
const listAll = procedure(
  'domainListAllCheckpoints',
  413,
  struct({ domain, needResults: bool, flags: uint }),
  listResult,
);
const listAllChildren = procedure(
  'domainCheckpointListAllChildren',
  414,
  struct({ checkpoint, needResults: bool, flags: uint }),
  listResult,
);
const lookupByName = procedure(
  'domainCheckpointLookupByName',
  415,
  struct({ domain, name: text, flags: uint }),
  struct({ checkpoint }),
);
const getParent = procedure('domainCheckpointGetParent', 416, withFlags, struct({ parent: checkpoint }));
const remove = procedure('domainCheckpointDelete', 417, withFlags, nothing);

export class CheckpointCalls {
  constructor(private readonly call: Caller) {}

  /** @param flags `CheckpointCreateFlag`. (virDomainCheckpointCreateXML) */
  async create(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<Checkpoint> {
    return (await this.call(createXML, { domain, xml, flags }, options, domain)).checkpoint;
  }

  /** In no order, unless `flags` has `CheckpointListFlag.topological`. (virDomainListAllCheckpoints) */
  async listAll(domain: Domain, flags = 0, options?: CallOptions): Promise<readonly Checkpoint[]> {
    return (await this.call(listAll, { domain, needResults: true, flags }, options, domain)).checkpoints;
  }

  /** @throws LibvirtError with `isNoCheckpoint`. (virDomainCheckpointLookupByName) */
  async lookupByName(domain: Domain, name: string, options?: CallOptions): Promise<Checkpoint> {
    return (await this.call(lookupByName, { domain, name, flags: 0 }, options, domain)).checkpoint;
  }

  /** @param flags `CheckpointXmlFlag`. (virDomainCheckpointGetXMLDesc) */
  async getXMLDesc(checkpoint: Checkpoint, flags = 0, options?: CallOptions): Promise<string> {
    return (await this.call(getXMLDesc, { checkpoint, flags }, options, checkpoint.domain)).xml;
  }

  /** @throws LibvirtError with `isNoCheckpoint` for a root. (virDomainCheckpointGetParent) */
  async getParent(checkpoint: Checkpoint, options?: CallOptions): Promise<Checkpoint> {
    return (await this.call(getParent, { checkpoint, flags: 0 }, options, checkpoint.domain)).parent;
  }

  /** Children, or with `CheckpointListFlag.descendants` theirs too. (virDomainCheckpointListAllChildren) */
  async listAllChildren(
    checkpoint: Checkpoint,
    flags = 0,
    options?: CallOptions,
  ): Promise<readonly Checkpoint[]> {
    const args = { checkpoint, needResults: true, flags };
    return (await this.call(listAllChildren, args, options, checkpoint.domain)).checkpoints;
  }

  /** @param flags `CheckpointDeleteFlag`. (virDomainCheckpointDelete) */
  async delete(checkpoint: Checkpoint, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(remove, { checkpoint, flags }, options, checkpoint.domain);
  }
}
