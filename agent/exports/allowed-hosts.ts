import { isIPv6 } from 'node:net';
import type { TcpDriveHost } from '../api/generated.js';
import { parseHost } from '../tls/addresses.js';

/**
 * Whether drives may be reached at that address: QEMU is never sent to one that a caller made up. Names are compared whole
 * and without regard to case, never resolved: what a name leads to is the TLS certificate's to prove.
 * @param allowed `[hotplug] allowedHosts`; an entry without a port allows every port of its host
 */
export function isAllowedHost(
  allowed: readonly string[],
  { name, port }: Pick<TcpDriveHost, 'name' | 'port'>,
): boolean {
  const wanted = canonicalHost(name);
  return allowed.some((entry) => {
    const known = parseHost(entry);
    return canonicalHost(known.host) === wanted && (known.port === null || known.port === port);
  });
}

/** An address as `allowedHosts` would name it. */
export function shownAddress({ name, port }: Pick<TcpDriveHost, 'name' | 'port'>): string {
  return isIPv6(name) ? `[${name}]:${port}` : `${name}:${port}`;
}

/** One form for all spellings of an IPv6 address (RFC 5952), and of a name. */
function canonicalHost(host: string): string {
  return isIPv6(host) ? new URL(`http://[${host}]`).hostname : host.toLowerCase();
}
