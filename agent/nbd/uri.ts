import { DEFAULT_PORT } from './constants.js';
import { encodeString } from './payload.js';

/** Where an NBD server listens. */
export type NbdAddress =
  | { readonly transport: 'unix'; readonly socket: string }
  | { readonly transport: 'tcp'; readonly host: string; readonly port: number };

/** What an NBD URI says. */
export interface NbdTarget {
  readonly address: NbdAddress;
  /** `nbds` and `nbds+unix`: "If encryption cannot be negotiated then the connection MUST fail". */
  readonly tls: boolean;
  readonly exportName: string;
  /** "the username … for use with TLS-PSK", uri.md "NBD URI authority"; of a TCP address only. */
  readonly username?: string;
  /** The name that the server's certificate must bear, where that is not the host. */
  readonly tlsHostname?: string;
}

/** Longest path of a UNIX socket in bytes, unix(7): 108 with the NUL that ends it. */
export const maxSocketPath = 107;

/**
 * An NBD URI, doc/uri.md of github.com/NetworkBlockDevice/nbd. The export's name is one segment: its slashes are
 * escaped as well, which every reader of RFC 3986 takes back, and which leaves no room for dot segments.
 */
export function formatNbdUri({ address, tls, exportName, username, tlsHostname }: NbdTarget): string {
  encodeString(exportName);
  const scheme = tls ? 'nbds' : 'nbd';
  const path = percentEncode(exportName);
  const query = tlsHostname === undefined ? [] : [`tls-hostname=${percentEncode(tlsHostname)}`];
  if (address.transport === 'unix') {
    query.unshift(`socket=${escapePath(address.socket)}`);
    return `${scheme}+unix:///${path}?${query.join('&')}`;
  }
  const host = address.host.includes(':') ? `[${address.host.replace('%', '%25')}]` : address.host;
  const suffix = query.length > 0 ? `?${query.join('&')}` : '';
  const user = username === undefined ? '' : `${percentEncode(username)}@`;
  return `${scheme}://${user}${host}:${address.port}/${path}${suffix}`;
}

/**
 * Reads an NBD URI. A TypeError names what is wrong: another scheme, no socket, a user name (nobody here connects with
 * a key), a fragment, a bad escape or a query parameter that we do not know ("SHOULD be diagnosed by the parser").
 */
export function parseNbdUri(uri: string): NbdTarget {
  const match = /^(nbds?)(\+unix)?:(?:\/\/([^/?#]*))?(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(uri);
  if (!match) throw new TypeError(`Not an NBD URI: ${uri}`);
  const [, scheme, unix, authority = '', path = '', query = ''] = match;
  const { socket, 'tls-hostname': tlsHostname } = parseQuery(query);
  const exportName = percentDecode(path);
  encodeString(exportName);
  const address = unix ? unixAddress(authority, socket) : tcpAddress(authority, socket);
  return { address, tls: scheme === 'nbds', exportName, ...(tlsHostname !== undefined && { tlsHostname }) };
}

function unixAddress(authority: string, socket: string | undefined): NbdAddress {
  if (authority) throw new TypeError('An NBD URI of a UNIX socket has no host.');
  if (!socket) throw new TypeError('An NBD URI of a UNIX socket needs the parameter socket.');
  return { transport: 'unix', socket };
}

function tcpAddress(authority: string, socket: string | undefined): NbdAddress {
  if (socket !== undefined) throw new TypeError('An NBD URI of a host has no parameter socket.');
  const match = /^(\[([0-9A-Fa-f:.]+)((?:%25[A-Za-z0-9_.-]+)?)\]|[^:@[\]]*)(?::([0-9]*))?$/.exec(authority);
  if (!match) throw new TypeError(`Not a host of an NBD URI: ${authority}`);
  const [, name = '', ipv6, zone = '', digits] = match;
  const host = ipv6 === undefined ? percentDecode(name) : `${ipv6}${zone.replace('%25', '%')}`;
  const port = digits ? Number(digits) : DEFAULT_PORT;
  if (port < 1 || port > 65535) throw new TypeError(`Not a port: ${digits}`);
  return { transport: 'tcp', host: host || 'localhost', port };
}

function parseQuery(query: string): { socket?: string; 'tls-hostname'?: string } {
  const known: { socket?: string; 'tls-hostname'?: string } = {};
  for (const pair of query.split('&').filter(Boolean)) {
    const equals = pair.indexOf('=');
    const key = percentDecode(equals === -1 ? pair : pair.slice(0, equals));
    if (key !== 'socket' && key !== 'tls-hostname')
      throw new TypeError(`Unknown parameter of an NBD URI: ${key}`);
    if (known[key] !== undefined) throw new TypeError(`A parameter of an NBD URI is there twice: ${key}`);
    known[key] = percentDecode(equals === -1 ? '' : pair.slice(equals + 1));
  }
  return known;
}

/** Everything but RFC 3986's unreserved characters; encodeURIComponent leaves a few reserved ones. */
function percentEncode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** A path in a query may keep its slashes, which people can read. */
function escapePath(path: string): string {
  return path.split('/').map(percentEncode).join('/');
}

function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new TypeError(`A bad escape in an NBD URI: ${text}`, { cause });
  }
}
