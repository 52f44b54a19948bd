/** Calls about a domain's disks and the jobs on them. A disk is named by its target, such as `vda`, or its path. */
import type { CallOptions } from '../deadline.js';
import { type Caller, procedure } from '../procedure.js';
import { type TypedParams, typedParams } from '../typed-params.js';
import { type Domain, domain, optionalText, text } from '../wire-types.js';
import { array, bool, int, nothing, size, struct, uint } from '../xdr-types.js';

const ofDisk = struct({ domain, disk: text, flags: uint });

const getBlockInfo = procedure(
  'domainGetBlockInfo',
  194,
  ofDisk,
  struct({ allocation: size, capacity: size, physical: size }),
);
const blockResize = procedure(
  'domainBlockResize',
  251,
  struct({ domain, disk: text, bytes: size, flags: uint }),
  nothing,
);
/** REMOTE_DOMAIN_BLOCK_STATS_PARAMETERS_MAX: what may come back, and so what is asked for. */
const statsMax = 16;
const blockStatsFlags = procedure(
  'domainBlockStatsFlags',
  243,
  struct({ domain, disk: text, count: int, flags: uint }),
  struct({ params: typedParams(statsMax), count: int }),
);
const blockCommit = procedure(
  'domainBlockCommit',
  290,
  struct({ domain, disk: text, base: optionalText, top: optionalText, bandwidth: size, flags: uint }),
  nothing,
);
const blockRebase = procedure(
  'domainBlockRebase',
  266,
  struct({ domain, disk: text, base: optionalText, bandwidth: size, flags: uint }),
  nothing,
);
const blockPull = procedure(
  'domainBlockPull',
  240,
  struct({ domain, disk: text, bandwidth: size, flags: uint }),
  nothing,
);
const blockJobAbort = procedure('domainBlockJobAbort', 237, ofDisk, nothing);
const getBlockJobInfo = procedure(
  'domainGetBlockJobInfo',
  238,
  ofDisk,
  struct({ found: bool, type: int, bandwidth: size, current: size, end: size }),
);
const setBlockThreshold = procedure(
  'domainSetBlockThreshold',
  386,
  struct({ domain, device: text, threshold: size, flags: uint }),
  nothing,
);
/** REMOTE_DOMAIN_DISK_ERRORS_MAX. */
const diskErrorsMax = 256;
const getDiskErrors = procedure(
  'domainGetDiskErrors',
  263,
  struct({ domain, max: uint, flags: uint }),
  struct({ errors: array(struct({ disk: text, error: int }), diskErrorsMax), count: int }),
);

/** VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES; without it bandwidths would be in MiB/s. */
const commitInBytes = 16;
/** VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES, VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES. */
const pullInBytes = 64;
/** VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES. */
const jobInfoInBytes = 1;
/** VIR_DOMAIN_BLOCK_RESIZE_BYTES; without it the size would be in KiB. */
const resizeInBytes = 1;

/** All in bytes. */
export interface BlockInfo {
  /** What the guest sees. */
  readonly capacity: number;
  /** What the image uses. */
  readonly allocation: number;
  /** What its container, file or device, measures. */
  readonly physical: number;
}

export interface BlockJobInfo {
  /** A `BlockJobType`. */
  readonly type: number;
  /** Bytes per second, 0 without a limit. */
  readonly bandwidth: number;
  /** Progress: `current` of `end`, units that mean nothing else. Equal is not yet ended. */
  readonly current: number;
  readonly end: number;
}

export interface DiskError {
  readonly disk: string;
  /** A `DiskErrorCode`. */
  readonly error: number;
}

/** What the jobs that move data between layers have in common. */
export interface BlockJobRequest {
  /** A file of the chain, or its index as in `vda[2]`; null or left out, the end of the chain. */
  readonly base?: string | null;
  /** Bytes per second; 0 or left out, as fast as it goes. */
  readonly bandwidth?: number;
  /** `BlockCommitFlag`, `BlockRebaseFlag`. */
  readonly flags?: number;
}

export interface BlockCommitRequest extends BlockJobRequest {
  /** The topmost layer to commit; null or left out, the active one. */
  readonly top?: string | null;
}

export class BlockCalls {
  constructor(private readonly call: Caller) {}

  /** (virDomainGetBlockInfo) */
  async getInfo(domain: Domain, disk: string, options?: CallOptions): Promise<BlockInfo> {
    return this.call(getBlockInfo, { domain, disk, flags: 0 }, options, domain);
  }

  /** (virDomainBlockResize) */
  async resize(domain: Domain, disk: string, bytes: number, options?: CallOptions): Promise<void> {
    return this.call(blockResize, { domain, disk, bytes, flags: resizeInBytes }, options, domain);
  }

  /** Counters by `BlockStat`; of all disks together for the disk ''. (virDomainBlockStatsFlags) */
  async getStats(domain: Domain, disk: string, options?: CallOptions): Promise<TypedParams> {
    return (await this.call(blockStatsFlags, { domain, disk, count: statsMax, flags: 0 }, options, domain))
      .params;
  }

  /** Begins to merge layers downwards; the end is a `blockJob` event. (virDomainBlockCommit) */
  async commit(
    domain: Domain,
    disk: string,
    request: BlockCommitRequest,
    options?: CallOptions,
  ): Promise<void> {
    const { base = null, top = null, bandwidth = 0, flags = 0 } = request;
    const args = { domain, disk, base, top, bandwidth, flags: flags | commitInBytes };
    return this.call(blockCommit, args, options, domain);
  }

  /** Begins to take the data above `base` into the active layer. (virDomainBlockRebase) */
  async rebase(domain: Domain, disk: string, request: BlockJobRequest, options?: CallOptions): Promise<void> {
    const { base = null, bandwidth = 0, flags = 0 } = request;
    return this.call(
      blockRebase,
      { domain, disk, base, bandwidth, flags: flags | pullInBytes },
      options,
      domain,
    );
  }

  /** Begins to take all data of the chain into the active layer. @param bandwidth bytes per second. (virDomainBlockPull) */
  async pull(domain: Domain, disk: string, bandwidth = 0, options?: CallOptions): Promise<void> {
    return this.call(blockPull, { domain, disk, bandwidth, flags: pullInBytes }, options, domain);
  }

  /** Ends the job on a disk. @param flags `BlockJobAbortFlag`. (virDomainBlockJobAbort) */
  async abortJob(domain: Domain, disk: string, flags = 0, options?: CallOptions): Promise<void> {
    return this.call(blockJobAbort, { domain, disk, flags }, options, domain);
  }

  /** The job on a disk, null without one. Answers at once, whatever else is busy. (virDomainGetBlockJobInfo) */
  async getJobInfo(domain: Domain, disk: string, options?: CallOptions): Promise<BlockJobInfo | null> {
    const reply = await this.call(getBlockJobInfo, { domain, disk, flags: jobInfoInBytes }, options, domain);
    const { found, ...info } = reply;
    return found ? info : null;
  }

  /**
   * Asks for one `blockThreshold` event at the first write beyond `bytes`; 0 takes it back.
   * @param device `vda`, or with a node's index `vda[3]`. (virDomainSetBlockThreshold)
   */
  async setThreshold(domain: Domain, device: string, bytes: number, options?: CallOptions): Promise<void> {
    return this.call(setBlockThreshold, { domain, device, threshold: bytes, flags: 0 }, options, domain);
  }

  /** Disks whose I/O failed so that the domain was paused. (virDomainGetDiskErrors) */
  async getDiskErrors(domain: Domain, options?: CallOptions): Promise<readonly DiskError[]> {
    return (await this.call(getDiskErrors, { domain, max: diskErrorsMax, flags: 0 }, options, domain)).errors;
  }
}
