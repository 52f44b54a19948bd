import { type BigIntStats, lstatSync } from 'node:fs';
import { canonicalIdentity } from '../tls/identities.js';
import { entryFile, entryIds, type GatewayEntry, readEntry } from './entry.js';

interface Known {
  /** Which file it was, and in which state. */
  readonly file: string;
  readonly entry: GatewayEntry | undefined;
}

/**
 * The entries as the gateway asks for them: for each client once a second, and for all when one changes. A file that is the same is
 * not read again; whether it is there is asked of the kernel each time, so that what is withdrawn is gone at once. Holds no more
 * than there are files.
 */
export class EntryCache {
  readonly #run: string;
  readonly #known = new Map<string, Known>();

  constructor(run: string) {
    this.#run = run;
  }

  /** See `entryIds`. Forgets those that are gone. */
  ids(): string[] {
    const ids = entryIds(this.#run);
    const there = new Set(ids);
    for (const exportId of this.#known.keys()) if (!there.has(exportId)) this.#known.delete(exportId);
    return ids;
  }

  /** See `readEntry`. The identities of an allow-list are canonical, to be compared as they are. */
  find(exportId: string): GatewayEntry | undefined {
    const path = entryFile(this.#run, exportId);
    const stats = path === undefined ? undefined : statsOf(path);
    if (stats === undefined) {
      this.#known.delete(exportId);
      return undefined;
    }
    const known = this.#known.get(exportId);
    const file = stateOf(stats);
    if (known?.file === file) return known.entry;
    // Replaced since then, it is kept under the state of the one before it, and so read again the next time.
    const entry = canonical(readEntry(this.#run, exportId));
    this.#known.set(exportId, { file, entry });
    return entry;
  }
}

function statsOf(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

function canonical(entry: GatewayEntry | undefined): GatewayEntry | undefined {
  if (entry?.access.type !== 'x509') return entry;
  return { ...entry, access: { type: 'x509', clients: entry.access.clients.map(canonicalIdentity) } };
}

/** The daemon replaces an entry by another file; whatever else is done to it shows in the time of its last change. */
const stateOf = ({ dev, ino, size, ctimeNs }: BigIntStats): string => `${dev}:${ino}:${size}:${ctimeNs}`;
