/** Calls about a domain's job: a backup, a migration, a save. A domain has one at a time. */
import type { CallOptions } from '../deadline.js';
import { jobStatsMax } from '../events.js';
import { type Caller, procedure } from '../procedure.js';
import { type TypedParams, typedParams } from '../typed-params.js';
import { type Domain, domain } from '../wire-types.js';
import { int, nothing, size, struct, uint } from '../xdr-types.js';

const withFlags = struct({ domain, flags: uint });

const jobInfo = struct({
  type: int,
  timeElapsedMs: size,
  timeRemainingMs: size,
  dataTotal: size,
  dataProcessed: size,
  dataRemaining: size,
  memoryTotal: size,
  memoryProcessed: size,
  memoryRemaining: size,
  fileTotal: size,
  fileProcessed: size,
  fileRemaining: size,
});
const getJobInfo = procedure('domainGetJobInfo', 163, struct({ domain }), jobInfo);
const getJobStats = procedure(
  'domainGetJobStats',
  298,
  withFlags,
  struct({ type: int, params: typedParams(jobStatsMax) }),
);
const abortJob = procedure('domainAbortJob', 164, struct({ domain }), nothing);
const abortJobFlags = procedure('domainAbortJobFlags', 442, withFlags, nothing);

/** Bytes, except the times. `type` is a `JobType`. */
export interface JobInfo {
  readonly type: number;
  readonly timeElapsedMs: number;
  readonly timeRemainingMs: number;
  readonly dataTotal: number;
  readonly dataProcessed: number;
  readonly dataRemaining: number;
  readonly memoryTotal: number;
  readonly memoryProcessed: number;
  readonly memoryRemaining: number;
  readonly fileTotal: number;
  readonly fileProcessed: number;
  readonly fileRemaining: number;
}

/** `type` is a `JobType`; which `params` (`JobStat`) there are depends on the job. */
export interface JobStats {
  readonly type: number;
  readonly params: TypedParams;
}

export class JobCalls {
  constructor(private readonly call: Caller) {}

  /** Which job runs, `JobType.none` without one. Answers at once, whatever is busy. (virDomainGetJobInfo) */
  async getInfo(domain: Domain, options?: CallOptions): Promise<JobInfo> {
    return this.call(getJobInfo, { domain }, options, domain);
  }

  /** @param flags `JobStatsFlag`. (virDomainGetJobStats) */
  async getStats(domain: Domain, flags = 0, options?: CallOptions): Promise<JobStats> {
    return this.call(getJobStats, { domain, flags }, options, domain);
  }

  /**
   * Ends whatever job runs, also one that somebody else began: look first.
   * @param flags `AbortJobFlag`; other than 0 needs libvirt 8.5. (virDomainAbortJob, virDomainAbortJobFlags)
   */
  async abort(domain: Domain, flags = 0, options?: CallOptions): Promise<void> {
    return flags === 0
      ? this.call(abortJob, { domain }, options, domain)
      : this.call(abortJobFlags, { domain, flags }, options, domain);
  }
}
