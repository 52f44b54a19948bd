/**
 * Who listens to which events, kept across connections: each connection is told again which kinds are wanted.
 *
 * A kind is registered once, for all domains, however many listen; listeners that want one domain are told apart here,
 * by UUID. So a listener can wait for a domain that does not exist yet, and coming back cannot fail over one that is gone.
 */
import type { Connection } from './connection.js';
import { type CallOptions, Deadline } from './deadline.js';
import { ConnectionLostError, LibvirtError, NotConnectedError } from './errors.js';
import { type EventMessages, type EventName, eventDefinitions } from './events.js';
import { procedure } from './procedure.js';
import { type Domain, domain } from './wire-types.js';
import type { XdrReader } from './xdr.js';
import { int, nothing, optional, struct } from './xdr-types.js';

const register = procedure(
  'connectDomainEventCallbackRegisterAny',
  316,
  struct({ eventId: int, domain: optional(domain) }),
  struct({ callbackId: int }),
);
const deregister = procedure(
  'connectDomainEventCallbackDeregisterAny',
  317,
  struct({ callbackId: int }),
  nothing,
);

export type EventListener<N extends EventName> = (message: EventMessages[N]) => void;

/** A listener's place. */
export interface Subscription {
  /**
   * Resolves once libvirtd has the registration: no event that happens from then on is missed while the connection
   * lasts. Waits for a connection if there is none. Rejects if libvirtd knows no such event, with `CallTimeoutError`,
   * or when the subscription ends.
   */
  registered(options?: CallOptions): Promise<void>;
  /** The listener is not called any more. Idempotent. */
  close(): void;
}

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

interface Listener {
  readonly uuid: string | undefined;
  readonly call: (message: never) => void;
  readonly waiters: Set<Waiter>;
}

interface Kind {
  readonly name: EventName;
  readonly listeners: Set<Listener>;
  /** Where it is registered, and as what. */
  registration: { readonly connection: Connection; readonly callbackId: number } | undefined;
  /** Where libvirtd refused it. */
  refusal: { readonly connection: Connection; readonly error: LibvirtError } | undefined;
  busy: Promise<void> | undefined;
}

export interface SubscriptionOptions {
  /** For each registration with libvirtd, in milliseconds. */
  readonly timeoutMs: number;
  /** A listener threw. */
  readonly onListenerError: (error: unknown, event: EventName) => void;
}

export class EventSubscriptions {
  readonly #options: SubscriptionOptions;
  readonly #kinds = new Map<EventName, Kind>();
  readonly #byProcedure = new Map<number, EventName>();
  #connection: Connection | undefined;
  #closed = false;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
    for (const [name, { procedure }] of Object.entries(eventDefinitions)) {
      this.#byProcedure.set(procedure, name as EventName);
    }
  }

  /** From now on `listener` is called for each event of that name, of `only` or of all domains. */
  subscribe<N extends EventName>(name: N, listener: EventListener<N>, only?: Domain): Subscription {
    if (this.#closed) throw new NotConnectedError('the libvirt client is closed');
    const kind = this.#kind(name);
    const entry: Listener = { uuid: only?.uuid, call: listener, waiters: new Set() };
    kind.listeners.add(entry);
    void this.#settle(kind);
    return {
      registered: (options = {}) => this.#registered(kind, entry, options),
      close: () => {
        if (!kind.listeners.delete(entry)) return;
        rejectAll(entry, new NotConnectedError('the subscription was closed'));
        void this.#settle(kind);
      },
    };
  }

  /**
   * Registers all that is wanted with a new connection.
   * @throws the connection's loss, if that comes in between. A kind that libvirtd does not know is no reason.
   */
  async attach(connection: Connection): Promise<void> {
    this.#connection = connection;
    await Promise.all([...this.#kinds.values()].map((kind) => this.#settle(kind)));
    if (connection.lost !== undefined) throw connection.lost;
  }

  /** Takes a message from the connection. @returns false if it is of no known event or cannot be read. */
  deliver(procedure: number, payload: XdrReader): boolean {
    const name = this.#byProcedure.get(procedure);
    if (name === undefined) return false;
    let message: EventMessages[EventName];
    try {
      message = eventDefinitions[name].message.decode(payload);
      payload.end();
    } catch {
      return false;
    }
    // An event may overtake the reply to its own registration: the listener is there already, so it gets it.
    for (const { uuid, call } of [...(this.#kinds.get(name)?.listeners ?? [])]) {
      if (uuid !== undefined && uuid !== message.domain.uuid) continue;
      try {
        call(message as never);
      } catch (error) {
        // Apart from here: whatever that handler does, the connection goes on.
        queueMicrotask(() => this.#options.onListenerError(error, name));
      }
    }
    return true;
  }

  /** Ends all subscriptions. */
  close(): void {
    this.#closed = true;
    for (const kind of this.#kinds.values()) {
      for (const entry of kind.listeners)
        rejectAll(entry, new NotConnectedError('the libvirt client is closed'));
      kind.listeners.clear();
    }
  }

  #kind(name: EventName): Kind {
    let kind = this.#kinds.get(name);
    if (kind === undefined) {
      kind = { name, listeners: new Set(), registration: undefined, refusal: undefined, busy: undefined };
      this.#kinds.set(name, kind);
    }
    return kind;
  }

  async #registered(kind: Kind, entry: Listener, options: CallOptions): Promise<void> {
    if (!kind.listeners.has(entry)) throw new NotConnectedError('the subscription was closed');
    const connection = this.#connection;
    if (connection !== undefined && connection.lost === undefined) {
      if (kind.registration?.connection === connection) return;
      if (kind.refusal?.connection === connection) throw kind.refusal.error;
    }
    const deadline = new Deadline(
      register.name,
      options.timeoutMs ?? this.#options.timeoutMs,
      options.signal,
    );
    let waiter: Waiter | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        waiter = { resolve, reject };
        entry.waiters.add(waiter);
        deadline.onEnd(true, reject);
      });
    } finally {
      deadline.clear();
      if (waiter !== undefined) entry.waiters.delete(waiter);
    }
  }

  /** Makes libvirtd's view of a kind equal to ours. One at a time a kind, so that no two registrations overlap. */
  #settle(kind: Kind): Promise<void> {
    kind.busy ??= this.#reconcile(kind).finally(() => {
      kind.busy = undefined;
    });
    return kind.busy;
  }

  async #reconcile(kind: Kind): Promise<void> {
    for (;;) {
      const connection = this.#connection;
      if (connection === undefined || connection.lost !== undefined) return;
      const wanted = kind.listeners.size > 0;
      const here = kind.registration?.connection === connection ? kind.registration : undefined;
      const refused = kind.refusal?.connection === connection;
      try {
        if (wanted && here === undefined && !refused) {
          await this.#register(kind, connection);
        } else if (!wanted && here !== undefined) {
          kind.registration = undefined;
          await connection.call(deregister, { callbackId: here.callbackId }, this.#options);
        } else {
          this.#tellWaiters(kind, connection);
          return;
        }
      } catch (error) {
        // libvirtd may or may not have the registration now. Only a new connection is a known state again.
        if (!(error instanceof ConnectionLostError)) {
          connection.lose('libvirtd did not confirm a change of the registered events', error);
        }
      }
    }
  }

  async #register(kind: Kind, connection: Connection): Promise<void> {
    const args = { eventId: eventDefinitions[kind.name].id, domain: null };
    try {
      const { callbackId } = await connection.call(register, args, this.#options);
      kind.registration = { connection, callbackId };
    } catch (error) {
      if (!(error instanceof LibvirtError)) throw error;
      kind.refusal = { connection, error };
    }
  }

  #tellWaiters(kind: Kind, connection: Connection): void {
    for (const entry of kind.listeners) {
      if (kind.refusal?.connection === connection) rejectAll(entry, kind.refusal.error);
      for (const waiter of entry.waiters) waiter.resolve();
      entry.waiters.clear();
    }
  }
}

function rejectAll(entry: Listener, error: Error): void {
  for (const waiter of entry.waiters) waiter.reject(error);
  entry.waiters.clear();
}
