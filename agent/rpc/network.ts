/** Callers on other machines: TLS with a client certificate first, then lines, HTTPS or WebSockets. */
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { createServer, type Server, type Socket } from 'node:net';
import {
  createSecureContext,
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import type { Identity } from '../access/identity.js';
import { type InheritedSockets, listenOnDescriptor, noInheritedSockets } from '../host/inherited-sockets.js';
import type { Log } from '../log.js';
import { parseListen } from '../tls/addresses.js';
import { type CertificateFiles, readCertificates, serverSettings } from '../tls/certificates.js';
import { Handshakes } from '../tls/handshakes.js';
import { identitiesOf } from '../tls/identities.js';
import { RefusalLog } from '../tls/refusal-log.js';
import type { EdgeLimits } from './limits.js';
import { Places } from './places.js';
import type { Caller } from './run-verb.js';

/** FileDescriptorName= of the sockets that systemd opens for this. */
export const NETWORK_SOCKET = 'network';

/** How callers speak once TLS is done. */
export type Framing = 'tls' | 'https' | 'wss';

/** Who calls on a connection, and whether it is but a guest. */
export type Admitted = Pick<Caller, 'identity' | 'refusal'>;

/** Where the daemon listens on the network: `host:port`, or `[IPv6]:port`; HTTPS and WebSockets may share an address. */
export type NetworkAddresses = Readonly<Record<Framing, readonly string[]>>;

export interface NetworkOptions {
  readonly addresses: NetworkAddresses;
  readonly certificates: CertificateFiles;
  /** Who bears those identities of a certificate, as `identitiesOf` has them. */
  identify(identities: ReadonlySet<string>): Identity;
  /** Those of the name `network`, in the order of `addresses`: TLS, and then the others. Default: none. */
  readonly inherited?: InheritedSockets;
  readonly clients: number;
  readonly clientsPerIdentity: number;
  readonly edge: Pick<EdgeLimits, 'handshakes' | 'handshakeSeconds' | 'guests' | 'guestSeconds'>;
  readonly log: Log;
  /** A caller who has shown a certificate, on a line-framed connection. */
  onSocket(socket: TLSSocket, caller: Admitted): void;
  /**
   * The same of HTTPS and WebSockets: sets up what is heard on that server. Who was refused is `undefined` there: what came
   * in one read with the end of the handshake is heard though its socket has been destroyed.
   */
  onHttps(
    server: HttpsServer,
    framings: ReadonlySet<Framing>,
    callerOf: (socket: Socket) => Admitted | undefined,
  ): void;
}

export interface NetworkListeners {
  /** Where each listens, as `host:port`, in the order of the configuration. */
  readonly addresses: Readonly<Record<Framing, readonly string[]>>;
  /** Reads the certificates again, for connections that come from now on. @throws Error; those from before stay then */
  reload(files: CertificateFiles): void;
  /** Stops listening; connections are the caller's to end, and resolves when they have. Idempotent. */
  close(): Promise<void>;
  /** Ends at once what is connected, whoever has it. */
  destroy(): void;
}

/** Listens on all addresses. @throws Error with what is in the way; nothing listens then */
export async function listenNetwork(options: NetworkOptions): Promise<NetworkListeners> {
  const { addresses, certificates, edge, log, inherited = noInheritedSockets } = options;
  const secure = (files: CertificateFiles) => serverSettings(readCertificates(files), 'vmdiskd');
  const refusals = new RefusalLog(log);
  const handshakes = new Handshakes(edge, refusals);
  const servers: TlsServer[] = [];
  const listeners: Server[] = [];
  /** What was accepted, below TLS. */
  const sockets = new Set<Socket>();
  const where: Record<Framing, string[]> = { tls: [], https: [], wss: [] };
  const places = new Places(options);

  /** Who is at the other end. @throws Error whose message says why it is not let in */
  const enter = (socket: TLSSocket): Admitted => {
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw new Error('it shows no certificate');
    const identity = options.identify(identitiesOf(certificate));
    const refusal = places.enter(socket, identity);
    if (refusal !== undefined) refusals.write(refusal.message, { peer: socket.remoteAddress });
    return { identity, refusal };
  };

  const begin = async (text: string, framings: ReadonlySet<Framing>): Promise<void> => {
    const settings = { ...secure(certificates), requestCert: true, rejectUnauthorized: true };
    const isHttp = !framings.has('tls');
    const server = isHttp ? createHttpsServer(settings) : createTlsServer(settings);
    const callers = new WeakMap<Socket, Admitted>();
    server.on('secureConnection', (socket: TLSSocket) => {
      handshakes.end(socket);
      socket.on('error', (err) => log.debug({ err }, 'connection'));
      try {
        const caller = enter(socket);
        if (isHttp) callers.set(socket, caller);
        else options.onSocket(socket, caller);
      } catch (error) {
        refusals.write((error as Error).message, { peer: socket.remoteAddress });
        socket.destroy();
      }
    });
    server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      const reason = `the TLS handshake failed: ${error.code ?? error.message}`;
      refusals.write(reason, { peer: socket.remoteAddress });
      socket.destroy();
    });
    if (isHttp) {
      options.onHttps(server as HttpsServer, framings, (socket) => callers.get(socket));
    }
    const listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', (err) => log.debug({ err }, 'connection'));
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      handshakes.begin(socket);
      // Documented for connections that were accepted elsewhere: tls.Server, event 'connection'.
      if (!socket.destroyed) server.emit('connection', socket);
    });
    const { host, port } = parseListen(text);
    const fd = inherited.take(NETWORK_SOCKET);
    if (fd !== undefined) await listenOnDescriptor(listener, fd, port);
    else
      await new Promise<void>((resolve, reject) => {
        listener.once('error', (cause: NodeJS.ErrnoException) =>
          reject(new Error(`cannot listen on ${text}: ${cause.message}`, { cause })),
        );
        listener.listen({ host, port }, resolve);
      });
    listener.removeAllListeners('error').on('error', () => {});
    listeners.push(listener);
    servers.push(server);
    const bound = listener.address();
    const at = bound === null || typeof bound === 'string' ? port : bound.port;
    for (const framing of framings) where[framing].push(`${text.slice(0, text.lastIndexOf(':'))}:${at}`);
    log.info({ address: text, framings: [...framings] }, 'listening');
  };

  const close = async (): Promise<void> => {
    refusals.close();
    handshakes.close();
    await Promise.all(listeners.splice(0).map((one) => new Promise((resolve) => one.close(resolve))));
  };
  try {
    for (const text of addresses.tls) await begin(text, new Set(['tls']));
    for (const text of new Set([...addresses.https, ...addresses.wss])) {
      const both = (['https', 'wss'] as const).filter((framing) => addresses[framing].includes(text));
      await begin(text, new Set(both));
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    addresses: where,
    reload(files) {
      const settings = secure(files);
      createSecureContext(settings); // a file that is no certificate changes nothing, at no server
      for (const server of servers) server.setSecureContext(settings);
    },
    close,
    destroy() {
      for (const socket of sockets) socket.destroy();
    },
  };
}
