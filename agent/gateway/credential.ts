import type { BootClock } from '../host/boot-clock.js';
import { leaseLeft } from '../host/lease.js';
import { identityText } from '../tls/identities.js';
import type { GatewayEntry } from './entry.js';
import type { EntryCache } from './entry-cache.js';

/** What a client has shown of itself in this very handshake. */
export type Credential =
  | { readonly kind: 'psk'; readonly identity: string }
  | { readonly kind: 'x509'; readonly identities: ReadonlySet<string> }
  | { readonly kind: 'loopback' };

/** For the log. */
export function credentialName(credential: Credential): string {
  switch (credential.kind) {
    case 'psk':
      return `psk:${credential.identity}`;
    case 'x509':
      return [...credential.identities].map(identityText).join(' ') || 'a certificate without a name';
    case 'loopback':
      return 'loopback';
  }
}

/** Whether there is an export of that name for who shows this credential, now. @param entry as `EntryCache` has it */
export function mayUse(
  entry: GatewayEntry | undefined,
  credential: Credential,
  clock: BootClock,
): entry is GatewayEntry {
  if (entry === undefined || isOver(entry, clock)) return false;
  const { access } = entry;
  if (access.type === 'psk') return credential.kind === 'psk' && credential.identity === access.identity;
  if (access.type === 'loopback') return credential.kind === 'loopback';
  return credential.kind === 'x509' && access.clients.some((client) => credential.identities.has(client));
}

/** All exports that this credential may see. */
export function visibleTo(entries: EntryCache, credential: Credential, clock: BootClock): GatewayEntry[] {
  return entries
    .ids()
    .map((exportId) => entries.find(exportId))
    .filter((entry) => mayUse(entry, credential, clock));
}

/** The key for an identity that a client names; undefined where there is none, or none any more. */
export function keyOf(entries: EntryCache, identity: string, clock: BootClock): Buffer | undefined {
  // The identity of a key is the name of the one export that it opens.
  const entry = entries.find(identity);
  if (entry === undefined || !mayUse(entry, { kind: 'psk', identity }, clock)) return undefined;
  return entry.access.type === 'psk' ? Buffer.from(entry.access.key, 'hex') : undefined;
}

function isOver({ lease }: GatewayEntry, clock: BootClock): boolean {
  return lease !== null && leaseLeft(clock, lease) <= 0;
}
