import type { Drive, TcpDriveHost } from '../api/generated.js';
import type { ClientCertificates } from '../domains/client-certificates.js';
import { AgentError, type ErrorDetails } from '../errors.js';
import { TransmissionFlag } from '../nbd/constants.js';
import { NbdError } from '../nbd/error.js';
import type { ExportFacts } from '../nbd/handshake.js';
import { lookOverTls } from '../nbd/tls-client.js';
import { shownAddress } from './allowed-hosts.js';
import { TRIAL_MS } from './context.js';

/**
 * Goes QEMU's way to a drive, with QEMU's certificate, up to the export's description.
 * @throws AgentError `GatewayUnavailable` where nobody answers in time, `NotAuthorized` where the gateway has no such
 *   export for this host, or another than the drive says, `HotplugDiskFailed` where certificates do not fit
 */
export async function tryGateway(
  drive: Drive,
  host: TcpDriveHost,
  certificates: ClientCertificates,
  about: ErrorDetails,
  signal: AbortSignal,
): Promise<void> {
  const { ca, crl, cert, key } = certificates;
  const gateway = shownAddress(host);
  const serverName = drive.tlsHostname ?? host.name;
  let facts: ExportFacts | null;
  try {
    const credentials = key === null ? null : { ca, cert, key, ...(crl !== undefined && { crl }) };
    const look = { exportName: drive.name, serverName, credentials, timeoutMs: TRIAL_MS, signal };
    facts = await lookOverTls({ host: host.name, port: host.port }, look);
  } catch (cause) {
    signal.throwIfAborted();
    throw faultOf(cause, { gateway, serverName, exportId: drive.name, names: certificates.names, about });
  }
  if (facts !== null) compare(drive, facts, gateway, about);
}

interface Tried {
  gateway: string;
  serverName: string;
  exportId: string;
  /** Of this host's certificate. */
  names: string;
  about: ErrorDetails;
}

function faultOf(cause: unknown, { gateway, serverName, exportId, names, about }: Tried): unknown {
  const details = { ...about, cause };
  const isLate = cause instanceof AgentError && cause.name === 'Timeout';
  if (!isLate && !(cause instanceof NbdError)) return cause;
  const said = cause.message.replace(/\.$/, '');
  if (cause instanceof NbdError && cause.kind === 'untrusted') {
    return new AgentError(
      'HotplugDiskFailed',
      `${said}, as "${serverName}" at ${gateway}; QEMU would refuse it too: see that ca-cert.pem here is its CA, and that the drive is as it came.`,
      details,
    );
  }
  if (cause instanceof NbdError && cause.kind === 'unwelcome') {
    return new AgentError(
      'HotplugDiskFailed',
      `The gateway ${gateway} does not accept this host's certificate (${names}); see that its [tls] clientCa is the CA of it, and the log there for the reason.`,
      details,
    );
  }
  if (cause instanceof NbdError && cause.code === 'NBD_REP_ERR_UNKNOWN') {
    return new AgentError(
      'NotAuthorized',
      `The gateway ${gateway} has no export "${exportId}" for the certificate of this host (${names}); name it in clients of transport when it is prepared, or see whether it was torn down.`,
      details,
    );
  }
  const why = isLate ? `nothing came of it in ${TRIAL_MS / 1000} s` : said;
  return new AgentError(
    'GatewayUnavailable',
    `The gateway ${gateway} of the drive "${exportId}" cannot be reached from this host (${why}); see that vmdiskd-gateway runs there and nothing is in the way, then try again.`,
    details,
  );
}

/** @throws AgentError `NotAuthorized` */
function compare(drive: Drive, { size, flags }: ExportFacts, gateway: string, about: ErrorDetails): void {
  const isReadOnly = (flags & TransmissionFlag.READ_ONLY) !== 0;
  const differs =
    size !== drive.capacity
      ? `has ${size} bytes, and the drive ${drive.capacity}`
      : isReadOnly && !drive.readonly
        ? 'is read-only, and the drive is not'
        : undefined;
  if (differs === undefined) return;
  throw new AgentError(
    'NotAuthorized',
    `The drive differs from what ${gateway} serves, as the export "${drive.name}" there ${differs}; pass it on as it came.`,
    about,
  );
}
