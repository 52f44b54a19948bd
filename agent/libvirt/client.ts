/**
 * The client: connections to one libvirtd that come back by themselves, the calls spread over them, and the events.
 */
import { EventEmitter } from 'node:events';
import { CallGate } from './call-gate.js';
import { BackupCalls } from './calls/backup.js';
import { BlockCalls } from './calls/block.js';
import { CheckpointCalls } from './calls/checkpoints.js';
import { DeviceCalls } from './calls/devices.js';
import { DomainCalls } from './calls/domains.js';
import { GuestCalls } from './calls/guest.js';
import { HostCalls } from './calls/host.js';
import { JobCalls } from './calls/jobs.js';
import { SnapshotCalls } from './calls/snapshots.js';
import { Connection } from './connection.js';
import { type CallOptions, Deadline } from './deadline.js';
import { dial } from './dial.js';
import { type ConnectionLostError, NotConnectedError } from './errors.js';
import type { EventName } from './events.js';
import { connectionClosedEvent, openHypervisor } from './handshake.js';
import { type IgnoredMessages, nothingIgnored } from './ignored.js';
import { Link } from './link.js';
import { type LibvirtOptions, type ResolvedOptions, resolveOptions } from './options.js';
import type { Caller, Procedure } from './procedure.js';
import { findSocket } from './socket-path.js';
import { type EventListener, EventSubscriptions, type Subscription } from './subscriptions.js';
import type { Domain } from './wire-types.js';

/** What the client itself reports. None is an error of the process: without a listener nothing happens. */
export interface LibvirtClientEvents {
  /** libvirtd is gone. Calls in flight were rejected, new ones are at once, and events are missed from here on. */
  lost: [error: ConnectionLostError];
  /**
   * It is there again, with every event registered. What happened in between has to be asked for. After a restart
   * libvirtd answers before it has found its running QEMUs again: calls that need a domain's lock wait for that, but
   * `destroy` may kill the domain and still answer that it is not running.
   */
  back: [];
  /** An attempt to connect came to nothing; the next follows in so many milliseconds. */
  attemptFailed: [error: unknown, retryInMs: number];
}

/** How things stand, for metrics and support. */
export interface LibvirtClientStatus {
  readonly connected: boolean;
  /** Connections that work at the moment. */
  readonly connections: number;
  /** Calls at libvirtd, those included whose callers gave up. */
  readonly inFlight: number;
  /** Calls that wait for their turn. */
  readonly waiting: number;
  readonly ignored: Readonly<IgnoredMessages>;
  /** Why the last attempt failed or the last connection ended; undefined if neither happened yet. */
  readonly lastFailure: unknown;
}

export class LibvirtClient extends EventEmitter<LibvirtClientEvents> {
  readonly host: HostCalls;
  readonly domains: DomainCalls;
  readonly devices: DeviceCalls;
  readonly block: BlockCalls;
  readonly jobs: JobCalls;
  readonly backup: BackupCalls;
  readonly checkpoints: CheckpointCalls;
  readonly snapshots: SnapshotCalls;
  readonly guest: GuestCalls;

  readonly #options: ResolvedOptions;
  readonly #gate: CallGate;
  readonly #subscriptions: EventSubscriptions;
  readonly #ignored = nothingIgnored();
  readonly #links: Link[] = [];
  /** Connections that are ready for calls. */
  readonly #up = new Set<Connection>();
  /** The one that carries the events as well: by it the client is lost and back. */
  #primary: Connection | undefined;
  readonly #whenReady = new Set<() => void>();
  #lastFailure: unknown;
  #wasLost = false;
  #closed = false;

  /** Begins to connect at once, and goes on until `close`. @throws RangeError for options out of range. */
  constructor(options: LibvirtOptions = {}) {
    super();
    this.#options = resolveOptions(options);
    this.#gate = new CallGate(this.#options.callsPerDomain);
    this.#subscriptions = new EventSubscriptions({
      timeoutMs: this.#options.connectTimeoutMs,
      onListenerError: this.#options.onListenerError,
    });
    const call: Caller = (procedure, args, callOptions, domain) =>
      this.call(procedure, args, callOptions, domain);
    this.host = new HostCalls(call);
    this.domains = new DomainCalls(call);
    this.devices = new DeviceCalls(call);
    this.block = new BlockCalls(call);
    this.jobs = new JobCalls(call);
    this.backup = new BackupCalls(call);
    this.checkpoints = new CheckpointCalls(call);
    this.snapshots = new SnapshotCalls(call);
    this.guest = new GuestCalls(call);
    for (let i = 0; i < this.#options.connections; i++) this.#links.push(this.#link(i === 0));
  }

  /**
   * Waits for libvirtd: resolves when calls work and all events are registered.
   * @param options `timeoutMs` is the client's `connectTimeoutMs` by default.
   * @throws NotConnectedError with the last failure as its cause.
   */
  async ready(options: CallOptions = {}): Promise<void> {
    if (this.#primary !== undefined) return;
    if (this.#closed) throw this.#notConnected();
    const { timeoutMs = this.#options.connectTimeoutMs, signal } = options;
    const deadline = new Deadline('ready', timeoutMs, signal);
    let done: (() => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        done = () => (this.#closed ? reject(this.#notConnected()) : resolve());
        this.#whenReady.add(done);
        deadline.onEnd(false, () => reject(signal?.aborted ? signal.reason : this.#notConnected()));
      });
    } finally {
      deadline.clear();
      if (done !== undefined) this.#whenReady.delete(done);
    }
  }

  /**
   * Calls `listener` for each event of that name, of one domain or of all, also after a reconnect, until it is closed.
   * May be called at any time; `registered()` says when libvirtd knows.
   */
  subscribe<N extends EventName>(
    event: N,
    listener: EventListener<N>,
    options: { readonly domain?: Domain } = {},
  ): Subscription {
    return this.#subscriptions.subscribe(event, listener, options.domain);
  }

  /**
   * Carries out any procedure, also one that no method here has.
   * @param domain whose calls are to take turns with it.
   * @throws LibvirtError, NotConnectedError, ConnectionLostError, CallTimeoutError, ProtocolError,
   *   MessageTooLargeError; XdrError or TypeError for arguments that the wire cannot carry; the signal's reason.
   */
  async call<A, R>(
    procedure: Procedure<A, R>,
    args: A,
    options: CallOptions = {},
    domain?: Domain,
  ): Promise<R> {
    if (this.#up.size === 0) throw this.#notConnected();
    const deadline = new Deadline(
      procedure.name,
      options.timeoutMs ?? this.#options.timeoutMs,
      options.signal,
    );
    const key = domain?.uuid ?? '';
    const began = performance.now();
    const told = (error?: unknown): void =>
      this.#options.onCall(procedure.name, performance.now() - began, error);
    const ended = new Promise<R>((resolve, reject) => {
      this.#gate.enter(key, {
        deadline,
        reject,
        start: () => {
          // The gate's capacity follows `#up`, so there is one.
          const [connection] = [...this.#up].sort((a, b) => a.inFlight - b.inFlight);
          connection?.send(procedure, args, deadline, () => this.#gate.leave(key)).then(resolve, reject);
        },
      });
    });
    ended.then(() => told(), told);
    return ended;
  }

  get status(): LibvirtClientStatus {
    let inFlight = 0;
    for (const connection of this.#up) inFlight += connection.inFlight;
    return {
      connected: this.#primary !== undefined,
      connections: this.#up.size,
      inFlight,
      waiting: this.#gate.waiting,
      ignored: { ...this.#ignored },
      lastFailure: this.#lastFailure,
    };
  }

  /** Ends it for good: calls are rejected, listeners silent. Idempotent; resolves when nothing is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#subscriptions.close();
    await Promise.all(this.#links.map((link) => link.close()));
    this.#gate.rejectWaiting(() => this.#notConnected());
    for (const done of this.#whenReady) done();
  }

  #link(primary: boolean): Link {
    return new Link((signal) => this.#open(primary, signal), this.#options.backoff, {
      up: (connection) => this.#onUp(connection, primary),
      failed: (error, retryInMs) => {
        this.#lastFailure = error;
        if (primary) this.#report(() => this.emit('attemptFailed', error, retryInMs));
      },
    });
  }

  async #open(primary: boolean, signal: AbortSignal): Promise<Connection> {
    const { uri, socket: path, connectTimeoutMs, keepAlive } = this.#options;
    const socket = await dial(path ?? (await findSocket(uri)), connectTimeoutMs, signal);
    const connection: Connection = new Connection(socket, {
      maxMessageBytes: this.#options.maxMessageBytes,
      timeoutMs: this.#options.timeoutMs,
      ignored: this.#ignored,
      onEvent: (procedure, payload) => {
        if (procedure === connectionClosedEvent) {
          connection.lose(`libvirtd lost its own connection to the hypervisor (reason ${payload.int()})`);
          return true;
        }
        return this.#subscriptions.deliver(procedure, payload);
      },
      onLost: (error) => this.#onLost(connection, error),
    });
    const abort = (): void => connection.close();
    signal.addEventListener('abort', abort, { once: true });
    void connection.closed.then(() => signal.removeEventListener('abort', abort));
    try {
      await openHypervisor(connection, { uri, keepAlive, timeoutMs: connectTimeoutMs }, signal);
      if (primary) await this.#subscriptions.attach(connection);
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  #onUp(connection: Connection, primary: boolean): void {
    if (connection.lost !== undefined) return;
    this.#up.add(connection);
    this.#resize();
    if (!primary) return;
    this.#primary = connection;
    for (const done of this.#whenReady) done();
    if (!this.#wasLost) return;
    this.#wasLost = false;
    this.#report(() => this.emit('back'));
  }

  /** Called before the calls on that connection are rejected, so that their callers find the new state. */
  #onLost(connection: Connection, error: ConnectionLostError): void {
    if (!this.#up.delete(connection)) return;
    if (!this.#closed) this.#lastFailure = error;
    this.#resize();
    if (this.#up.size === 0) this.#gate.rejectWaiting(() => this.#notConnected());
    if (connection !== this.#primary) return;
    this.#primary = undefined;
    if (this.#closed) return;
    this.#wasLost = true;
    this.#report(() => this.emit('lost', error));
  }

  #resize(): void {
    this.#gate.setCapacity(this.#up.size * this.#options.callsPerConnection);
  }

  /** What a listener of ours throws must not end up in the middle of a connection's work. */
  #report(emit: () => void): void {
    queueMicrotask(emit);
  }

  #notConnected(): NotConnectedError {
    if (this.#closed) return new NotConnectedError('the libvirt client is closed');
    const where = this.#options.socket ?? this.#options.uri;
    const why = this.#lastFailure instanceof Error ? `: ${this.#lastFailure.message}` : '';
    return new NotConnectedError(`not connected to libvirtd at ${where}${why}`, { cause: this.#lastFailure });
  }
}

/** Begins to connect to libvirtd and returns the client at once; `await client.ready()` waits for it. */
export function connectLibvirt(options: LibvirtOptions = {}): LibvirtClient {
  return new LibvirtClient(options);
}
