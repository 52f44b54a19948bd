import { dirname } from 'node:path';
import type {
  Drive,
  DriveHost,
  TcpDriveHost,
  TcpTransport,
  Transport,
  UnixDriveHost,
  UnixTransport,
} from '../api/generated.js';
import type { MapSource } from '../changed-blocks/map.js';
import { clientIdentity } from '../gateway/entry.js';
import type { ProcessIdentity } from '../host/identity.js';
import type { FileId } from '../host/open-files.js';
import type { ServerProcess } from '../host/process.js';
import {
  by,
  byKind,
  callersId,
  cause,
  count,
  endedCheckpoint,
  exactly,
  flag,
  lease,
  listOf,
  matching,
  nullable,
  object,
  objectWith,
  oneOf,
  optional,
  path,
  type Shape,
  text,
  time,
  uuid,
  vm,
  withRule,
} from '../host/record-shape.js';
import { endsInState } from '../host/registry.js';
import type { FuseFile } from '../nbd/fuse-file.js';
import { backupIdShape } from '../points-in-time/backup-record.js';
import {
  type AttachmentRecord,
  EXPORT_RECORD_VERSION,
  type ExportParams,
  type ExportRecord,
  type ExportServer,
  type MapRecord,
  type NewImageRecord,
  type OverlayServer,
  type PointInTimeRecord,
} from './record.js';

const format = oneOf('qcow2', 'raw');

const pointInTime = byKind<PointInTimeRecord>({
  image: exactly({ kind: oneOf('image') }),
  snapshot: exactly({ kind: oneOf('snapshot'), snapshotId: text }),
  backup: exactly({ kind: oneOf('backup'), backupId: backupIdShape, own: flag }),
});

const process = object<ServerProcess>({
  name: text,
  identity: object<ProcessIdentity>({ pid: count, startTime: count, bootId: uuid }),
});
const fileId = object<FileId>({ dev: count, ino: count });

const server = byKind<ExportServer>({
  'qemu-nbd': object<Extract<ExportServer, { kind: 'qemu-nbd' }>>({
    kind: oneOf('qemu-nbd'),
    process,
    socket: path,
    exportName: text,
  }),
  backup: object<Extract<ExportServer, { kind: 'backup' }>>({
    kind: oneOf('backup'),
    backupId: backupIdShape,
    socket: path,
    exportName: text,
  }),
});

const hosts = listOf(
  by<'transport', DriveHost>('transport', {
    unix: objectWith<UnixDriveHost, 'transport' | 'socket'>({ transport: oneOf('unix'), socket: path }),
    tcp: objectWith<TcpDriveHost, 'transport' | 'name' | 'port'>({
      ...{ transport: oneOf('tcp'), name: text, port: count },
    }),
  }),
) as Shape<never>;

/** A drive, as its export's record has it or the record of one that another host exports. */
export const driveShape = objectWith<
  Drive,
  'name' | 'hosts' | 'tls' | 'tlsHostname' | 'tlsCredentials' | 'readonly' | 'serial' | 'capacity'
>({
  name: text,
  hosts,
  tls: flag,
  tlsHostname: optional(text),
  tlsCredentials: optional(oneOf('psk')),
  readonly: flag,
  serial: matching(/^[a-z2-7]{20}$/, 'is not a serial'),
  capacity: count,
});

const data = optional(object({ file: path, granularity: count }));
const source = byKind<MapSource>({
  allocation: object<Extract<MapSource, { kind: 'allocation' }>>({ kind: oneOf('allocation'), data }),
  bitmap: object<Extract<MapSource, { kind: 'bitmap' }>>({ kind: oneOf('bitmap'), context: text, data }),
  depth: object<Extract<MapSource, { kind: 'depth' }>>({ kind: oneOf('depth'), layers: count }),
  bits: object<Extract<MapSource, { kind: 'bits' }>>({ kind: oneOf('bits'), file: path, granularity: count }),
});

const map = object<MapRecord>({
  mode: oneOf('full', 'incremental'),
  since: nullable(objectWith<object, never>({})) as Shape<MapRecord['since']>,
  reason: nullable(cause),
  origin: oneOf('bitmap', 'depth', 'allocation'),
  metaContext: nullable(text),
  granularity: count,
  source,
});

/** Where a drive is plugged in, or may be. */
export const attachmentShape = object<AttachmentRecord>({
  vm,
  target: text,
  bus: oneOf('virtio', 'scsi'),
  alias: matching(/^ua-vmdiskd-[a-z2-7]{20}$/, 'is not an alias of ours'),
  persistent: flag,
  state: oneOf('attaching', 'attached'),
});

/** As the schema has it: callers are shown it. */
const transport = by<'type', Transport>('type', {
  unix: exactly<UnixTransport>({ type: oneOf('unix'), user: optional(text) }),
  tcp: withRule(
    exactly<TcpTransport>({
      type: oneOf('tcp'),
      tls: oneOf('psk', 'x509', 'none'),
      clients: optional(listOf(clientIdentity)) as Shape<TcpTransport['clients']>,
    }),
    ({ tls, clients }) =>
      (tls === 'x509') === (clients !== undefined && clients.length > 0)
        ? undefined
        : `has tls ${tls}, and ${clients?.length ?? 'no'} clients`,
  ),
});

/** What is compared with a retry's as a whole; of its members these are used. */
const params = objectWith<ExportParams, 'exportId' | 'transport' | 'access' | 'as' | 'path'>({
  exportId: callersId,
  transport,
  access: oneOf('read-only', 'scratch', 'read-write'),
  path: optional(path),
  as: optional(oneOf('nbd', 'file')) as Shape<ExportParams['as']>,
});

/** What a record of an export must look like to be believed. */
export const exportShape = withRule(
  object<ExportRecord>({
    version: oneOf(EXPORT_RECORD_VERSION),
    kind: oneOf('export'),
    exportId: callersId,
    use: oneOf('backup', 'mount'),
    params,
    owner: text,
    created: time,
    state: oneOf('starting', 'ready', 'failed', 'closing', 'ended'),
    error: nullable(cause),
    vm: nullable(vm),
    disk: nullable(text),
    pointInTime,
    image: object<ExportRecord['image']>({ path, format }),
    layers: listOf(
      object<ExportRecord['layers'][number]>({
        path,
        format,
        file: fileId,
      }),
    ),
    blocksStart: flag,
    lease,
    serverName: text,
    server: nullable(server),
    overlay: nullable(
      object<OverlayServer>({ process, socket: path, exportName: text, file: fileId, limit: count }),
    ),
    file: nullable(object<FuseFile>({ process, file: path, size: count })),
    newImage: nullable(object<NewImageRecord>({ temporary: path, file: nullable(fileId) })),
    drive: nullable(driveShape),
    map: nullable(map),
    checkpoint: nullable(callersId),
    decided: nullable(oneOf('success', 'failed')),
    outcome: nullable(endedCheckpoint),
    attachments: listOf(attachmentShape),
    ended: nullable(time),
  }),
  (record) => endsInState(record) ?? strayingFault(record),
);

/** Names and paths follow from the ids: one that does not would have another's process, socket or file handled. */
function strayingFault({
  exportId,
  use,
  params,
  pointInTime: point,
  serverName,
  server,
  overlay,
  file: mounted,
  newImage,
  drive,
  map,
  state,
}: ExportRecord): string | undefined {
  if (params.exportId !== exportId) return 'params/exportId is another than exportId';
  if (serverName !== `vmdiskd-export-${exportId}`) return 'serverName is not made of exportId';
  if (point.kind === 'backup' && point.own && point.backupId !== `_${exportId}`)
    return 'pointInTime is a backup of another export';
  const directory = server?.kind === 'backup' ? `/backups/${server.backupId}` : `/exports/${exportId}`;
  const sockets = server?.kind === 'qemu-nbd' && params.access === 'scratch' ? 'base.sock' : 'nbd.sock';
  if (server !== null && !server.socket.endsWith(`${directory}/${sockets}`)) {
    return `server/socket is not in ${directory}`;
  }
  if (overlay !== null && !overlay.socket.endsWith(`/exports/${exportId}/nbd.sock`))
    return 'overlay/socket is another export’s';
  if (mounted !== null && !mounted.file.endsWith(`/exports/${exportId}/disk`))
    return 'file/file is another export’s';
  if (newImage !== null && !isOurName(newImage.temporary, params.path))
    return 'newImage/temporary is no name that we give';
  const file = map === null ? undefined : bitsOf(map.source);
  if (
    file !== undefined &&
    !['map', 'data'].some((name) => file.endsWith(`/exports/${exportId}/${name}.bits`))
  ) {
    return 'map/source names a file of another export';
  }
  const whole = server !== null && drive !== null && (map !== null || use === 'mount');
  if (state === 'ready' && !whole) return 'is ready without a server, a map or a drive';
  if (state === 'ready' && (params.access === 'scratch') !== (overlay !== null))
    return 'is ready with an overlay that its access does not ask for, or without one';
  if (state === 'ready' && (params.as === 'file') !== (mounted !== null))
    return 'is ready with a file that was not asked for, or without one';
  return undefined;
}

/** A new image's first name lies beside its last one. */
function isOurName(temporary: string, last: string | undefined): boolean {
  return (
    /\/\.vmdiskd-[0-9a-f]{16}\.new$/.test(temporary) &&
    last !== undefined &&
    dirname(temporary) === dirname(last)
  );
}

function bitsOf(source: MapSource): string | undefined {
  return source.kind === 'bits' ? source.file : 'data' in source ? source.data?.file : undefined;
}
