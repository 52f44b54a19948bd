/** The client's side of TLS: what QEMU would see of an export, found out without opening it. proto.md "TLS support". */
import type { Socket } from 'node:net';
import { checkServerIdentity, connect, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { type Wait, within } from '../host/process-wait.js';
import { Connection, dial, guarded } from './connection.js';
import { Option } from './constants.js';
import { NbdError } from './error.js';
import { abort, demand, type ExportFacts, greet, inform } from './handshake.js';

export interface TlsLook extends Wait {
  readonly exportName: string;
  /** The name or address that the server's certificate has to bear. */
  readonly serverName: string;
  /** Certificate, key and CAs; null: it is left when the server has agreed to TLS. */
  readonly credentials: SecureContextOptions | null;
}

/**
 * Connects, begins TLS, shows the certificate, asks about the export, and leaves. Null where there were no credentials.
 * @throws NbdError, of which `untrusted` is about the server's certificate and `unwelcome` about ours; `Timeout`
 */
export async function lookOverTls(
  address: { readonly host: string; readonly port: number },
  { exportName, serverName, credentials, ...wait }: TlsLook,
): Promise<ExportFacts | null> {
  return within('Talking to an NBD server over TLS', wait, async (signal) => {
    const plain = await dial({ transport: 'tcp', ...address }, signal);
    try {
      await guarded(plain, signal, async () => {
        await greet(plain);
        await demand(plain, Option.STARTTLS);
      });
      if (credentials === null) return null;
      const secured = new Connection(await secure(plain.release(), credentials, serverName, signal));
      return await guarded(secured, signal, () => ask(secured, exportName));
    } finally {
      plain.socket.destroy();
    }
  });
}

/** With TLS 1.3 the client has finished before the server judges its certificate: only the next answer tells. */
async function ask(connection: Connection, exportName: string): Promise<ExportFacts> {
  try {
    const facts = await inform(connection, exportName);
    abort(connection);
    return facts;
  } catch (error) {
    if (error instanceof NbdError && error.kind === 'closed') throw unwelcome(error);
    throw error;
  }
}

async function secure(
  plain: Socket,
  credentials: SecureContextOptions,
  serverName: string,
  signal: AbortSignal,
): Promise<TLSSocket> {
  // It is judged below, so that whose certificate is at fault can be told.
  const socket = connect({ ...credentials, socket: plain, rejectUnauthorized: false });
  socket.on('error', () => {}); // what comes after the first one is told by nobody
  const onAbort = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve).once('error', reject);
      socket.once('close', () => reject(new Error('it ended the connection')));
    });
  } catch (cause) {
    signal.throwIfAborted();
    throw unwelcome(cause);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  const wrong = socket.authorized
    ? checkServerIdentity(serverName, socket.getPeerCertificate())
    : socket.authorizationError;
  if (wrong === undefined || wrong === null) return socket;
  socket.destroy();
  const why = typeof wrong === 'object' ? wrong.message : String(wrong); // Node has a code where the types have an Error
  throw new NbdError('untrusted', `The certificate of the NBD server is not to be trusted: ${why}.`);
}

function unwelcome(cause: unknown): NbdError {
  const why = cause instanceof Error ? cause.message.replace(/\.$/, '') : String(cause);
  return new NbdError('unwelcome', `The NBD server ended TLS once it had seen our certificate: ${why}.`, {
    cause,
  });
}
