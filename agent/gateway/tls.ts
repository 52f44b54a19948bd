import type { Socket } from 'node:net';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import { serverSettings } from '../tls/certificates.js';
import { identitiesOf } from '../tls/identities.js';
import type { Credential } from './credential.js';

/** For clients with a key and TLS 1.2. */
const PSK_CIPHERS = ['ECDHE-PSK-CHACHA20-POLY1305'];

/** Why a client is not let in, as one sentence of the log. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
}

/** A connection with TLS on it, and who is at its other end. */
export interface Secured {
  readonly socket: TLSSocket;
  readonly credential: Credential;
}

interface Handshake {
  /** The identity that the client has named last, and whether there is a key for it. */
  psk?: { readonly identity: string; readonly known: boolean };
  resolve(secured: Secured): void;
  reject(reason: Error): void;
}

/** The server's side of TLS, over connections that others accept. */
export class TlsSide {
  readonly #server: Server;
  /** By both ends' addresses, which TLS's own socket has too. */
  readonly #handshakes = new Map<string, Handshake>();
  readonly #keyOf: (identity: string) => Buffer | undefined;

  /** @param keyOf the pre-shared key of an identity; asked anew in each handshake */
  constructor(certificates: SecureContextOptions, keyOf: (identity: string) => Buffer | undefined) {
    this.#keyOf = keyOf;
    this.#server = createServer({
      ...settings(certificates),
      requestCert: certificates.ca !== undefined,
      // A handshake that OpenSSL ends says only that it has ended; `#judge` says why.
      rejectUnauthorized: false,
      pskCallback: (socket, identity) => this.#offerKey(socket, identity),
    });
    this.#server.on('secureConnection', (socket: TLSSocket) => {
      const handshake = this.#handshakes.get(keyOfSocket(socket));
      if (handshake === undefined) return socket.destroy();
      try {
        handshake.resolve({ socket, credential: judge(socket, handshake.psk) });
      } catch (reason) {
        socket.destroy();
        handshake.reject(reason as Error);
      }
    });
    this.#server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      const handshake = this.#handshakes.get(keyOfSocket(socket));
      handshake?.reject(new Refusal(failedHandshake(error, handshake.psk), { cause: error }));
    });
  }

  /** Takes other certificates for the connections that come from now on. */
  reload(certificates: SecureContextOptions): void {
    this.#server.setSecureContext(settings(certificates));
  }

  /** Does the handshake. @throws Refusal where the client shows nothing that counts; the socket is closed then */
  async secure(plain: Socket): Promise<Secured> {
    const key = keyOfSocket(plain);
    try {
      return await new Promise<Secured>((resolve, reject) => {
        plain.once('close', () => reject(new Refusal('it left in the middle of the TLS handshake')));
        this.#handshakes.set(key, { resolve, reject });
        // Documented for connections that were accepted elsewhere: tls.Server, event 'connection'.
        this.#server.emit('connection', plain);
      });
    } catch (error) {
      plain.destroy();
      throw error;
    } finally {
      this.#handshakes.delete(key);
    }
  }

  #offerKey(socket: TLSSocket, identity: string): Buffer | null {
    const key = this.#keyOf(identity);
    const handshake = this.#handshakes.get(keyOfSocket(socket));
    if (handshake !== undefined) handshake.psk = { identity, known: key !== undefined };
    return key ?? null;
  }
}

/** Without a name for its sessions OpenSSL refuses pre-shared keys, as they look like sessions, once certificates are asked for. */
function settings(certificates: SecureContextOptions): SecureContextOptions {
  return serverSettings(certificates, 'vmdiskd-gateway', PSK_CIPHERS);
}

/**
 * Who has just come in. An identity that was named counts only if its key was used: OpenSSL goes on without it where the
 * cipher does not fit the key, and the client may show a certificate instead.
 * @throws Refusal
 */
function judge(socket: TLSSocket, psk: Handshake['psk']): Credential {
  const certificate = socket.getPeerX509Certificate();
  const isTls13 = socket.getProtocol() === 'TLSv1.3';
  const withKey = isTls13 ? socket.isSessionReused() : socket.getCipher().name.includes('PSK');
  if (withKey) {
    if (psk?.known && certificate === undefined) return { kind: 'psk', identity: psk.identity };
    throw new Refusal('it takes up a TLS session again, which says nothing of who it is');
  }
  if (certificate === undefined) {
    throw new Refusal(
      `it shows no certificate${psk === undefined ? '' : `, and the identity that it names, ${quoted(psk.identity)}, has no key here`}`,
    );
  }
  // Of the bare error: the types have it as an Error, Node makes it the code.
  if (!socket.authorized) {
    const subject = certificate.subject?.replaceAll('\n', ', ');
    throw new Refusal(`its certificate (${subject}) is not accepted: ${String(socket.authorizationError)}`);
  }
  return { kind: 'x509', identities: identitiesOf(certificate) };
}

function failedHandshake(error: NodeJS.ErrnoException, psk: Handshake['psk']): string {
  const named =
    psk === undefined
      ? ''
      : ` (it names the identity ${quoted(psk.identity)}, ${psk.known ? 'and its key is not the one of that' : 'which has no key here'})`;
  return `the TLS handshake failed: ${error.code ?? error.message}${named}`;
}

const quoted = (identity: string): string => JSON.stringify(identity.slice(0, 80));

function keyOfSocket(socket: Socket): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
