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
import { THAW_RECORD_VERSION, type ThawRecord, type ThawRegistry } from './thaw-record.js';

/** Whether the guest's file systems are frozen for a point in time: not at all, where it can be done, or else not without. */
export type Quiesce = 'no' | 'try' | 'require';

/** Milliseconds that the guest agent has for freezing. A guest cannot write meanwhile. */
export const FREEZE_MS = 10_000;
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
  readonly #records: ThawRegistry;

  /** @param records which guests may be frozen, for the next daemon if this one ends before they are thawed */
  constructor(records: ThawRegistry) {
    this.#records = records;
  }

  /** Writes down that the guest may be frozen from now on. */
  async note({ uuid, name }: Domain): Promise<void> {
    const vm = { uuid, name };
    const created = new Date().toISOString();
    await this.#records.save({ version: THAW_RECORD_VERSION, kind: 'thaw', created, ended: null, vm });
  }

  /** It is not frozen, or not by us. */
  async forget(uuid: string): Promise<void> {
    await this.#records.remove(uuid);
  }

  /** The guests that may be frozen. */
  noted(): ThawRecord['vm'][] {
    return this.#records.allLive().map(({ vm }) => vm);
  }

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
  /** `frozen`: milliseconds that the work may keep a guest frozen. */
  points: { stateMs: { frozen: number } };
}

/**
 * Runs `work` while the file systems of a running guest are frozen, as far as `quiesce` asks for it, and gives it up when
 * they have been for too long. Whatever happens in between (a freeze that was given up, work that throws), the guest is thawed: this returns when it is, or
 * after 15 s while the thaw goes on being tried for 10 minutes and is reported in the log.
 * @param work is told whether the guest is frozen, and has to end when its signal fires, whose reason is then a `Timeout`
 * @throws AgentError `FreezeGuestFSFailed` with `require`; `work` was then not begun. What `work` throws.
 */
export async function withFrozenGuest<T>(
  guests: Guests,
  domain: Domain,
  quiesce: Quiesce,
  signal: AbortSignal,
  work: (frozen: boolean, signal: AbortSignal) => Promise<T>,
): Promise<{ result: T; quiesced: boolean }> {
  if (quiesce === 'no') return { result: await work(false, signal), quiesced: false };
  const frozen = await freeze(guests, domain, signal);
  const limit = new AbortController();
  const { frozen: ms } = guests.points.stateMs;
  const timer = setTimeout(() => limit.abort(frozenTooLong(domain, ms)), ms);
  try {
    signal.throwIfAborted();
    if (!frozen.done && quiesce === 'require') throw notFrozen(domain, frozen.cause);
    const within = frozen.mayBeFrozen ? AbortSignal.any([signal, limit.signal]) : signal;
    return { result: await work(frozen.done, within), quiesced: frozen.done };
  } finally {
    clearTimeout(timer);
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
  await thaws.note(domain);
  try {
    const filesystems = await libvirt.guest.fsFreeze(domain, [], { timeoutMs: FREEZE_MS, signal });
    log.info(
      { vmId: domain.uuid, filesystems, ms: Math.round(performance.now() - startedAt) },
      'guest frozen',
    );
    return { done: true, mayBeFrozen: true, cause: null };
  } catch (cause) {
    log.info({ vmId: domain.uuid, err: cause }, 'the guest was not frozen');
    const mayBeFrozen = !answeredNo(cause);
    if (!mayBeFrozen) await thaws.forget(domain.uuid);
    return { done: false, mayBeFrozen, cause };
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
export async function thawGuest(
  guests: Omit<Guests, 'points'>,
  domain: Domain,
  frozen = true,
): Promise<void> {
  const thaw = guests.thaws.join(domain.uuid, () => untilThawed(guests, domain));
  await settlesWithin(thaw, frozen ? THAW_WAIT_MS.frozen : THAW_WAIT_MS.perhaps);
}

/** Thaws, at start, the guests that the last daemon may have left frozen. Returns at once. */
export function thawNoted(guests: Guests): void {
  for (const vm of guests.thaws.noted()) void thawGuest(guests, { ...vm, id: -1 });
}

async function settlesWithin(settles: Promise<void>, ms: number): Promise<boolean> {
  const done = new AbortController();
  const waited = sleep(ms, false, { ref: false, signal: done.signal }).catch(() => false);
  const settled = await Promise.race([settles.then(() => true), waited]);
  done.abort();
  return settled;
}

/** Never rejects. */
async function untilThawed(guests: Omit<Guests, 'points'>, domain: Domain): Promise<void> {
  if (!(await thawsInTime(guests, domain))) return; // the next start tries again
  await guests.thaws.forget(domain.uuid).catch((err: unknown) => {
    guests.log.warn({ vmId: domain.uuid, err }, 'the record of a guest that is thawed could not be removed');
  });
}

async function thawsInTime({ libvirt, log }: Omit<Guests, 'points'>, domain: Domain): Promise<boolean> {
  const vmId = domain.uuid;
  const limit = Date.now() + THAW_LIMIT_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      await libvirt.guest.fsThaw(domain, [], { timeoutMs: THAW_MS });
      return true;
    } catch (cause) {
      if (isNoDomain(cause) || isOperationInvalid(cause)) return true; // gone, or off: nothing is frozen any more
      if (attempt === 1) log.warn({ vmId, err: cause }, 'the guest could not be thawed, trying again');
      if (Date.now() > limit) {
        log.error(
          { vmId, err: cause },
          `${domain.name} may still be frozen: see to its guest agent, then run virsh domfsthaw ${domain.name}`,
        );
        return false;
      }
    }
    await sleep(THAW_AGAIN_MS, undefined, { ref: false });
  }
}

function frozenTooLong({ name, uuid }: Domain, ms: number): AgentError {
  return new AgentError(
    'Timeout',
    `The guest of ${name} was frozen for ${ms / 1000} s, which is as long as it may be, and libvirt had not done its part; ` +
      `the guest is thawed. See that its QEMU answers and that no other job holds the VM (\`virsh domjobinfo ${name}\`), then try again.`,
    { vmId: uuid },
  );
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
