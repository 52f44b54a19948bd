import type { Socket } from 'node:net';
import { Connection } from '../nbd/connection.js';
import { NbdError } from '../nbd/error.js';
import { offer } from '../nbd/server-handshake.js';
import { isLoopback } from './addresses.js';
import type { Client, GatewayContext } from './context.js';
import { type Credential, credentialName, mayUse, visibleTo } from './credential.js';
import type { GatewayEntry } from './entry.js';
import { Negotiation, type Outcome, type Visible } from './negotiation.js';
import { Relay } from './relay.js';
import type { TlsSide } from './tls.js';
import type { Upstream } from './upstream.js';

/** Milliseconds for a client that has shown who it is to say what it wants. */
const NEGOTIATION_MS = 60_000;
/** Milliseconds after which the kernel asks whether a client that says nothing is still there. */
const KEEP_ALIVE_MS = 60_000;

/** One client, from its connection to its end. */
export class Session implements Client {
  readonly address: string;
  readonly #peer: string;
  readonly #plain: Socket;
  readonly #gateway: GatewayContext;
  readonly #over = new AbortController();
  #credential: Credential | undefined;
  #relay: Relay | undefined;
  #exportId: string | undefined;
  #refused: string | undefined;

  constructor(plain: Socket, gateway: GatewayContext) {
    this.address = plain.remoteAddress ?? '';
    this.#peer = `${plain.remoteAddress} port ${plain.remotePort}`;
    this.#plain = plain;
    this.#gateway = gateway;
  }

  /** Serves the client. Returns when it has gone; never rejects. */
  async run(tls: TlsSide): Promise<void> {
    const { halfOpen, settings } = this.#gateway;
    const plain = this.#plain;
    plain.setNoDelay(true);
    plain.setKeepAlive(true, KEEP_ALIVE_MS);
    plain.once('close', () => this.#over.abort(new Error('it has left')));
    halfOpen.enter(this);
    const { handshakeSeconds } = settings;
    const late = `it has not shown who it is in ${handshakeSeconds} seconds`;
    const timer = setTimeout(() => this.cut(late), handshakeSeconds * 1000);
    try {
      await this.#serve(tls, timer);
    } catch (error) {
      // Who leaves before it has been told anything has not been refused anything.
      const left = error instanceof NbdError && error.kind === 'closed';
      if (!left) this.#refused ??= (error as Error).message;
    } finally {
      clearTimeout(timer);
      halfOpen.leave(this);
      plain.destroy();
    }
    if (this.#refused === undefined) return;
    this.#gateway.refusals.write(this.#refused, { client: this.#peer, ...this.#about() });
  }

  /** Ends the connection at once, for the reason that goes into the log. Idempotent. */
  cut(reason: string): void {
    this.#refused ??= reason;
    this.#over.abort(new Error(reason));
    this.#relay?.cut();
    this.#plain.destroy();
  }

  check(): void {
    const { entries, clock, settings } = this.#gateway;
    if (this.#relay === undefined || this.#exportId === undefined || this.#credential === undefined) return;
    if (!mayUse(entries.find(this.#exportId), this.#credential, clock)) {
      this.cut('the export was torn down, or its lease has ended');
    } else if (this.#relay.stalledMs > settings.stallSeconds * 1000) {
      this.cut(`it has taken nothing for ${settings.stallSeconds} seconds`);
    }
  }

  async #serve(tls: TlsSide, timer: NodeJS.Timeout): Promise<void> {
    const { settings } = this.#gateway;
    let client = new Connection(this.#plain);
    const { noZeroes } = await offer(client);
    const isTrusted = settings.plaintextLoopback && isLoopback(this.address);
    const trusted: Credential | undefined = isTrusted ? { kind: 'loopback' } : undefined;
    let outcome = await this.#negotiate(client, trusted, noZeroes);
    this.#credential = trusted;
    if (outcome === 'starttls') {
      const secured = await tls.secure(client.release());
      this.#credential = secured.credential;
      client = new Connection(secured.socket);
      this.#gateway.admit(this);
      clearTimeout(timer);
      const late = setTimeout(() => this.cut('it does not say what it wants'), NEGOTIATION_MS);
      try {
        outcome = await this.#negotiate(client, secured.credential, noZeroes);
      } finally {
        clearTimeout(late);
      }
    }
    if (typeof outcome === 'string') return;
    clearTimeout(timer);
    await this.#pass(client.release(), outcome);
  }

  async #negotiate(
    client: Connection,
    credential: Credential | undefined,
    noZeroes: boolean,
  ): Promise<Outcome> {
    const visible = this.#visibleTo(credential, client.socket !== this.#plain);
    const negotiation = new Negotiation(client, visible, noZeroes, this.#over.signal);
    const close = () => negotiation.close();
    this.#over.signal.addEventListener('abort', close, { once: true });
    let outcome: Outcome | undefined;
    try {
      outcome = await negotiation.run();
      return outcome;
    } finally {
      this.#over.signal.removeEventListener('abort', close);
      negotiation.close(outcome);
    }
  }

  #visibleTo(credential: Credential | undefined, secure: boolean): Visible {
    const { entries, clock, traffic } = this.#gateway;
    return {
      secure,
      list: () => (credential === undefined ? [] : visibleTo(entries, credential, clock)),
      find: (exportName) => {
        const entry = credential && entries.find(exportName);
        return credential && mayUse(entry, credential, clock) ? entry : undefined;
      },
      enter: (entry: GatewayEntry) => traffic.enter(entry.exportId, entry.connections),
      leave: ({ exportId }) => traffic.leave(exportId),
      refused: (reason) => {
        this.#refused ??= reason;
      },
    };
  }

  async #pass(client: Socket, upstream: Upstream): Promise<void> {
    const { traffic, log } = this.#gateway;
    const { exportId } = upstream.entry;
    const total = traffic.of(exportId);
    const own = { sent: 0, received: 0 };
    this.#exportId = exportId;
    this.#refused = undefined; // it may have asked for another first
    try {
      this.#gateway.admit(this);
      this.#relay = new Relay(client, upstream, {
        sent: (bytes) => {
          total.sent += bytes;
          own.sent += bytes;
        },
        received: (bytes) => {
          total.received += bytes;
          own.received += bytes;
        },
      });
      log.info({ client: this.#peer, ...this.#about() }, 'a client is connected');
      this.check(); // it may have been revoked between the look at it and now
      await this.#relay.ended;
    } finally {
      upstream.close();
      traffic.leave(exportId);
    }
    log.info({ client: this.#peer, ...this.#about(), ...own }, 'a client has left');
  }

  #about(): object {
    return {
      ...(this.#exportId !== undefined && { exportId: this.#exportId }),
      ...(this.#credential !== undefined && { identity: credentialName(this.#credential) }),
    };
  }
}
