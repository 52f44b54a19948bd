import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { AgentError } from '../errors.js';
import {
  CallTimeoutError,
  type Domain,
  ErrorCode,
  hasCode,
  isAgentUnavailable,
  isConnectionFailure,
  isNoDomain,
  isOperationInvalid,
  type LibvirtClient,
  LibvirtError,
} from '../libvirt/index.js';

/** Whether the guest's file systems are frozen for a point in time: not at all, where it can be done, or else not without. */
export type Quiesce = 'no' | 'try' | 'require';

/** Milliseconds that the guest agent has for freezing. A guest cannot write meanwhile. */
const FREEZE_MS = 10_000;
/**
 * Milliseconds for one attempt to thaw. Longer than the 30 s that libvirt waits for a freeze that hangs in the guest, so
 * that attempts never pile up in libvirt and take the domain's places from other calls.
 */
const THAW_MS = 40_000;
/** Between two attempts to thaw. */
const THAW_AGAIN_MS = 1000;
/** The caller waits no longer than this for the thaw; it is tried on until the limit. */
const THAW_WAIT_MS = 15_000;
const THAW_LIMIT_MS = 600_000;

interface Guests {
  libvirt: LibvirtClient;
  log: Logger;
}

/**
 * Runs `work` while the file systems of a running guest are frozen, as far as `quiesce` asks for it. Whatever happens
 * in between (a freeze that was given up, work that throws), the guest is thawed: this returns when it is, or after
 * 15 s while the thaw goes on being tried for 10 minutes and is reported in the log.
 * @param work is told whether the guest is frozen
 * @throws AgentError `FreezeGuestFSFailed` with `require`; `work` was then not begun. What `work` throws.
 */
export async function withFrozenGuest<T>(
  guests: Guests,
  domain: Domain,
  quiesce: Quiesce,
  signal: AbortSignal,
  work: (frozen: boolean) => Promise<T>,
): Promise<{ result: T; quiesced: boolean }> {
  if (quiesce === 'no') return { result: await work(false), quiesced: false };
  const frozen = await freeze(guests, domain, signal);
  try {
    signal.throwIfAborted();
    if (!frozen.done && quiesce === 'require') throw notFrozen(domain, frozen.cause);
    return { result: await work(frozen.done), quiesced: frozen.done };
  } finally {
    if (frozen.mayBeFrozen) await thawGuest(guests, domain);
  }
}

interface FreezeOutcome {
  done: boolean;
  /** Also where nobody knows: an answer that did not come may still be a freeze. */
  mayBeFrozen: boolean;
  cause: unknown;
}

async function freeze({ libvirt, log }: Guests, domain: Domain, signal: AbortSignal): Promise<FreezeOutcome> {
  const startedAt = performance.now();
  try {
    const filesystems = await libvirt.guest.fsFreeze(domain, [], { timeoutMs: FREEZE_MS, signal });
    log.info(
      { vmId: domain.uuid, filesystems, ms: Math.round(performance.now() - startedAt) },
      'guest frozen',
    );
    return { done: true, mayBeFrozen: true, cause: null };
  } catch (cause) {
    log.info({ vmId: domain.uuid, err: cause }, 'the guest was not frozen');
    return { done: false, mayBeFrozen: !answeredNo(cause), cause };
  }
}

/**
 * Whether a failed freeze surely left nothing frozen: nothing was sent, libvirt knows of no agent, or the agent itself
 * refused, which thaws what it had frozen by then. A freeze that another product holds also ends up here (a frozen agent
 * refuses all but a thaw), and is not ours to thaw. (QEMU, qga/commands-posix.c and qga/main.c)
 */
function answeredNo(cause: unknown): boolean {
  if (cause instanceof LibvirtError)
    return !isAgentUnavailable(cause) && !hasCode(cause, ErrorCode.operationTimeout);
  if (isConnectionFailure(cause) || cause instanceof CallTimeoutError) return !cause.sent;
  return false;
}

/**
 * Thaws the guest's file systems, also where that has been done already. Returns when they are, when there is nobody to
 * thaw, or after 15 s, and then goes on trying. For a guest that a daemon which died meanwhile may have left frozen, too.
 */
export async function thawGuest(guests: Guests, domain: Domain): Promise<void> {
  const done = new AbortController();
  const waited = sleep(THAW_WAIT_MS, undefined, { ref: false, signal: done.signal }).catch(() => undefined);
  await Promise.race([untilThawed(guests, domain), waited]);
  done.abort();
}

/** Never rejects. */
async function untilThawed({ libvirt, log }: Guests, domain: Domain): Promise<void> {
  const vmId = domain.uuid;
  const limit = Date.now() + THAW_LIMIT_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      await libvirt.guest.fsThaw(domain, [], { timeoutMs: THAW_MS });
      return;
    } catch (cause) {
      if (isNoDomain(cause) || isOperationInvalid(cause)) return; // gone, or off: nothing is frozen any more
      if (attempt === 1) log.warn({ vmId, err: cause }, 'the guest could not be thawed, trying again');
      if (Date.now() > limit) {
        log.error(
          { vmId, err: cause },
          `${domain.name} may still be frozen: see to its guest agent, then run virsh domfsthaw ${domain.name}`,
        );
        return;
      }
    }
    await sleep(THAW_AGAIN_MS, undefined, { ref: false });
  }
}

function notFrozen(domain: Domain, cause: unknown): AgentError {
  const slow = cause instanceof CallTimeoutError;
  const why = slow
    ? `it did not answer within ${FREEZE_MS / 1000} s`
    : cause instanceof Error
      ? cause.message
      : cause;
  const noAgent = hasCode(cause, ErrorCode.argumentUnsupported);
  return new AgentError(
    'FreezeGuestFSFailed',
    `The guest agent of ${domain.name} did not freeze its file systems: ${why}. ` +
      (noAgent
        ? 'Give the VM the channel org.qemu.guest_agent.0 and install qemu-guest-agent in the guest'
        : 'See that qemu-guest-agent runs in the guest and that none of its file systems hangs') +
      ', or ask with quiesce "try" or "no".',
    {
      vmId: domain.uuid,
      retryable: !noAgent,
      ...(cause instanceof LibvirtError && {
        libvirt: { code: cause.code, domain: cause.domain, message: cause.message },
      }),
      cause,
    },
  );
}
