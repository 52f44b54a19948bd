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
/** The caller waits no longer than this for the thaw of a guest that is frozen, or of one that may be; it is tried on. */
const THAW_WAIT_MS = { frozen: 15_000, perhaps: 3000 };
const THAW_LIMIT_MS = 600_000;

/**
 * The thaws that are still being tried, by domain. While there is one no other freeze is begun: it would be thawed under
 * the hands of the one that asked for it, and every call that hangs at the agent takes a place at libvirt.
 */
export class PendingThaws {
  readonly #pending = new Map<string, Promise<void>>();

  /** The thaw of that domain; undefined without one. */
  of(uuid: string): Promise<void> | undefined {
    return this.#pending.get(uuid);
  }

  /** Joins the thaw of that domain, or begins it. */
  join(uuid: string, thaw: () => Promise<void>): Promise<void> {
    const known = this.#pending.get(uuid);
    if (known !== undefined) return known;
    const begun = thaw().finally(() => this.#pending.delete(uuid));
    this.#pending.set(uuid, begun);
    return begun;
  }
}

interface Guests {
  libvirt: LibvirtClient;
  log: Logger;
  thaws: PendingThaws;
}

/**
 * Runs `work` while the file systems of a running guest are frozen, as far as `quiesce` asks for it. Whatever happens
 * in between (a freeze that was given up, work that throws), the guest is thawed: this returns when it is, or
 * after 15 s while the thaw goes on being tried for 10 minutes and is reported in the log.
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
    if (frozen.mayBeFrozen) await thawGuest(guests, domain, frozen.done);
  }
}

interface FreezeOutcome {
  done: boolean;
  /** Also where nobody knows: an answer that did not come may still be a freeze. */
  mayBeFrozen: boolean;
  cause: unknown;
}

async function freeze(guests: Guests, domain: Domain, signal: AbortSignal): Promise<FreezeOutcome> {
  const { libvirt, log, thaws } = guests;
  const startedAt = performance.now();
  const pending = thaws.of(domain.uuid);
  if (pending !== undefined && !(await settlesWithin(pending, FREEZE_MS))) {
    return { done: false, mayBeFrozen: false, cause: new Error('it has not answered the last thaw yet') };
  }
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
 * thaw, or after a few seconds, and then goes on trying. Also for a guest that a daemon which died has left frozen.
 * @param frozen whether it is known to be frozen, which is worth a longer wait
 */
export async function thawGuest(guests: Guests, domain: Domain, frozen = true): Promise<void> {
  const thaw = guests.thaws.join(domain.uuid, () => untilThawed(guests, domain));
  await settlesWithin(thaw, frozen ? THAW_WAIT_MS.frozen : THAW_WAIT_MS.perhaps);
}

async function settlesWithin(settles: Promise<void>, ms: number): Promise<boolean> {
  const done = new AbortController();
  const waited = sleep(ms, false, { ref: false, signal: done.signal }).catch(() => false);
  const settled = await Promise.race([settles.then(() => true), waited]);
  done.abort();
  return settled;
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
