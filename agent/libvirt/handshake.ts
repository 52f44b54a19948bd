/**
 * From a connected socket to an open hypervisor, in libvirt's own order (src/remote/remote_driver.c, doRemoteOpen):
 * authentication, keepalive, open, close callback.
 */
import type { Connection } from './connection.js';
import { AuthenticationError, LibvirtError } from './errors.js';
import type { KeepAliveOptions } from './keepalive.js';
import { procedure } from './procedure.js';
import { optionalText } from './wire-types.js';
import { array, bool, int, nothing, struct, uint } from './xdr-types.js';

const connectOpen = procedure('connectOpen', 1, struct({ name: optionalText, flags: uint }), nothing);
/** At most REMOTE_AUTH_TYPE_LIST_MAX types. */
const authList = procedure('authList', 66, nothing, struct({ types: array(int, 20) }));
const authPolkit = procedure('authPolkit', 70, nothing, struct({ complete: bool }));
export const connectSupportsFeature = procedure(
  'connectSupportsFeature',
  60,
  struct({ feature: int }),
  struct({ supported: bool }),
);
const registerCloseCallback = procedure('connectRegisterCloseCallback', 360, nothing, nothing);

/** REMOTE_PROC_CONNECT_EVENT_CONNECTION_CLOSED, whose message is one int, a `virConnectCloseReason`. */
export const connectionClosedEvent = 362;

/** `remote_auth_type`. */
const AuthType = { none: 0, sasl: 1, polkit: 2 } as const;

/** `virDrvFeature` (src/libvirt_internal.h). */
const Feature = { programKeepalive: 10, remoteCloseCallback: 15 } as const;

export interface HandshakeOptions {
  /** What libvirtd is asked to open. */
  readonly uri: string;
  readonly keepAlive: KeepAliveOptions;
  /** For each step, in milliseconds. */
  readonly timeoutMs: number;
}

/**
 * @throws `AuthenticationError`; `LibvirtError` if libvirtd does not open `uri`; `ConnectionLostError`.
 */
export async function openHypervisor(
  connection: Connection,
  options: HandshakeOptions,
  signal: AbortSignal,
): Promise<void> {
  const limits = { timeoutMs: options.timeoutMs, signal };
  await authenticate(connection, limits);
  // Asking is also how libvirtd learns that we answer its pings: from then on it sends them.
  const keepAlive = await connection.call(
    connectSupportsFeature,
    { feature: Feature.programKeepalive },
    limits,
  );
  if (keepAlive.supported) connection.startKeepAlive(options.keepAlive);
  await connection.call(connectOpen, { name: options.uri, flags: 0 }, limits);
  // virtproxyd stands between us and the daemon that it relays to: it tells when that one is gone.
  const closing = await connection.call(
    connectSupportsFeature,
    { feature: Feature.remoteCloseCallback },
    limits,
  );
  if (closing.supported) await connection.call(registerCloseCallback, undefined, limits);
}

async function authenticate(
  connection: Connection,
  limits: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const { types } = await connection.call(authList, undefined, limits);
  if (types.includes(AuthType.none)) return;
  if (!types.includes(AuthType.polkit)) {
    const wanted = types.map((type) => (type === AuthType.sasl ? 'SASL' : `type ${type}`)).join(', ');
    throw new AuthenticationError(
      `libvirtd wants ${wanted || 'an unnamed'} authentication on this socket; set auth_unix_rw to "none" or "polkit"`,
    );
  }
  try {
    const { complete } = await connection.call(authPolkit, undefined, limits);
    if (complete) return;
  } catch (error) {
    if (error instanceof LibvirtError) throw polkitRefused(error);
    throw error;
  }
  throw polkitRefused();
}

function polkitRefused(cause?: LibvirtError): AuthenticationError {
  const message =
    'polkit did not allow this user to manage libvirt; run as root or grant org.libvirt.unix.manage';
  return new AuthenticationError(message, cause === undefined ? undefined : { cause });
}
