/** The daemon at the other end, wherever it is: `unix:///run/…`, a path, `tls://host:port` or `https://host:port`. */
import { readFileSync } from 'node:fs';
import { connect as connectUnix } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import type { Endpoint } from './answer.js';
import { UsageError } from './failure.js';
import { HttpsEndpoint } from './https-endpoint.js';
import { LineEndpoint } from './line-endpoint.js';

/** PEM files with which the caller shows who it is, and knows the daemon. */
export interface ClientFiles {
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
}

/** @throws UsageError where the URI is none, or a file that it needs is not there */
export function endpointAt(uri: string, files: ClientFiles): Endpoint {
  if (uri.startsWith('/')) return new LineEndpoint(uri, () => connectUnix({ path: uri }));
  const url = URL.canParse(uri) ? new URL(uri) : undefined;
  if (url?.protocol === 'unix:' && url.host === '' && url.pathname.length > 1) {
    const path = decodeURIComponent(url.pathname);
    return new LineEndpoint(path, () => connectUnix({ path }));
  }
  const isTls = url?.protocol === 'tls:' && url.port !== '' && /^\/?$/.test(url.pathname);
  const isHttps = url?.protocol === 'https:' && url.pathname === '/';
  if (
    url === undefined ||
    !(isTls || isHttps) ||
    url.username !== '' ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    throw new UsageError(
      `--host ${uri} is none of unix:///path, /path, tls://name:port and https://name:port.`,
    );
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const options: ConnectionOptions = { host, port: Number(url.port || 443), ...credentials(uri, files) };
  if (isHttps) return new HttpsEndpoint(uri, options);
  return new LineEndpoint(
    uri,
    () => connectTls({ ...options, servername: servername(host) }),
    'secureConnect',
  );
}

/** No server name goes out for an address; RFC 6066, section 3. */
function servername(host: string): string {
  return /^[\d.]+$|:/.test(host) ? '' : host;
}

function credentials(uri: string, { cert, key, ca }: ClientFiles): ConnectionOptions {
  if (cert === undefined || key === undefined) {
    throw new UsageError(
      `${uri} asks for a certificate: --cert and --key (or VMDISKCTL_CERT and VMDISKCTL_KEY).`,
    );
  }
  const read = (option: string, file: string): Buffer => {
    try {
      return readFileSync(file);
    } catch (error) {
      throw new UsageError(`--${option} ${file}: ${(error as Error).message}.`, { cause: error });
    }
  };
  return {
    cert: read('cert', cert),
    key: read('key', key),
    ...(ca !== undefined && { ca: read('ca', ca) }),
    minVersion: 'TLSv1.2',
  };
}
