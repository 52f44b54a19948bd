/**
 * The types that libvirt's procedures share, and the limits on them (src/remote/remote_protocol.x).
 */
import { array, int, mapped, optional, string, struct, type XdrType } from './xdr-types.js';

/** REMOTE_STRING_MAX: the longest string either side may send, domain XML included. */
export const stringMax = 4_194_304;

/** REMOTE_DOMAIN_LIST_MAX, and the equal limits on lists of checkpoints and snapshots. */
export const listMax = 16_384;

/** `remote_nonnull_string`. */
export const text: XdrType<string> = string(stringMax);

/** `remote_string`: may be absent. */
export const optionalText: XdrType<string | null> = optional(text);

const rawUuid: XdrType<Buffer> = {
  encode: (writer, value) => writer.opaqueFixed(value, 16),
  decode: (reader) => reader.opaqueFixed(16),
};

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether `value` is a UUID in the usual form, `8-4-4-4-12` hexadecimal digits. */
export function isUuid(value: string): boolean {
  return uuidPattern.test(value);
}

/** `remote_uuid`: 16 bytes, here as lower-case text with hyphens. */
export const uuid: XdrType<string> = mapped(
  rawUuid,
  (value: string) => {
    if (!isUuid(value)) throw new TypeError(`not a UUID: ${JSON.stringify(value)}`);
    return Buffer.from(value.replaceAll('-', ''), 'hex');
  },
  (bytes) => bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
);

/**
 * A domain as libvirt names it on the wire. A plain value: it can be kept, compared by `uuid` and used after a
 * reconnect. libvirtd finds the domain by `uuid`; `name` and `id` say how things were when the value was made.
 */
export interface Domain {
  readonly name: string;
  /** Lower-case, with hyphens. */
  readonly uuid: string;
  /** The running instance's number, -1 while shut off. */
  readonly id: number;
}

/** `remote_nonnull_domain`. */
export const domain: XdrType<Domain> = struct({ name: text, uuid, id: int });

/** A checkpoint, found by its name within its domain. A plain value, as `Domain` is. */
export interface Checkpoint {
  readonly name: string;
  readonly domain: Domain;
}

/** `remote_nonnull_domain_checkpoint`. */
export const checkpoint: XdrType<Checkpoint> = struct({ name: text, domain });

/** A snapshot, found by its name within its domain. A plain value, as `Domain` is. */
export interface Snapshot {
  readonly name: string;
  readonly domain: Domain;
}

/** `remote_nonnull_domain_snapshot`. */
export const snapshot: XdrType<Snapshot> = struct({ name: text, domain });

export const domainList = array(domain, listMax);
export const checkpointList = array(checkpoint, listMax);
export const snapshotList = array(snapshot, listMax);
