import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { ListenAddress } from '../tls/addresses.js';

/** The name or address that drives of this host name. */
export function advertisedName(advertise: string, [first]: readonly ListenAddress[]): string {
  if (advertise !== '') return advertise;
  return first === undefined || isWildcard(first.host) ? hostname() : first.host;
}

/** An address by which this very host reaches the gateway; undefined where it listens on none of those. */
export function loopbackAddress(addresses: readonly ListenAddress[]): ListenAddress | undefined {
  for (const { host, port } of addresses) {
    if (isLoopback(host)) return { host, port };
    if (isWildcard(host)) return { host: isIP(host) === 6 ? '::1' : '127.0.0.1', port };
  }
  return undefined;
}

/** Whether an address is one of this very host that no network reaches; also in IPv6's form of an IPv4 address. */
export function isLoopback(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '');
  return plain === '::1' || plain === 'localhost' || (isIP(plain) === 4 && plain.startsWith('127.'));
}

function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}
