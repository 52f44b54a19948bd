/** An export's life on the network: the gateway's entry for it, which is written, changed and removed here alone. */
import { randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Credentials, TcpTransport } from '../api/generated.js';
import type { Cause } from '../errors.js';
import { type Access, ENTRY_VERSION, EntryStore, readEntry } from '../gateway/entry.js';
import { gatewayFiles } from '../gateway/files.js';
import { askGateway } from '../gateway/status.js';
import type { ExportTraffic } from '../gateway/traffic.js';
import { NbdClient } from '../nbd/client.js';
import { type ExportsContext, GATEWAY_MS, NETWORK_CLIENTS, STEP_MS } from './context.js';
import { failed } from './failure.js';
import { tcpTransport } from './find-gateway.js';
import { type ExportRecord, frontOf } from './record.js';

const KEY_BYTES = 32;

/**
 * Makes the gateway know an export, with a key of its own where it has one. To be done before it is handed out, and its
 * record is there before. Nothing for an export on a UNIX socket.
 */
export async function publish(
  { settings }: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<void> {
  const { exportId, params, lease } = record;
  const transport = tcpTransport(params);
  const front = frontOf(record);
  if (transport === undefined || front === null) return;
  const { socket, exportName } = front;
  const address = { transport: 'unix', socket } as const;
  const client = await NbdClient.connect(address, {
    exportName,
    contexts: [],
    timeoutMs: STEP_MS,
    signal,
  });
  await client.close();
  await new EntryStore(settings.run).put({
    version: ENTRY_VERSION,
    kind: 'network-export',
    exportId,
    access: accessOf(transport, exportId),
    server: { socket, exportName },
    extendedHeaders: client.replies === 'extended',
    connections: NETWORK_CLIENTS,
    lease,
  });
}

/** Tells the gateway of the export's lease as it is now: it ends without the daemon, too. */
export async function publishLease(
  { settings }: ExportsContext,
  { exportId, params, lease }: ExportRecord,
): Promise<void> {
  if (tcpTransport(params) === undefined) return;
  const entry = readEntry(settings.run, exportId);
  if (entry !== undefined) await new EntryStore(settings.run).put({ ...entry, lease });
}

/**
 * Takes an export off the network: its key is gone with it, and its clients are cut before this returns, unless the gateway
 * hangs. Idempotent; nothing for an export on a UNIX socket.
 */
export async function withdraw(context: ExportsContext, { exportId, params }: ExportRecord): Promise<void> {
  if (tcpTransport(params) === undefined) return;
  const { settings, log } = context;
  await new EntryStore(settings.run).remove(exportId);
  // It ends the connections of those that are gone before it answers. One that does not run has none.
  await askGateway(settings.run, { timeoutMs: GATEWAY_MS }).catch((err: NodeJS.ErrnoException) => {
    if (err.code === 'ECONNREFUSED' || err.code === 'ENOENT') return;
    log.warn({ exportId, err }, 'vmdiskd-gateway did not say that it has cut the clients of an export');
  });
}

/** Why nobody is let in to a network export, although its server lives; null where they are, and for one on a UNIX socket. */
export function lossOf({ settings }: ExportsContext, { exportId, params }: ExportRecord): Cause | null {
  if (tcpTransport(params) === undefined || readEntry(settings.run, exportId) !== undefined) return null;
  return {
    name: 'ExportFailed',
    message: "the gateway's file that says who may have it is gone, or damaged.",
  };
}

/**
 * The key to an export, for the caller that made it; undefined where there is none.
 * @throws AgentError `ExportFailed` where the file that had it is gone
 */
export function credentialsOf({ settings }: ExportsContext, record: ExportRecord): Credentials | undefined {
  if (tcpTransport(record.params)?.tls !== 'psk') return undefined;
  const access = readEntry(settings.run, record.exportId)?.access;
  if (access?.type === 'psk') return access;
  throw failed({ ...record, error: { name: 'ExportFailed', message: 'the file with its key is gone.' } });
}

const NO_TRAFFIC: ExportTraffic = { clients: 0, sent: 0, received: 0 };

/** Clients and bytes of network exports, as the gateway counts them since it runs; empty where it does not answer. */
export async function networkTraffic(
  { settings }: ExportsContext,
  records: readonly ExportRecord[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ExportTraffic>> {
  const onNetwork = records.filter(({ params }) => tcpTransport(params) !== undefined);
  if (onNetwork.length === 0) return new Map();
  const status = await askGateway(settings.run, { timeoutMs: GATEWAY_MS, signal }).catch(() => undefined);
  if (status === undefined) return new Map();
  return new Map(onNetwork.map(({ exportId }) => [exportId, status.exports[exportId] ?? NO_TRAFFIC]));
}

/** Removes the gateway's files that no record names. Returns their names. */
export async function removeStrayEntries({ registry, settings }: ExportsContext): Promise<string[]> {
  const { entries } = gatewayFiles(settings.run);
  const isStray = (name: string) => {
    const record = registry.find(name.replace(/(\.[0-9a-f]{8}\.tmp|\.json)$/, ''));
    return record === undefined || record.ended !== null;
  };
  const strays = (await readdir(entries).catch(() => [])).filter(isStray);
  for (const name of strays) await rm(join(entries, name), { force: true, recursive: true });
  return strays;
}

function accessOf({ tls, clients }: TcpTransport, exportId: string): Access {
  if (tls === 'x509') return { type: 'x509', clients: clients ?? [] };
  if (tls === 'none') return { type: 'loopback' };
  return { type: 'psk', identity: exportId, key: randomBytes(KEY_BYTES).toString('hex') };
}
