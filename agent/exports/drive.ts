import { createHash } from 'node:crypto';
import type { Drive, Transport } from '../api/generated.js';
import { canonical } from '../host/canonical.js';
import { formatNbdUri } from '../nbd/uri.js';

/** virtio-blk shows the guest no more of a serial than this (VIRTIO_BLK_ID_BYTES). */
const SERIAL_LENGTH = 20;
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

/**
 * The serial that a guest sees: 20 characters of `[a-z2-7]` (100 bits) from a SHA-256 over host and export, so
 * that the names under /dev/disk/by-id collide neither between exports nor between hosts.
 */
function serialOf(hostId: string, exportId: string): string {
  const digest = createHash('sha256').update(`${hostId}\0${exportId}`).digest();
  return Array.from(digest.subarray(0, SERIAL_LENGTH), (byte) => BASE32[byte % BASE32.length]).join('');
}

/** The drive dict of an export on a UNIX socket. */
export function unixDrive(of: {
  hostId: string;
  exportId: string;
  /** The NBD export name at the server. */
  exportName: string;
  socket: string;
  capacity: number;
  readonly: boolean;
}): Drive {
  return {
    type: 'network',
    device: 'disk',
    protocol: 'nbd',
    name: of.exportName,
    hosts: [{ transport: 'unix', socket: of.socket }],
    tls: false,
    format: 'raw',
    readonly: of.readonly,
    serial: serialOf(of.hostId, of.exportId),
    capacity: of.capacity,
  };
}

/** The same as an NBD URI. With a key it bears the identity, which libnbd takes from there. */
export function uriOf({ name, hosts, tls, tlsHostname }: Drive, transport?: Transport): string {
  const [host] = hosts;
  const withKey = transport?.type === 'tcp' && transport.tls === 'psk';
  return formatNbdUri({
    address:
      host.transport === 'unix'
        ? { transport: 'unix', socket: host.socket }
        : { transport: 'tcp', host: host.name, port: host.port },
    tls,
    exportName: name,
    ...(withKey && { username: name }),
    ...(tlsHostname !== undefined && { tlsHostname }),
  });
}

/** Whether a drive that a caller hands in says of every member that we gave what we gave. */
export function isSameDrive(ours: Drive, given: Drive): boolean {
  return canonical(ours) === canonical(Object.fromEntries(Object.keys(ours).map((key) => [key, given[key]])));
}
