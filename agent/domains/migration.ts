import { AgentError } from '../errors.js';
import {
  CallTimeoutError,
  type Domain,
  DomainState,
  ErrorCode,
  hasCode,
  isOperationInvalid,
  isStateLockTimeout,
  JobOperation,
  JobStat,
  JobType,
  type LibvirtClient,
  ShutoffReason,
} from '../libvirt/index.js';
import { libvirtFault } from './faults.js';

/** Milliseconds for asking whether a VM migrates: neither side of a migration lets that question wait. */
const ASK_MS = 2000;

/**
 * What the job that holds a running VM does, a `JobOperation`; null without one, or where the VM has stopped. Of a VM
 * that is on its way to this host libvirt tells no more than that it is: it refuses this one question, while others
 * about QEMU wait for 30 s (libvirt 9.0, src/qemu/qemu_driver.c, qemuDomainGetJobStatsInternal: "migration statistics
 * are available only on the source host", 84; src/qemu/qemu_migration.c lets no other job in on that side).
 * @throws what the call throws
 */
export async function jobOperation(
  libvirt: LibvirtClient,
  domain: Domain,
  options: { signal: AbortSignal; timeoutMs?: number },
): Promise<number | null> {
  try {
    const { type, params } = await libvirt.jobs.getStats(domain, 0, options);
    return type === JobType.none ? null : Number(params[JobStat.operation] ?? JobOperation.unknown);
  } catch (cause) {
    if (hasCode(cause, ErrorCode.operationUnsupported)) return JobOperation.migrationIn;
    if (isOperationInvalid(cause)) return null;
    throw cause;
  }
}

/** What a caller is told of a job that is a migration; null for another. */
export function migrating({ uuid, name }: Domain, operation: number | null): AgentError | null {
  const about = { vmId: uuid };
  if (operation === JobOperation.migrationOut) {
    return new AgentError(
      'MigrationInProgress',
      `${name} is migrating to another host (\`virsh domjobinfo ${name}\` tells how far it is); try again when that has ended, on the host where it then runs.`,
      about,
    );
  }
  if (operation === JobOperation.migrationIn) {
    return new AgentError(
      'MigrationInProgress',
      `${name} is migrating to this host and has not arrived; try again when it runs here.`,
      about,
    );
  }
  return null;
}

/**
 * To be asked before a verb turns to a VM, and after what records alone can answer. One call, of a VM that runs.
 * @throws AgentError `MigrationInProgress`, `NoSuchVM`, `LibvirtUnavailable`
 */
export async function refuseMigrating(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<void> {
  if (domain.id === -1) return;
  const options = { signal, timeoutMs: ASK_MS };
  const operation = await jobOperation(libvirt, domain, options).catch((cause: unknown) => {
    signal.throwIfAborted();
    // Something else holds the VM, or its QEMU hangs: for the verb to find out, which may not need QEMU at all.
    if (cause instanceof CallTimeoutError || isStateLockTimeout(cause)) return null;
    throw libvirtFault(cause, 'NoSuchVM', `ask whether ${domain.name} is migrating`, { vmId: domain.uuid });
  });
  const refusal = migrating(domain, operation);
  if (refusal !== null) throw refusal;
}

/**
 * Whether a VM that is off has left for another host, where QEMU may have its images open. libvirt knows that until it
 * is restarted, or the VM is started here.
 */
export async function hasMovedAway(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<boolean> {
  if (domain.id !== -1) return false;
  try {
    const { state, reason } = await libvirt.domains.getState(domain, { signal });
    return state === DomainState.shutoff && reason === ShutoffReason.migrated;
  } catch (cause) {
    throw libvirtFault(cause, 'NoSuchVM', `ask why ${domain.name} is off`, { vmId: domain.uuid });
  }
}

/**
 * Keeps verbs that read or change the images of a VM that is off from those of one that runs elsewhere.
 * @throws AgentError `VMNotRunning`
 */
export async function refuseMovedAway(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<void> {
  if (!(await hasMovedAway(libvirt, domain, signal))) return;
  throw new AgentError(
    'VMNotRunning',
    `${domain.name} has migrated to another host and does not run here; ask on that host, or start it here first.`,
    { vmId: domain.uuid },
  );
}
