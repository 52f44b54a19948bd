import type { TcpTransport } from '../api/generated.js';
import { AgentError, InvalidParams, type Issue } from '../errors.js';
import { askGateway, type GatewayStatus } from '../gateway/status.js';
import { BadIdentity, canonicalIdentity } from '../tls/identities.js';
import { type ExportsContext, GATEWAY_MS } from './context.js';
import type { ExportParams, ExportRecord } from './record.js';

/** The transport of an export on the network; undefined for one on a UNIX socket. */
export function tcpTransport({ transport }: Pick<ExportParams, 'transport'>): TcpTransport | undefined {
  return transport?.type === 'tcp' ? transport : undefined;
}

/**
 * Looks, before anything is made, whether an export that is wanted on the network can be had there. Null: it is wanted on a
 * UNIX socket.
 * @throws AgentError `GatewayUnavailable`
 * @throws InvalidParams for an identity that no certificate could bear
 */
export async function findGateway(
  { settings }: ExportsContext,
  params: ExportParams,
  signal: AbortSignal,
): Promise<GatewayStatus | null> {
  const transport = tcpTransport(params);
  if (transport === undefined) return null;
  const { exportId } = params;
  checkClients(transport.clients ?? []);
  if (!settings.networkExports) {
    const message =
      'This host has no network exports, as [gateway] listen is empty; set it and start vmdiskd-gateway, or use a UNIX socket.';
    throw new AgentError('GatewayUnavailable', message, { exportId, retryable: false });
  }
  const wait = { timeoutMs: GATEWAY_MS, signal };
  const status = await askGateway(settings.run, wait).catch((cause: unknown) => {
    signal.throwIfAborted();
    const message =
      'vmdiskd-gateway does not answer, and it is the way to network exports; start it, then try again.';
    throw new AgentError('GatewayUnavailable', message, { exportId, cause });
  });
  const lacks = lackOf(status, transport);
  if (lacks !== null) throw new AgentError('GatewayUnavailable', lacks, { exportId, retryable: false });
  return status;
}

/** The record with the drive as it is reached through the gateway. */
export function throughGateway(record: ExportRecord, gateway: GatewayStatus | null): ExportRecord {
  const transport = tcpTransport(record.params);
  if (record.drive === null || transport === undefined || gateway === null) return record;
  const { name, port, loopback, tlsHostname } = gateway;
  const isPlain = transport.tls === 'none';
  const place = isPlain && loopback !== null ? { name: loopback.host, port: loopback.port } : { name, port };
  return {
    ...record,
    drive: {
      ...record.drive,
      name: record.exportId,
      hosts: [{ transport: 'tcp', ...place }],
      tls: !isPlain,
      ...(transport.tls === 'x509' && tlsHostname !== null && { tlsHostname }),
      ...(transport.tls === 'psk' && { tlsCredentials: 'psk' as const }),
    },
  };
}

/** What the gateway would need for that transport and is not set up with; null: nothing. */
function lackOf({ x509, loopback }: GatewayStatus, { tls }: TcpTransport): string | null {
  if (tls === 'x509' && !x509) {
    return 'vmdiskd-gateway has no certificates; set cert, key and clientCa in [tls] and start it again, or use tls "psk".';
  }
  if (tls === 'none' && loopback === null) {
    return 'vmdiskd-gateway takes no clients without TLS; set [gateway] plaintextLoopback, listen on a loopback address and start it again, or use tls "psk".';
  }
  return null;
}

function checkClients(clients: readonly string[]): void {
  const issues: Issue[] = clients.flatMap((client, index) => {
    try {
      canonicalIdentity(client);
      return [];
    } catch (error) {
      if (!(error instanceof BadIdentity)) throw error;
      return [{ path: `/transport/clients/${index}`, message: error.message }];
    }
  });
  if (issues.length === 0) return;
  const faults = issues.map(({ path, message }) => `${path} ${message}`).join('; ');
  throw new InvalidParams(`Invalid params: ${faults}.`, issues);
}
