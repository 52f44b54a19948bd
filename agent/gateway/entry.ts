import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { LeaseRecord } from '../host/lease.js';
import {
  by,
  callersId,
  count,
  flag,
  lease,
  listOf,
  matching,
  object,
  oneOf,
  path,
  type Shape,
  text,
  withRule,
} from '../host/record-shape.js';
import { type RecordHeader, RecordStore } from '../host/records.js';
import { readRegularFile } from '../host/regular-file.js';
import { BadIdentity, canonicalIdentity } from '../tls/identities.js';
import { gatewayFiles, makeGatewayDirectory } from './files.js';

export const ENTRY_VERSION = 1;

/** Who may use an export. */
export type Access =
  | { readonly type: 'psk'; readonly identity: string; readonly key: string }
  | { readonly type: 'x509'; readonly clients: readonly string[] }
  /** Whoever connects from this very host. */
  | { readonly type: 'loopback' };

/**
 * One network export, in a file of its own that the daemon writes and the gateway reads: all that the gateway has to know, so
 * that it serves while there is no daemon. It is the only place where a key is kept. The export is reachable while, and
 * only while, the file is there and its lease has not ended.
 */
export interface GatewayEntry extends RecordHeader {
  version: typeof ENTRY_VERSION;
  kind: 'network-export';
  /** The export's name on the network. */
  exportId: string;
  access: Access;
  /** Where it is served, and under which name there: QEMU's own server may know it by the disk's. */
  server: { socket: string; exportName: string };
  /** Whether that server has the 64-bit headers. */
  extendedHeaders: boolean;
  /** Clients at once, so that none waits without a word where the server's own places end. */
  connections: number;
  lease: LeaseRecord | null;
}

/** An identity of an allow-list that can be compared. */
export const clientIdentity: Shape<string> = (value, at) => {
  const fault = text(value, at);
  if (fault !== undefined) return fault;
  try {
    canonicalIdentity(value as string);
    return undefined;
  } catch (error) {
    if (!(error instanceof BadIdentity)) throw error;
    return `${at} ${error.message}`;
  }
};

/** What an entry must look like to be believed. */
const entryShape = withRule(
  object<GatewayEntry>({
    version: oneOf(ENTRY_VERSION),
    kind: oneOf('network-export'),
    exportId: callersId,
    access: by<'type', Access>('type', {
      psk: object<Extract<Access, { type: 'psk' }>>({
        type: oneOf('psk'),
        identity: callersId,
        key: matching(/^[0-9a-f]{64}$/, 'is not a key'),
      }),
      x509: object<{ type: 'x509'; clients: string[] }>({
        type: oneOf('x509'),
        clients: listOf(clientIdentity),
      }),
      loopback: object<Extract<Access, { type: 'loopback' }>>({ type: oneOf('loopback') }),
    }),
    server: object<GatewayEntry['server']>({ socket: path, exportName: text }),
    extendedHeaders: flag,
    connections: count,
    lease,
  }),
  ({ exportId, access }) =>
    access.type === 'psk' && access.identity !== exportId ? 'has the key of another' : undefined,
);

/** The daemon's side: writes and removes entries. */
export class EntryStore {
  readonly #run: string;
  readonly #store: RecordStore<GatewayEntry>;

  constructor(run: string) {
    this.#run = run;
    this.#store = new RecordStore(gatewayFiles(run).entries, 'network-export', ENTRY_VERSION);
  }

  /** @throws AgentError `LimitReached`, retryable, where it cannot be written */
  async put(entry: GatewayEntry): Promise<void> {
    await makeGatewayDirectory(this.#run);
    await this.#store.put(entry.exportId, entry);
  }

  /** See `RecordStore`. */
  async removeTorn(): Promise<void> {
    await this.#store.removeTorn();
  }

  /** One that is not there is no error. */
  async remove(exportId: string): Promise<void> {
    await makeGatewayDirectory(this.#run);
    await this.#store.remove(exportId);
  }
}

const SUFFIX = '.json';
/** The longest entry that is read, in bytes: 64 clients of 1 KiB, its longest member, may be escaped. */
const MAX_BYTES = 1024 * 1024;

/** The ids of all entries; none where somebody has taken their directory away. */
export function entryIds(run: string): string[] {
  try {
    return readdirSync(gatewayFiles(run).entries)
      .filter((name) => name.endsWith(SUFFIX))
      .map((name) => name.slice(0, -SUFFIX.length));
  } catch {
    return [];
  }
}

/** Where the entry of an export is. Undefined for what is no id: clients name what they like, and not all of it is safe as a file name. */
export function entryFile(run: string, exportId: string): string | undefined {
  return callersId(exportId, '') === undefined
    ? join(gatewayFiles(run).entries, `${exportId}${SUFFIX}`)
    : undefined;
}

/**
 * The entry of an export as it is now; undefined where there is none that can be believed, and then nobody is let in. At
 * once, since TLS asks for a key so, and since the file system is the kernel's memory.
 */
export function readEntry(run: string, exportId: string): GatewayEntry | undefined {
  const path = entryFile(run, exportId);
  if (path === undefined) return undefined;
  let entry: unknown;
  try {
    entry = JSON.parse(readRegularFile(path, MAX_BYTES));
  } catch {
    return undefined;
  }
  if (entryShape(entry, '') !== undefined) return undefined;
  return (entry as GatewayEntry).exportId === exportId ? (entry as GatewayEntry) : undefined;
}
