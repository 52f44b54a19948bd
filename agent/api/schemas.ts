// Generated from rpc-schema/ by `npm run generate`. Do not edit.

import type { ErrorName } from '../errors.js';
import type { Verbs } from './generated.js';
import type { ApiInfo, JsonSchema, VerbSchema } from './schema.js';

/** Title and version of the API. */
export const apiInfo: ApiInfo = {
  title: 'vmdiskd',
  version: '0.1.0',
  description:
    "Access to a VM's disk at a point in time, over NBD, with the map of what changed. JSON-RPC 2.0, params by name. Sizes and offsets are bytes; times are ISO 8601 UTC. Every verb that undoes something succeeds when that is already gone.",
};

/** Shared types by name. */
export const typeSchemas: Readonly<Record<string, JsonSchema>> = {
  ExportAccess: {
    title: 'ExportAccess',
    description:
      'What clients may do: `read-only`; `scratch`, where they write to a throw-away layer that vanishes with the export; `read-write`, where they write to the image itself.',
    type: 'string',
    enum: ['read-only', 'scratch', 'read-write'],
  },
  Attachment: {
    title: 'Attachment',
    description: "A VM that an export's drive is plugged into.",
    type: 'object',
    additionalProperties: false,
    required: ['vmId', 'target'],
    properties: {
      vmId: {
        description: "The domain's UUID.",
        $ref: '#/components/schemas/VmId',
      },
      target: {
        description: "The disk's target name there.",
        type: 'string',
      },
    },
  },
  BitmapRow: {
    title: 'BitmapRow',
    description: 'A dirty bitmap of a disk.',
    type: 'object',
    additionalProperties: false,
    required: ['name', 'granularity', 'usable', 'reason'],
    properties: {
      name: {
        description: 'Its name.',
        type: 'string',
      },
      granularity: {
        description: 'Its tracking unit in bytes.',
        type: 'integer',
        minimum: 1,
      },
      usable: {
        description: 'Whether a map can be had from it now.',
        type: 'boolean',
      },
      reason: {
        description: 'If not, why; else null.',
        anyOf: [
          {
            $ref: '#/components/schemas/Cause',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  ByteCount: {
    title: 'ByteCount',
    description: 'Bytes: a size, an offset or a length, up to 2^53-1.',
    type: 'integer',
    minimum: 0,
    maximum: 9007199254740991,
  },
  Cause: {
    title: 'Cause',
    description: 'Why something is not as asked: the name of an error (see Errors) and its sentence.',
    type: 'object',
    additionalProperties: false,
    required: ['name', 'message'],
    properties: {
      name: {
        description: "The error's name.",
        type: 'string',
      },
      message: {
        description: 'One sentence: the fact, and the remedy.',
        type: 'string',
      },
    },
  },
  Cbt: {
    title: 'Cbt',
    description:
      'The map of changed blocks of an export. It never lacks a change: where that cannot be promised, the verb fails.',
    type: 'object',
    additionalProperties: false,
    required: ['mode', 'origin', 'metaContext', 'granularity', 'changedBytes', 'extents', 'nextOffset'],
    properties: {
      mode: {
        description: '`full`: dirty is what holds data. `incremental`: dirty is what changed since `since`.',
        type: 'string',
        enum: ['full', 'incremental'],
      },
      since: {
        description: 'What an incremental map counts from; absent in a full map.',
        $ref: '#/components/schemas/Since',
      },
      checkpoint: {
        description:
          'The checkpoint that was created at this instant, the `since` of the next run; absent without one.',
        $ref: '#/components/schemas/Id',
      },
      reason: {
        description:
          'Why the map is full although `since` was given (`ifUntracked: "full"`); absent otherwise.',
        $ref: '#/components/schemas/Cause',
      },
      origin: {
        description:
          'Where the map comes from: `bitmap` (a qcow2 dirty bitmap or a libvirt checkpoint), `depth` (allocation depth in the backing chain), `allocation` (a full map).',
        type: 'string',
        enum: ['bitmap', 'depth', 'allocation'],
      },
      metaContext: {
        description:
          'The NBD meta context that is by itself the whole map; null where only `getChangedBlocks` has it.',
        type: ['string', 'null'],
      },
      granularity: {
        description: 'The tracking unit in bytes, a power of two.',
        type: 'integer',
        minimum: 1,
      },
      changedBytes: {
        description: "The sum of the dirty extents' lengths; null when the map did not fit inline.",
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
      extents: {
        description: 'The beginning of the map, at most `inlineExtents` long.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/Extent',
        },
      },
      nextOffset: {
        description: 'Where `getChangedBlocks` goes on; null, and only then, if the map is complete.',
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  ChangedBitmap: {
    title: 'ChangedBitmap',
    description: 'A page of the map, one bit a block.',
    type: 'object',
    additionalProperties: false,
    required: ['granularity', 'bitmap', 'nextOffset'],
    properties: {
      granularity: {
        description: 'The size of a block in bytes.',
        type: 'integer',
        minimum: 1,
      },
      bitmap: {
        description:
          'Base64; one bit a block, least significant bit first, bit 0 the block at `offset`. A bit is set if any byte of its block is dirty. The last block may be short.',
        type: 'string',
        contentEncoding: 'base64',
      },
      nextOffset: {
        description: 'The `offset` of the next page; null if this was the last.',
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  ChangedExtents: {
    title: 'ChangedExtents',
    description: 'A page of the map, as extents.',
    type: 'object',
    additionalProperties: false,
    required: ['granularity', 'extents', 'nextOffset'],
    properties: {
      granularity: {
        description: 'The tracking unit in bytes.',
        type: 'integer',
        minimum: 1,
      },
      extents: {
        description: "The page's extents.",
        type: 'array',
        items: {
          $ref: '#/components/schemas/Extent',
        },
      },
      nextOffset: {
        description: 'The `offset` of the next page; null if this was the last.',
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  CheckpointRow: {
    title: 'CheckpointRow',
    description: 'A libvirt checkpoint that covers a disk.',
    type: 'object',
    additionalProperties: false,
    required: ['checkpoint'],
    properties: {
      checkpoint: {
        description: 'Its name.',
        type: 'string',
      },
    },
  },
  ClientIdentity: {
    title: 'ClientIdentity',
    description: "One identity that a client's certificate bears: its subject, a DNS name or a URI.",
    type: 'string',
    maxLength: 1024,
    pattern: '^(subject|dns|uri):.+$',
    'x-rule': 'must be subject:, dns: or uri: and the identity, at most 1024 characters',
  },
  Credentials: {
    title: 'Credentials',
    description:
      'The key to one export, made for it alone and gone with it. It is in this answer, again in that to the identical call, and nowhere else.',
    type: 'object',
    additionalProperties: false,
    required: ['type', 'identity', 'key'],
    properties: {
      type: {
        description: 'A pre-shared key of TLS.',
        type: 'string',
        const: 'psk',
      },
      identity: {
        description: 'The identity to name in the TLS handshake.',
        $ref: '#/components/schemas/Id',
      },
      key: {
        description: 'The key: 32 bytes in hexadecimal.',
        type: 'string',
        pattern: '^[0-9a-f]{64}$',
      },
    },
  },
  DeviceAddress: {
    title: 'DeviceAddress',
    description:
      'The device\'s address as libvirt\'s XML has it, for example `{"type": "pci", "domain": "0x0000", …}` or `{"type": "drive", "controller": "0", …}`.',
    type: 'object',
    required: ['type'],
    properties: {
      type: {
        description: 'The kind of address.',
        type: 'string',
      },
    },
    additionalProperties: {
      type: 'string',
    },
  },
  DiskName: {
    title: 'DiskName',
    description:
      'A disk of a VM: its target name (`vda`), or else its alias or its serial where no other disk of the VM has the same.',
    type: 'string',
    minLength: 1,
    maxLength: 255,
    pattern: '^[^\\p{Cc}\\p{Cs}]+$',
    'x-rule': 'must be a target name, an alias or a serial',
  },
  DiskRow: {
    title: 'DiskRow',
    description: 'A disk of a VM.',
    type: 'object',
    additionalProperties: false,
    required: [
      'target',
      'alias',
      'bus',
      'serial',
      'format',
      'capacity',
      'readonly',
      'chain',
      'trackable',
      'reason',
      'checkpoints',
      'bitmaps',
    ],
    properties: {
      target: {
        description: 'The target name (`vda`).',
        type: 'string',
      },
      alias: {
        description: 'The device alias; null while the VM is shut off.',
        type: ['string', 'null'],
      },
      bus: {
        description: 'The bus: `virtio`, `scsi`, `sata`, …',
        type: 'string',
      },
      serial: {
        description: 'The serial that the guest sees; null if it has none.',
        type: ['string', 'null'],
      },
      format: {
        description: "The top image's format, as the domain names it.",
        type: 'string',
      },
      capacity: {
        description:
          "The disk's size in bytes, whole sectors of 512 as QEMU counts; null where it could not be had.",
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
      readonly: {
        description: 'Whether the guest may only read it.',
        type: 'boolean',
      },
      chain: {
        description: 'The images, topmost first.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/Image',
        },
      },
      trackable: {
        description: 'Whether changed blocks can be tracked.',
        type: 'boolean',
      },
      reason: {
        description: 'If not, why; else null.',
        anyOf: [
          {
            $ref: '#/components/schemas/Cause',
          },
          {
            type: 'null',
          },
        ],
      },
      checkpoints: {
        description: 'Its checkpoints.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/CheckpointRow',
        },
      },
      bitmaps: {
        description: 'The dirty bitmaps of its top image.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/BitmapRow',
        },
      },
    },
  },
  Drained: {
    title: 'Drained',
    description: 'What a `drain` has ended, and what not.',
    type: 'object',
    additionalProperties: false,
    required: ['exports', 'backups', 'left'],
    properties: {
      exports: {
        description: 'Ids of the exports and mounts that were ended.',
        type: 'array',
        items: {
          type: 'string',
        },
      },
      backups: {
        description: 'Ids of the backups that were ended.',
        type: 'array',
        items: {
          type: 'string',
        },
      },
      left: {
        description: 'What was not ended in time.',
        type: 'array',
        items: {
          type: 'object',
          additionalProperties: false,
          required: ['kind', 'id', 'error'],
          properties: {
            kind: {
              description: '`export` (mounts too) or `backup`.',
              type: 'string',
              enum: ['export', 'backup'],
            },
            id: {
              description: 'Its `exportId` or `backupId`.',
              type: 'string',
            },
            error: {
              description: 'What the last attempt to end it has met.',
              $ref: '#/components/schemas/Cause',
            },
          },
        },
      },
    },
  },
  Drive: {
    title: 'Drive',
    description:
      'An exported disk, as `prepareBackupDisk` returns it and `hotplugDisk` takes it: passed as it came. Members that this version does not know are ignored, unless `requires` names them.',
    type: 'object',
    additionalProperties: true,
    required: [
      'type',
      'device',
      'protocol',
      'name',
      'hosts',
      'tls',
      'format',
      'readonly',
      'serial',
      'capacity',
    ],
    properties: {
      type: {
        description: 'A drive reached over the network or a socket.',
        type: 'string',
        const: 'network',
      },
      device: {
        description: 'What the guest sees.',
        type: 'string',
        const: 'disk',
      },
      protocol: {
        description: 'The protocol of the server.',
        type: 'string',
        const: 'nbd',
      },
      name: {
        description: 'The NBD export name, which is the exportId.',
        $ref: '#/components/schemas/Id',
      },
      hosts: {
        description: 'The one address of the server.',
        type: 'array',
        minItems: 1,
        maxItems: 1,
        items: {
          $ref: '#/components/schemas/DriveHost',
        },
      },
      tls: {
        description: 'Whether the connection is encrypted.',
        type: 'boolean',
      },
      tlsHostname: {
        description: "The name that the server's certificate bears, where it is not the host's.",
        type: 'string',
        minLength: 1,
        maxLength: 255,
        pattern: '^[A-Za-z0-9_.:-]+$',
      },
      tlsCredentials: {
        description:
          'Where TLS is not opened by a certificate: `psk`, the key that came with the drive. libvirt knows certificates only, so `hotplugDisk` of any host refuses it.',
        type: 'string',
        enum: ['psk'],
      },
      format: {
        description: "The disk's content as served, whatever the image's own format.",
        type: 'string',
        const: 'raw',
      },
      readonly: {
        description: 'Whether writes are refused.',
        type: 'boolean',
      },
      serial: {
        description: 'The serial that the guest sees; it differs for every export of every host.',
        type: 'string',
        pattern: '^[a-z2-7]{20}$',
      },
      capacity: {
        description: "The disk's size in bytes, whole sectors of 512, as its server presents it.",
        $ref: '#/components/schemas/ByteCount',
      },
      requires: {
        description:
          'Names of members that must be understood. Every name that this version knows is listed here.',
        type: 'array',
        maxItems: 64,
        items: {
          'x-rule':
            "names a member that this version does not know, and the drive says that it must not be ignored: use a daemon of the exporting host's version",
          type: 'string',
          enum: [
            'type',
            'device',
            'protocol',
            'name',
            'hosts',
            'tls',
            'tlsHostname',
            'tlsCredentials',
            'format',
            'readonly',
            'serial',
            'capacity',
            'requires',
          ],
        },
      },
    },
  },
  DriveHost: {
    title: 'DriveHost',
    description: "Where the drive's NBD server listens: a UNIX socket on this host, or a host's TLS gateway.",
    type: 'object',
    required: ['transport'],
    discriminator: {
      propertyName: 'transport',
    },
    oneOf: [
      {
        title: 'UnixDriveHost',
        type: 'object',
        additionalProperties: true,
        required: ['transport', 'socket'],
        properties: {
          transport: {
            type: 'string',
            const: 'unix',
          },
          socket: {
            description: 'The path of the UNIX socket.',
            $ref: '#/components/schemas/HostPath',
          },
        },
      },
      {
        title: 'TcpDriveHost',
        type: 'object',
        additionalProperties: true,
        required: ['transport', 'name', 'port'],
        properties: {
          transport: {
            type: 'string',
            const: 'tcp',
          },
          name: {
            description: 'A host name or IP address.',
            type: 'string',
            minLength: 1,
            maxLength: 255,
            pattern: '^[A-Za-z0-9_.:-]+$',
          },
          port: {
            description: 'The TCP port.',
            type: 'integer',
            minimum: 1,
            maximum: 65535,
          },
        },
      },
    ],
  },
  EndedCheckpoint: {
    title: 'EndedCheckpoint',
    description: 'What became of the checkpoint that depended on the export.',
    type: 'object',
    additionalProperties: false,
    required: ['id', 'state'],
    properties: {
      id: {
        description: 'The checkpoint.',
        $ref: '#/components/schemas/Id',
      },
      state: {
        description: '`kept`, or `deleted`.',
        type: 'string',
        enum: ['kept', 'deleted'],
      },
    },
  },
  ExportRow: {
    title: 'ExportRow',
    description: 'What is known of one export.',
    type: 'object',
    additionalProperties: false,
    required: [
      'exportId',
      'kind',
      'owner',
      'vmId',
      'disk',
      'path',
      'format',
      'pointInTime',
      'access',
      'scratch',
      'mountedAt',
      'transport',
      'attachedTo',
      'clients',
      'bytes',
      'created',
      'lease',
      'state',
      'error',
      'blocksStart',
    ],
    properties: {
      exportId: {
        description: 'The export.',
        $ref: '#/components/schemas/Id',
      },
      kind: {
        description: 'The verb that made it: `backup`, `prepareBackupDisk`; `mount`, `mountDisk`.',
        type: 'string',
        enum: ['backup', 'mount'],
      },
      owner: {
        description: 'The identity that made it.',
        type: 'string',
      },
      vmId: {
        description: "The domain's UUID; null for an export by path.",
        anyOf: [
          {
            $ref: '#/components/schemas/VmId',
          },
          {
            type: 'null',
          },
        ],
      },
      disk: {
        description: "The disk's target name; null for an export by path.",
        type: ['string', 'null'],
      },
      path: {
        description: 'The image that is served.',
        $ref: '#/components/schemas/HostPath',
      },
      format: {
        description: "That image's format.",
        $ref: '#/components/schemas/ImageFormat',
      },
      pointInTime: {
        description: 'Which state of the disk it shows.',
        $ref: '#/components/schemas/PointInTime',
      },
      access: {
        description: 'What clients may do.',
        $ref: '#/components/schemas/ExportAccess',
      },
      transport: {
        description: 'How it is reached.',
        $ref: '#/components/schemas/Transport',
      },
      attachedTo: {
        description: 'The VMs that it is plugged into.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/Attachment',
        },
      },
      clients: {
        description: 'NBD connections now; null where that is not known.',
        type: ['integer', 'null'],
        minimum: 0,
      },
      bytes: {
        description: 'Bytes sent to readers; null where that is not known.',
        anyOf: [
          {
            $ref: '#/components/schemas/ByteCount',
          },
          {
            type: 'null',
          },
        ],
      },
      created: {
        description: 'When it was made.',
        $ref: '#/components/schemas/Time',
      },
      lease: {
        description: 'Its lease; null: until torn down.',
        anyOf: [
          {
            $ref: '#/components/schemas/Lease',
          },
          {
            type: 'null',
          },
        ],
      },
      state: {
        description: '`starting`, `ready`, `failed` (its server died: see `error`) or `closing`.',
        type: 'string',
        enum: ['starting', 'ready', 'failed', 'closing'],
      },
      error: {
        description: 'Why it failed; null in other states.',
        anyOf: [
          {
            $ref: '#/components/schemas/Cause',
          },
          {
            type: 'null',
          },
        ],
      },
      blocksStart: {
        description: 'Whether the VM that owns the image cannot start while this lives.',
        type: 'boolean',
      },
      scratch: {
        description:
          'The space that writes have taken; null without `access: "scratch"`, and while that is not known.',
        anyOf: [
          {
            $ref: '#/components/schemas/ScratchUse',
          },
          {
            type: 'null',
          },
        ],
      },
      mountedAt: {
        description: 'The plain file on this host; null without `as: "file"`.',
        anyOf: [
          {
            $ref: '#/components/schemas/HostPath',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  Extent: {
    title: 'Extent',
    description:
      'A range of the disk. Extents are in order, do not overlap, and cover the disk, or a page of it exactly up to `nextOffset`.',
    type: 'object',
    additionalProperties: false,
    required: ['start', 'length', 'dirty', 'zero'],
    properties: {
      start: {
        description: 'The offset of the first byte.',
        $ref: '#/components/schemas/ByteCount',
      },
      length: {
        description: 'The length in bytes.',
        $ref: '#/components/schemas/ByteCount',
      },
      dirty: {
        description: 'Full map: the range holds data. Incremental map: it was written, or discarded, since.',
        type: 'boolean',
      },
      zero: {
        description: 'The range reads as zeroes. A range discarded since is dirty and zero.',
        type: 'boolean',
      },
    },
  },
  HostEvent: {
    title: 'HostEvent',
    description:
      'Something that has happened on the host and is on record. Texts are cut at 1024 characters. An `owner` is the identity that made the export, backup, snapshot or job that it is about.',
    type: 'object',
    discriminator: {
      propertyName: 'kind',
    },
    required: ['kind'],
    oneOf: [
      {
        title: 'ExportReadyEvent',
        description: 'An export serves: its `prepareBackupDisk` is answered, or about to be.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'disk', 'pointInTime'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'exportReady',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          disk: {
            description: "The disk's target; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          pointInTime: {
            description: 'Which state of the disk it shows.',
            $ref: '#/components/schemas/PointInTime',
          },
        },
      },
      {
        title: 'ExportFailedEvent',
        description:
          'An export serves no more, by itself: its server died, or the backup that it reads has failed. It stays listed until it is torn down.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'disk', 'error'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'exportFailed',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          disk: {
            description: "The disk's target; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          error: {
            description: 'Why: the name of an error and its sentence.',
            $ref: '#/components/schemas/Cause',
          },
        },
      },
      {
        title: 'ExportClosedEvent',
        description: 'An export has ended and nothing is left of it.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'disk', 'outcome', 'checkpoint'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'exportClosed',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          disk: {
            description: "The disk's target; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          outcome: {
            description:
              'What it was called at its end; a lease that expires, a fault and a forced end are `failed`.',
            $ref: '#/components/schemas/Outcome',
          },
          checkpoint: {
            description: 'What became of the checkpoint that depended on it; null where none did.',
            anyOf: [
              {
                $ref: '#/components/schemas/EndedCheckpoint',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'LeaseExpiredEvent',
        description:
          'A lease ran out, and what it was for is ended, outcome `failed`; `exportClosed` or `backupEnded` follows.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'backupId', 'owner', 'vmId'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'leaseExpired',
          },
          exportId: {
            description: "The export; null where the lease was a backup's.",
            anyOf: [
              {
                $ref: '#/components/schemas/Id',
              },
              {
                type: 'null',
              },
            ],
          },
          backupId: {
            description: "The backup; null where the lease was an export's.",
            anyOf: [
              {
                $ref: '#/components/schemas/Id',
              },
              {
                type: 'null',
              },
            ],
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it is exported by `path`.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'DriveAttachedEvent',
        description: "An export's drive is plugged into a VM.",
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'target', 'serial'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'driveAttached',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM that it is plugged into, a domain's UUID.",
            type: 'string',
          },
          target: {
            description: "The disk's target in that VM.",
            type: 'string',
          },
          serial: {
            description: 'The serial that the guest sees.',
            type: 'string',
          },
        },
      },
      {
        title: 'DriveDetachedEvent',
        description: "An export's drive is out of a VM.",
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'target', 'reason'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'driveDetached',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM that it was plugged into, a domain's UUID.",
            type: 'string',
          },
          target: {
            description: "The disk's target in that VM.",
            type: 'string',
          },
          reason: {
            description:
              '`unplugged`: by `hotunplugDisk`, or a teardown with `force`, which waited for it. `left`: later than the call waited, or by another hand. `vmEnded`: with its VM.',
            type: 'string',
            enum: ['unplugged', 'left', 'vmEnded'],
          },
        },
      },
      {
        title: 'DriveDetachRefusedEvent',
        description: 'The guest has said that it does not let a drive go.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'exportId', 'owner', 'vmId', 'target'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'driveDetachRefused',
          },
          exportId: {
            description: 'The export.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM that it is plugged into, a domain's UUID.",
            type: 'string',
          },
          target: {
            description: "The disk's target in that VM.",
            type: 'string',
          },
        },
      },
      {
        title: 'BackupStartedEvent',
        description:
          '`startBackup` has fixed a point in time. (A job that `prepareBackupDisk` begins for one export is told as `exportReady`, `exportFailed` and `exportClosed` of that alone.)',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'backupId', 'owner', 'vmId', 'disks', 'quiesced', 'checkpoint'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'backupStarted',
          },
          backupId: {
            description: 'The backup.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          disks: {
            description: 'The targets of its disks.',
            type: 'array',
            items: {
              type: 'string',
            },
          },
          quiesced: {
            description: "Whether the guest's file systems were frozen at that instant.",
            type: 'boolean',
          },
          checkpoint: {
            description: 'The checkpoint that was made with it; null without one.',
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'BackupEndedEvent',
        description: 'A backup of `startBackup` has ended and nothing is left of it.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'backupId', 'owner', 'vmId', 'outcome', 'checkpoint'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'backupEnded',
          },
          backupId: {
            description: 'The backup.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          outcome: {
            description:
              'What it was called at its end; a lease that expires, a fault and a forced end are `failed`.',
            $ref: '#/components/schemas/Outcome',
          },
          checkpoint: {
            description: 'What became of the checkpoint that depended on it; null where none did.',
            anyOf: [
              {
                $ref: '#/components/schemas/EndedCheckpoint',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'BackupFailedEvent',
        description:
          'A backup of `startBackup` has come to a bad end by itself: its VM stopped, its job was ended by another hand, the scratch space ran out. It stays listed until `stopBackup`.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'backupId', 'owner', 'vmId', 'error'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'backupFailed',
          },
          backupId: {
            description: 'The backup.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          error: {
            description: 'Why: the name of an error and its sentence.',
            $ref: '#/components/schemas/Cause',
          },
        },
      },
      {
        title: 'ScratchLowEvent',
        description:
          'The scratch space of a live backup runs low: at a quarter of the reserve it is ended. Or that of an export with `access: "scratch"`: beyond it writes fail.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'backupId', 'exportId', 'owner', 'vmId', 'path', 'free', 'reserve'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'scratchLow',
          },
          backupId: {
            description: "The backup; null where the job, or the throw-away layer, is an export's own.",
            anyOf: [
              {
                $ref: '#/components/schemas/Id',
              },
              {
                type: 'null',
              },
            ],
          },
          exportId: {
            description: "The export whose own job, or throw-away layer, it is; null where it is a backup's.",
            anyOf: [
              {
                $ref: '#/components/schemas/Id',
              },
              {
                type: 'null',
              },
            ],
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null for an export by path.",
            type: ['string', 'null'],
          },
          path: {
            description: 'Where the scratch files lie.',
            $ref: '#/components/schemas/HostPath',
          },
          free: {
            description: 'Bytes that are free there, or that are left of what the layer may have.',
            $ref: '#/components/schemas/ByteCount',
          },
          reserve: {
            description:
              'Bytes that should be: `[limits] scratchReserve`, or a fifth of what the layer may have.',
            $ref: '#/components/schemas/ByteCount',
          },
        },
      },
      {
        title: 'SnapshotCreatedEvent',
        description: 'A snapshot is made.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'snapshotId', 'owner', 'vmId', 'disks', 'quiesced', 'checkpoint'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'snapshotCreated',
          },
          snapshotId: {
            description: 'The snapshot.',
            $ref: '#/components/schemas/Id',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          disks: {
            description: 'The targets of its disks.',
            type: 'array',
            items: {
              type: 'string',
            },
          },
          quiesced: {
            description: "Whether the guest's file systems were frozen at that instant.",
            type: 'boolean',
          },
          checkpoint: {
            description: 'The checkpoint that was made with it; null without one.',
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'CheckpointDeletedEvent',
        description:
          'A checkpoint of ours is deleted, with its bitmaps: by `deleteCheckpoint`, or since what it was made with was not called good.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'checkpoint', 'vmId', 'madeBy'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'checkpointDeleted',
          },
          checkpoint: {
            description: 'The checkpoint.',
            $ref: '#/components/schemas/Id',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          madeBy: {
            description: 'What it was made with.',
            type: 'object',
            additionalProperties: false,
            required: ['kind', 'id'],
            properties: {
              kind: {
                description: 'What that is.',
                type: 'string',
                enum: ['export', 'backup', 'snapshot'],
              },
              id: {
                description: 'Its id.',
                type: 'string',
              },
            },
          },
        },
      },
      {
        title: 'JobProgressEvent',
        description: 'A job has come further. At most once a second a job.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'jobId', 'owner', 'verb', 'subject', 'vmId', 'progress'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'jobProgress',
          },
          jobId: {
            description: 'The job.',
            type: 'string',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          verb: {
            description: 'The verb that began it: `deleteSnapshot` or `drain`.',
            type: 'string',
          },
          subject: {
            description: "What it works on: the snapshot's id.",
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it was not known any more.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          progress: {
            description: 'How far it is; units mean nothing by themselves.',
            type: 'object',
            additionalProperties: false,
            required: ['current', 'total'],
            properties: {
              current: {
                description: 'So much is done',
                $ref: '#/components/schemas/ByteCount',
              },
              total: {
                description: 'of so much.',
                $ref: '#/components/schemas/ByteCount',
              },
            },
          },
        },
      },
      {
        title: 'JobEndedEvent',
        description: 'A job has ended.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'jobId', 'owner', 'verb', 'subject', 'vmId', 'state', 'error'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'jobEnded',
          },
          jobId: {
            description: 'The job.',
            type: 'string',
          },
          owner: {
            description: 'The identity that made it.',
            type: 'string',
          },
          verb: {
            description: 'The verb that began it: `deleteSnapshot` or `drain`.',
            type: 'string',
          },
          subject: {
            description: "What it works on: the snapshot's id.",
            type: 'string',
          },
          vmId: {
            description: "The VM, a domain's UUID; null where it was not known any more.",
            anyOf: [
              {
                type: 'string',
              },
              {
                type: 'null',
              },
            ],
          },
          state: {
            description: 'How it ended.',
            type: 'string',
            enum: ['done', 'failed', 'cancelled'],
          },
          error: {
            description: 'Why it failed; null where it did not.',
            anyOf: [
              {
                $ref: '#/components/schemas/Cause',
              },
              {
                type: 'null',
              },
            ],
          },
        },
      },
      {
        title: 'VmStartedEvent',
        description: 'A VM of this host has started.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'vmId', 'name', 'reason'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'vmStarted',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          name: {
            description: "The domain's name.",
            type: 'string',
          },
          reason: {
            description: "How, in libvirt's words (`virDomainEventStartedDetailType`).",
            type: 'string',
            enum: ['booted', 'restored', 'fromSnapshot', 'wakeup', 'unknown'],
          },
        },
      },
      {
        title: 'VmStoppedEvent',
        description: 'A VM of this host has stopped.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'vmId', 'name', 'reason'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'vmStopped',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          name: {
            description: "The domain's name.",
            type: 'string',
          },
          reason: {
            description: "How, in libvirt's words (`virDomainEventStoppedDetailType`).",
            type: 'string',
            enum: ['shutdown', 'destroyed', 'crashed', 'saved', 'failed', 'fromSnapshot', 'unknown'],
          },
        },
      },
      {
        title: 'VmMigratedEvent',
        description: 'A VM has come to this host, or gone from it, by migration.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'vmId', 'name', 'reason'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'vmMigrated',
          },
          vmId: {
            description: "The VM, a domain's UUID.",
            type: 'string',
          },
          name: {
            description: "The domain's name.",
            type: 'string',
          },
          reason: {
            description: '`arrived` here, or `left`.',
            type: 'string',
            enum: ['arrived', 'left'],
          },
        },
      },
      {
        title: 'LibvirtLostEvent',
        description:
          'The connection to libvirt is lost. What happens to VMs until `libvirtBack` is not told.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind', 'reason'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'libvirtLost',
          },
          reason: {
            description: 'What the connection ended with.',
            type: 'string',
          },
        },
      },
      {
        title: 'LibvirtBackEvent',
        description: 'libvirt is connected again: look at the VMs anew.',
        type: 'object',
        additionalProperties: false,
        required: ['seq', 'time', 'kind'],
        properties: {
          seq: {
            description: 'Its number.',
            type: 'integer',
            minimum: 1,
            maximum: 9007199254740991,
          },
          time: {
            description: 'When.',
            $ref: '#/components/schemas/Time',
          },
          kind: {
            description: 'What has happened.',
            type: 'string',
            const: 'libvirtBack',
          },
        },
      },
    ],
  },
  HostPath: {
    title: 'HostPath',
    description: 'An absolute path on this host.',
    type: 'string',
    maxLength: 4095,
    pattern: '^/[^\\p{Cc}\\p{Cs}]*$',
    'x-rule': 'must be an absolute path without control characters',
  },
  Id: {
    title: 'Id',
    description:
      'An id that the caller picks: a UUID, or 1-64 of letters, digits, `_`, `.` and `-`, the first a letter or digit. An `exportId` is unique on the host.',
    type: 'string',
    pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$',
    'x-rule': 'must be a UUID, or 1-64 of letters, digits, "_", "." and "-", the first a letter or digit',
  },
  Image: {
    title: 'Image',
    description: "One layer of a disk's backing chain.",
    type: 'object',
    additionalProperties: false,
    required: ['path', 'format'],
    properties: {
      path: {
        description: 'The image file or block device.',
        $ref: '#/components/schemas/HostPath',
      },
      format: {
        description: 'Its format, as the domain names it.',
        type: 'string',
      },
    },
  },
  ImageFormat: {
    title: 'ImageFormat',
    description:
      "The format of an image file or block device. It is given, never probed: a raw disk's content could pretend to be anything.",
    type: 'string',
    enum: ['raw', 'qcow2'],
  },
  JobRow: {
    title: 'JobRow',
    description: 'Long work, and how far it is.',
    type: 'object',
    additionalProperties: false,
    required: ['jobId', 'kind', 'subject', 'owner', 'vmId', 'state', 'progress', 'created', 'ended'],
    properties: {
      jobId: {
        description: 'The job.',
        type: 'string',
      },
      kind: {
        description: 'The verb that began it: `deleteSnapshot` or `drain`.',
        type: 'string',
      },
      subject: {
        description: "What it works on: the snapshot's id; of a drain, the host's.",
        type: 'string',
      },
      owner: {
        description: 'The identity that began it.',
        type: 'string',
      },
      vmId: {
        description: "The domain's UUID; null where the VM was not known any more, and of a drain.",
        anyOf: [
          {
            $ref: '#/components/schemas/VmId',
          },
          {
            type: 'null',
          },
        ],
      },
      state: {
        description: '`running`, `done`, `failed` (see `error`) or `cancelled`.',
        type: 'string',
        enum: ['running', 'done', 'failed', 'cancelled'],
      },
      progress: {
        description: 'How far it is; units mean nothing by themselves.',
        type: 'object',
        additionalProperties: false,
        required: ['current', 'total'],
        properties: {
          current: {
            description: 'So much is done',
            $ref: '#/components/schemas/ByteCount',
          },
          total: {
            description: 'of so much.',
            $ref: '#/components/schemas/ByteCount',
          },
        },
      },
      result: {
        description: 'Of a drain that has ended: what it has ended; absent otherwise.',
        $ref: '#/components/schemas/Drained',
      },
      error: {
        description: 'Why it failed; absent otherwise.',
        $ref: '#/components/schemas/Cause',
      },
      created: {
        description: 'When it began.',
        $ref: '#/components/schemas/Time',
      },
      ended: {
        description: 'When it ended; null while it runs.',
        anyOf: [
          {
            $ref: '#/components/schemas/Time',
          },
          {
            type: 'null',
          },
        ],
      },
    },
  },
  Lease: {
    title: 'Lease',
    description:
      'How long something lives unless its lease is renewed: then it is torn down, its checkpoint deleted.',
    type: 'object',
    additionalProperties: false,
    required: ['seconds', 'expires'],
    properties: {
      seconds: {
        description: 'The length of the lease in seconds.',
        $ref: '#/components/schemas/LeaseSeconds',
      },
      expires: {
        description:
          "When it ends, by the host's clock as it is set now. Measured by time that passes: setting the clock neither shortens nor lengthens a lease.",
        $ref: '#/components/schemas/Time',
      },
    },
  },
  LeaseSeconds: {
    title: 'LeaseSeconds',
    description: 'The length of a lease in seconds, counted from the call on.',
    type: 'integer',
    minimum: 1,
    maximum: 31536000,
  },
  LibvirtName: {
    title: 'LibvirtName',
    description: 'The name of a checkpoint or snapshot, as libvirt has it.',
    type: 'string',
    minLength: 1,
    maxLength: 255,
    pattern: '^[^\\p{Cc}\\p{Cs}]+$',
  },
  Outcome: {
    title: 'Outcome',
    description:
      'Whether the backup was good: `success` keeps its checkpoint, `failed` deletes it. Required where a pending checkpoint waits for it.',
    type: 'string',
    enum: ['success', 'failed'],
  },
  PointInTime: {
    title: 'PointInTime',
    description:
      'Which state of the disk an export shows: `image`, the image as it is (the VM is shut off, or `path` was given); `snapshot`, what that snapshot froze; `backup`, the instant of that backup job.',
    type: 'object',
    additionalProperties: false,
    required: ['kind'],
    properties: {
      kind: {
        description: 'The kind of point in time.',
        type: 'string',
        enum: ['image', 'snapshot', 'backup'],
      },
      snapshotId: {
        description: 'The snapshot, with `kind: "snapshot"`.',
        type: 'string',
      },
      backupId: {
        description:
          'The backup, with `kind: "backup"`; absent where the job was begun for this export alone.',
        type: 'string',
      },
    },
  },
  Quiesce: {
    title: 'Quiesce',
    description:
      "Whether the guest agent freezes the guest's file systems for the instant: `no`; `try`, and go on without where that fails; `require`, and fail. They are always thawed.",
    type: 'string',
    enum: ['no', 'try', 'require'],
  },
  ScratchUse: {
    title: 'ScratchUse',
    description: 'The throw-away layer of an export with `access: "scratch"`.',
    type: 'object',
    additionalProperties: false,
    required: ['used', 'limit'],
    properties: {
      used: {
        description: 'Bytes that its file has.',
        $ref: '#/components/schemas/ByteCount',
      },
      limit: {
        description: 'Bytes that its file may have: beyond it a write fails with ENOSPC, and reads go on.',
        $ref: '#/components/schemas/ByteCount',
      },
    },
  },
  Since: {
    title: 'Since',
    description: 'The point from which on changes are wanted.',
    type: 'object',
    oneOf: [
      {
        title: 'SinceCheckpoint',
        type: 'object',
        additionalProperties: false,
        required: ['checkpoint'],
        properties: {
          checkpoint: {
            description: "A checkpoint of the VM, ours or another product's.",
            $ref: '#/components/schemas/LibvirtName',
          },
        },
      },
      {
        title: 'SinceSnapshot',
        type: 'object',
        additionalProperties: false,
        required: ['snapshot'],
        properties: {
          snapshot: {
            description:
              'An external snapshot of the VM: what was written above what it froze, by allocation depth. Works for raw images and without any bitmap.',
            $ref: '#/components/schemas/LibvirtName',
          },
        },
      },
      {
        title: 'SinceBitmap',
        type: 'object',
        additionalProperties: false,
        required: ['bitmap'],
        properties: {
          bitmap: {
            description:
              'The name of a persistent qcow2 dirty bitmap of the image (with `path`). It must be on the top image, recording and not in use, and without a gap in the backing chain.',
            type: 'string',
            minLength: 1,
            maxLength: 1023,
            pattern: '^[^\\p{Cc}\\p{Cs}]+$',
          },
        },
      },
    ],
  },
  SnapshotDisk: {
    title: 'SnapshotDisk',
    description: 'A disk of an external snapshot.',
    type: 'object',
    additionalProperties: false,
    required: ['disk', 'frozen', 'active'],
    properties: {
      disk: {
        description: 'Its target name.',
        type: 'string',
      },
      frozen: {
        description:
          'The image that holds its state at the snapshot. The merge of an older snapshot may move that to a lower file.',
        $ref: '#/components/schemas/HostPath',
      },
      active: {
        description: 'The overlay that was put above it, which the VM went on with.',
        $ref: '#/components/schemas/HostPath',
      },
    },
  },
  SnapshotRow: {
    title: 'SnapshotRow',
    description: 'A snapshot of a VM, made here or by another program.',
    type: 'object',
    additionalProperties: false,
    required: ['snapshotId', 'parent', 'created', 'kind', 'memory', 'state', 'quiesced', 'jobId', 'disks'],
    properties: {
      snapshotId: {
        description: 'Its id, which is its name in libvirt.',
        $ref: '#/components/schemas/LibvirtName',
      },
      parent: {
        description: "The snapshot before it, by libvirt's name; null for the first.",
        type: ['string', 'null'],
      },
      created: {
        description: 'When it was made.',
        $ref: '#/components/schemas/Time',
      },
      kind: {
        description:
          '`external`: an overlay above each image, which can be exported and deleted here. `internal`: kept inside the image, which cannot.',
        type: 'string',
        enum: ['external', 'internal'],
      },
      memory: {
        description: "Whether it holds the guest's memory too; then it was not made here.",
        type: 'boolean',
      },
      state: {
        description:
          '`ready`; `making`; `merging` (its deletion has begun: it can no longer be exported, and `deleteSnapshot` again finishes what was interrupted); `foreign` (made by another program).',
        type: 'string',
        enum: ['making', 'ready', 'merging', 'foreign'],
      },
      quiesced: {
        description:
          "Whether the guest's file systems were frozen for it; null where another program made it.",
        type: ['boolean', 'null'],
      },
      jobId: {
        description: 'The job that merges it, or was the last to try; null before.',
        type: ['string', 'null'],
      },
      disks: {
        description: 'The disks that it froze.',
        type: 'array',
        items: {
          $ref: '#/components/schemas/SnapshotDisk',
        },
      },
    },
  },
  Time: {
    title: 'Time',
    description: 'A time, ISO 8601 in UTC.',
    type: 'string',
    format: 'date-time',
  },
  Transport: {
    title: 'Transport',
    description:
      "How the reader reaches the export: by a UNIX socket on this host, or by this host's TLS gateway.",
    type: 'object',
    required: ['type'],
    discriminator: {
      propertyName: 'type',
    },
    oneOf: [
      {
        title: 'UnixTransport',
        description: 'A UNIX socket on this host, open to root and to `user`.',
        type: 'object',
        additionalProperties: false,
        required: ['type'],
        properties: {
          type: {
            type: 'string',
            const: 'unix',
          },
          user: {
            description: 'A local account that may connect, besides root.',
            type: 'string',
            minLength: 1,
            maxLength: 32,
            pattern: '^[A-Za-z_][A-Za-z0-9_.-]*\\$?$',
          },
        },
      },
      {
        title: 'TcpTransport',
        description: "The TLS gateway's port.",
        type: 'object',
        additionalProperties: false,
        required: ['type', 'tls'],
        properties: {
          type: {
            type: 'string',
            const: 'tcp',
          },
          tls: {
            description:
              "How a client shows that it may connect. `psk`: with a key made for this export alone, which is in the answer's `credentials`; for libnbd and QEMU's tools. `x509`: with a certificate of one of `clients`. `none`: not at all, and only from this very host, where `[gateway] plaintextLoopback` allows it.",
            type: 'string',
            enum: ['psk', 'x509', 'none'],
          },
          clients: {
            description:
              'The certificates that may connect, any of them: each by its subject (`subject:CN=appliance,O=Example`, a distinguished name of RFC 4514) or by one of its alternative names (`dns:appliance.example`, `uri:spiffe://example/appliance`). Compared whole.',
            type: 'array',
            minItems: 1,
            maxItems: 64,
            items: {
              $ref: '#/components/schemas/ClientIdentity',
            },
          },
        },
        allOf: [
          {
            'x-rule': 'clients goes with tls x509, where it is required, and with no other',
            oneOf: [
              {
                properties: {
                  tls: {
                    description: 'With certificates.',
                    const: 'x509',
                  },
                },
                required: ['clients'],
              },
              {
                properties: {
                  tls: {
                    description: 'Without.',
                    enum: ['psk', 'none'],
                  },
                },
                not: {
                  required: ['clients'],
                },
              },
            ],
          },
        ],
      },
    ],
  },
  VmId: {
    title: 'VmId',
    description: 'A libvirt domain, by UUID or name.',
    type: 'string',
    minLength: 1,
    maxLength: 255,
    pattern: '^[^\\p{Cc}\\p{Cs}]+$',
    'x-rule': "must be a libvirt domain's UUID or name",
  },
};

/** The verbs by name, those of the main flow first. */
export const verbSchemas: { readonly [N in keyof Verbs]: VerbSchema } = {
  prepareBackupDisk: {
    name: 'prepareBackupDisk',
    summary: 'Expose one disk at one point in time over NBD, with the map of its changed blocks',
    description:
      "The disk is named by `vmId` and `disk`, or by `path` and `format`. With `snapshotId` the export shows what that snapshot froze, with `backupId` the instant that `startBackup` fixed. With neither, a running VM's disk is frozen now, by a backup job of its own that ends with the export, and a shut-off VM's image is exported as it is. The same call with the same `exportId` gives the same answer; other params are `AlreadyExists`. Ended by `teardownBackupDisk`.",
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'Names the export.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: 'The VM whose disk it is. Goes with `disk`.',
          $ref: '#/components/schemas/VmId',
        },
        disk: {
          description: 'The disk: target name, alias or serial. Goes with `vmId`.',
          $ref: '#/components/schemas/DiskName',
        },
        path: {
          description: 'Instead of `vmId` and `disk`: an image file or block device under an allowed root.',
          $ref: '#/components/schemas/HostPath',
        },
        format: {
          description: 'The format of the image at `path`. Never probed.',
          $ref: '#/components/schemas/ImageFormat',
        },
        snapshotId: {
          description: 'The state that this libvirt external snapshot froze.',
          'x-rule': 'must be the name of a snapshot: 1-255 printable characters',
          $ref: '#/components/schemas/LibvirtName',
        },
        backupId: {
          description:
            "The instant that this backup fixed. `since`, `ifUntracked`, `checkpoint` and `quiesce` are then the backup's.",
          $ref: '#/components/schemas/Id',
        },
        since: {
          description:
            'The map is of blocks changed since that checkpoint, snapshot or bitmap; without it, of blocks that hold data (a full backup). `{bitmap}` goes with `path`, the others with `vmId`; `{snapshot}` needs `snapshotId` or a shut-off VM.',
          $ref: '#/components/schemas/Since',
        },
        checkpoint: {
          description:
            'Create this checkpoint at the same instant, the `since` of the next run. It is pending until the export\'s end says `outcome: "success"`.',
          $ref: '#/components/schemas/Id',
        },
        quiesce: {
          description: "Freeze the guest's file systems for a backup job of this export's own. Absent: `no`.",
          $ref: '#/components/schemas/Quiesce',
        },
        access: {
          description:
            'What clients may do. `read-write` is for an image as it is, of a VM that is off or by path, and goes without `snapshotId`, `backupId`, `since` and `checkpoint`.',
          $ref: '#/components/schemas/ExportAccess',
          default: 'read-only',
        },
        transport: {
          description: 'How the export is reached.',
          $ref: '#/components/schemas/Transport',
          default: {
            type: 'unix',
          },
        },
        leaseSeconds: {
          description:
            'The export is torn down by itself, outcome failed, when so long nobody has called `renewExport`. Absent: `limits.maxLease` where that is set, else it stays until it is torn down.',
          $ref: '#/components/schemas/LeaseSeconds',
        },
        inlineExtents: {
          description: 'How many extents of the map come back in `cbt`.',
          type: 'integer',
          minimum: 0,
          maximum: 10000,
          default: 1000,
        },
        ifUntracked: {
          description:
            'Where a trustworthy map cannot be had from `since` on: `fail` with the named error, or give the `full` map with the cause in `cbt.reason`. Absent: `fail`.',
          type: 'string',
          enum: ['fail', 'full'],
        },
      },
      allOf: [
        {
          'x-rule': 'name the disk by vmId and disk, or by path and format: one pair, whole',
          oneOf: [
            {
              required: ['vmId', 'disk'],
              not: {
                anyOf: [
                  {
                    required: ['path'],
                  },
                  {
                    required: ['format'],
                  },
                ],
              },
            },
            {
              required: ['path', 'format'],
              not: {
                anyOf: [
                  {
                    required: ['vmId'],
                  },
                  {
                    required: ['disk'],
                  },
                ],
              },
            },
          ],
        },
        {
          'x-rule': 'snapshotId, backupId, checkpoint and quiesce go with vmId and disk, not with path',
          not: {
            required: ['path'],
            anyOf: [
              {
                required: ['snapshotId'],
              },
              {
                required: ['backupId'],
              },
              {
                required: ['checkpoint'],
              },
              {
                required: ['quiesce'],
              },
            ],
          },
        },
        {
          'x-rule': 'since {bitmap} goes with path, since {checkpoint} and {snapshot} with vmId',
          not: {
            anyOf: [
              {
                required: ['path', 'since'],
                properties: {
                  since: {
                    description: 'No bitmap.',
                    type: 'object',
                    not: {
                      required: ['bitmap'],
                    },
                  },
                },
              },
              {
                required: ['vmId', 'since'],
                properties: {
                  since: {
                    description: 'A bitmap.',
                    type: 'object',
                    required: ['bitmap'],
                  },
                },
              },
            ],
          },
        },
        {
          'x-rule':
            "with backupId, since, ifUntracked, checkpoint, quiesce and snapshotId are the backup's and not given here",
          not: {
            required: ['backupId'],
            anyOf: [
              {
                required: ['since'],
              },
              {
                required: ['ifUntracked'],
              },
              {
                required: ['checkpoint'],
              },
              {
                required: ['quiesce'],
              },
              {
                required: ['snapshotId'],
              },
            ],
          },
        },
        {
          'x-rule': 'checkpoint and quiesce do not go with snapshotId: that instant has passed',
          not: {
            required: ['snapshotId'],
            anyOf: [
              {
                required: ['checkpoint'],
              },
              {
                required: ['quiesce'],
              },
            ],
          },
        },
        {
          'x-rule':
            'access read-write goes without snapshotId, backupId, since, checkpoint and quiesce: it is of the image as it is now',
          not: {
            required: ['access'],
            properties: {
              access: {
                description: 'Writing.',
                const: 'read-write',
              },
            },
            anyOf: [
              {
                required: ['snapshotId'],
              },
              {
                required: ['backupId'],
              },
              {
                required: ['since'],
              },
              {
                required: ['checkpoint'],
              },
              {
                required: ['quiesce'],
              },
            ],
          },
        },
      ],
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'drive', 'uri', 'cbt', 'blocksStart', 'connections', 'lease'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        drive: {
          description: 'The drive, for `hotplugDisk`.',
          $ref: '#/components/schemas/Drive',
        },
        uri: {
          description: 'The same as an NBD URI, for libnbd and qemu-img.',
          type: 'string',
        },
        credentials: {
          description:
            'The key to the export, where the transport is `{"type": "tcp", "tls": "psk"}`. Absent otherwise.',
          $ref: '#/components/schemas/Credentials',
        },
        cbt: {
          description: 'The map of changed blocks.',
          $ref: '#/components/schemas/Cbt',
        },
        blocksStart: {
          description: 'Whether the VM that owns the image cannot start while the export lives.',
          type: 'boolean',
        },
        connections: {
          description: 'How many clients can be connected at once.',
          type: 'integer',
          minimum: 1,
        },
        lease: {
          description: "The export's lease; null: until torn down.",
          anyOf: [
            {
              $ref: '#/components/schemas/Lease',
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [
      'NoSuchVM',
      'VMNotRunning',
      'NoSuchDisk',
      'UnsupportedDisk',
      'NoSuchImage',
      'WrongFormat',
      'PathNotAllowed',
      'UnsafeImage',
      'NoSuchSnapshot',
      'SnapshotInUse',
      'DiskInUse',
      'NotTracked',
      'BitmapDoesNotExist',
      'InvalidBitmapChain',
      'InconsistentCheckpoint',
      'AlreadyExists',
      'ExportFailed',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'ToolMissing',
      'NotAuthorized',
      'NoSuchBackup',
      'BackupBusy',
      'BackupError',
      'ScratchFull',
      'FreezeGuestFSFailed',
      'NoSuchCheckpoint',
      'CheckpointPending',
      'CheckpointError',
      'LimitReached',
      'GatewayUnavailable',
    ],
  },
  teardownBackupDisk: {
    name: 'teardownBackupDisk',
    summary: 'End an export and remove everything that it made',
    description:
      'Removes the server, its socket and its record. An export that is gone, or was never known, is success. `ExportInUse` while the drive is attached to a VM, unless `force`.',
    changes: true,
    undoes: true,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        outcome: {
          description: 'How the backup went. Required where a pending checkpoint depends on this call.',
          type: 'string',
          enum: ['success', 'failed'],
        },
        force: {
          description: 'Detach the drive first where it is attached to a VM.',
          type: 'boolean',
          default: false,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'checkpoint'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        checkpoint: {
          description: 'The checkpoint that depended on the export, if any.',
          anyOf: [
            {
              $ref: '#/components/schemas/EndedCheckpoint',
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [
      'ExportInUse',
      'HotunplugTimeout',
      'HotunplugRefused',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'NotAuthorized',
      'BackupBusy',
      'BackupError',
      'CheckpointError',
    ],
  },
  hotplugDisk: {
    name: 'hotplugDisk',
    summary: 'Plug an exported drive into a running VM',
    description:
      'Takes the drive as `prepareBackupDisk` returned it, here or, for an x509 drive, on another host. A drive on a UNIX socket must equal the record of a ready export of this daemon; one on the network needs `tls: true`, and an address in `[hotplug] allowedHosts`; else `NotAuthorized`: QEMU is never sent to an address that a caller made up. Before QEMU is sent to a gateway, its certificates are looked at and the gateway is asked for the export with them. The same drive into the same VM again is the same answer. `guestPath` is the stable name inside a Linux guest.',
    changes: true,
    undoes: false,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'drive'],
      properties: {
        vmId: {
          description: 'The VM to plug it into.',
          $ref: '#/components/schemas/VmId',
        },
        drive: {
          description: 'The drive, passed as it came.',
          $ref: '#/components/schemas/Drive',
        },
        bus: {
          description:
            'The bus. Absent: `scsi` where the domain has a virtio-scsi controller, else `virtio`.',
          type: 'string',
          enum: ['virtio', 'scsi'],
        },
        target: {
          description: 'The target name. Absent: the first free one of the bus.',
          type: 'string',
          pattern: '^(vd|sd)[a-z]{1,3}$',
        },
        persistent: {
          description: "Also put it into the VM's stored configuration.",
          type: 'boolean',
          default: false,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'target', 'bus', 'alias', 'serial', 'address', 'guestPath'],
      properties: {
        vmId: {
          description: "The domain's UUID.",
          $ref: '#/components/schemas/VmId',
        },
        target: {
          description: "The disk's target name.",
          type: 'string',
        },
        bus: {
          description: 'The bus.',
          type: 'string',
          enum: ['virtio', 'scsi'],
        },
        alias: {
          description: 'The device alias.',
          type: 'string',
        },
        serial: {
          description: 'The serial that the guest sees.',
          type: 'string',
        },
        address: {
          description: "The device's address.",
          $ref: '#/components/schemas/DeviceAddress',
        },
        guestPath: {
          description: '`/dev/disk/by-id/…` inside a Linux guest.',
          type: 'string',
        },
      },
    },
    errors: [
      'NoSuchVM',
      'VMNotRunning',
      'NotAuthorized',
      'NoSuchExport',
      'ExportFailed',
      'DiskInUse',
      'AlreadyExists',
      'NoFreeSlot',
      'HotplugDiskFailed',
      'GatewayUnavailable',
      'MigrationInProgress',
      'LibvirtUnavailable',
    ],
  },
  hotunplugDisk: {
    name: 'hotunplugDisk',
    summary: 'Take a drive that hotplugDisk plugged in out of the VM',
    description:
      "Returns when QEMU has removed it. Already gone: `target` is null. A virtio disk leaves with the guest's co-operation: `HotunplugTimeout` when the guest has not let go in time; a removal that completes later is still cleaned up.",
    changes: true,
    undoes: true,
    deadlineSeconds: 660,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        drive: {
          description: 'The drive that was plugged in. Or `target`.',
          $ref: '#/components/schemas/Drive',
        },
        target: {
          description: 'The target name that `hotplugDisk` returned. Or `drive`.',
          type: 'string',
          pattern: '^(vd|sd)[a-z]{1,3}$',
        },
        timeoutSeconds: {
          description: 'How long to wait for the guest, in seconds.',
          type: 'integer',
          minimum: 1,
          maximum: 600,
          default: 30,
        },
      },
      allOf: [
        {
          'x-rule': 'name the disk by drive or by target: one of them',
          oneOf: [
            {
              required: ['drive'],
            },
            {
              required: ['target'],
            },
          ],
        },
      ],
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'target'],
      properties: {
        vmId: {
          description: 'The VM, by UUID where it is known.',
          $ref: '#/components/schemas/VmId',
        },
        target: {
          description: 'The target name that is free now; null if the disk was already gone.',
          type: ['string', 'null'],
        },
      },
    },
    errors: [
      'NotOurs',
      'HotunplugTimeout',
      'HotunplugRefused',
      'HotunplugDiskFailed',
      'NotAuthorized',
      'MigrationInProgress',
      'LibvirtUnavailable',
    ],
  },
  getChangedBlocks: {
    name: 'getChangedBlocks',
    summary: "Read the map of an export's changed blocks, a page at a time",
    description:
      'The same map while the export lives, on a disk of any size in bounded memory (a range that reads as zeroes may later be called data, as the file system of the host sees fit: never the other way round). With `encoding: "bitmap"` `offset`, and `length` unless it reaches the end, are multiples of the granularity, and a page is at most 1 MiB before base64.',
    changes: false,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        offset: {
          description: 'The first byte of the page.',
          $ref: '#/components/schemas/ByteCount',
          default: 0,
        },
        length: {
          description: 'How many bytes of the disk to map. Absent: to its end.',
          type: 'integer',
          minimum: 1,
          maximum: 9007199254740991,
        },
        maxExtents: {
          description: 'How many extents a page has at most.',
          type: 'integer',
          minimum: 1,
          maximum: 10000,
          default: 10000,
        },
        encoding: {
          description: '`extents`: a list of ranges. `bitmap`: one bit a block.',
          type: 'string',
          enum: ['extents', 'bitmap'],
          default: 'extents',
        },
      },
    },
    result: {
      anyOf: [
        {
          $ref: '#/components/schemas/ChangedExtents',
        },
        {
          $ref: '#/components/schemas/ChangedBitmap',
        },
      ],
    },
    errors: [
      'NoSuchExport',
      'ExportFailed',
      'InconsistentCheckpoint',
      'InvalidBitmapChain',
      'BitmapDoesNotExist',
      'NotTracked',
      'NotAuthorized',
    ],
  },
  cancelJob: {
    name: 'cancelJob',
    summary: 'End a job where it is',
    description:
      'Returns when it has ended; a finished job is success, and stays what it was. A cancelled merge leaves its snapshot `merging`: `deleteSnapshot` again finishes it; a cancelled drain begins no further end. `BackupBusy` where the work cannot be cut short: the merge of a stopped VM.',
    changes: true,
    undoes: false,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['jobId'],
      properties: {
        jobId: {
          description: 'The job.',
          $ref: '#/components/schemas/Id',
        },
      },
    },
    result: {
      $ref: '#/components/schemas/JobRow',
    },
    errors: ['NoSuchJob', 'BackupBusy', 'LibvirtUnavailable', 'NotAuthorized'],
  },
  confirmCheckpoint: {
    name: 'confirmCheckpoint',
    summary: 'Decide over a checkpoint that createSnapshot made',
    description:
      '`success` keeps it, `failed` deletes it. One that a backup or an export made is decided at its own end; none is deleted while an export reads a file with its bitmap (`ExportInUse`).',
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'checkpoint', 'outcome'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        checkpoint: {
          description: 'The checkpoint.',
          $ref: '#/components/schemas/LibvirtName',
        },
        outcome: {
          description: 'Whether the backup was good.',
          $ref: '#/components/schemas/Outcome',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'checkpoint'],
      properties: {
        vmId: {
          description: 'The VM, by UUID where it is known.',
          $ref: '#/components/schemas/VmId',
        },
        checkpoint: {
          description: 'What became of it.',
          $ref: '#/components/schemas/EndedCheckpoint',
        },
      },
    },
    errors: [
      'NoSuchVM',
      'NoSuchCheckpoint',
      'ExportInUse',
      'BackupBusy',
      'MigrationInProgress',
      'CheckpointError',
      'NotAuthorized',
    ],
  },
  createSnapshot: {
    name: 'createSnapshot',
    summary: "Freeze a VM's disks at one instant, each below an overlay of its own",
    description:
      'External, disk-only and atomic over the disks. The overlays lie beside the images. What was frozen can be exported with `prepareBackupDisk` and `snapshotId`, by several at once, while the VM runs on. The same call with the same `snapshotId` gives the same answer. libvirt 9.0 makes no snapshot of a VM that is off and has checkpoints: `SnapshotFailed`. So is a VM that is off and was saved with its memory (`virsh managedsave`): it goes on with the files of then. Ended by `deleteSnapshot`.',
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['snapshotId', 'vmId'],
      properties: {
        snapshotId: {
          description: 'Names the snapshot, here and in libvirt; unique within the VM.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: 'The VM, running or shut off.',
          $ref: '#/components/schemas/VmId',
        },
        disks: {
          description:
            'Target names, aliases or serials, each disk once. Absent: all that can take part (CD-ROMs, read-only, shareable, transient and network disks cannot).',
          type: 'array',
          minItems: 1,
          maxItems: 256,
          items: {
            $ref: '#/components/schemas/DiskName',
          },
        },
        checkpoint: {
          description:
            'Create this checkpoint just before the snapshot, on the disks that can have one. It is pending until `confirmCheckpoint`.',
          $ref: '#/components/schemas/Id',
        },
        quiesce: {
          description:
            "Freeze the guest's file systems for the instant. A VM that is off has nothing to freeze.",
          $ref: '#/components/schemas/Quiesce',
          default: 'try',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['snapshotId', 'vmId', 'created', 'quiesced', 'disks'],
      properties: {
        snapshotId: {
          description: 'The snapshot.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: "The domain's UUID.",
          $ref: '#/components/schemas/VmId',
        },
        created: {
          description: 'When.',
          $ref: '#/components/schemas/Time',
        },
        quiesced: {
          description:
            "Whether the guest's file systems were frozen for the instant. False for a VM that was off.",
          type: 'boolean',
        },
        checkpoint: {
          description:
            'The checkpoint that was created; absent where none was asked for or no disk can have one.',
          type: 'string',
        },
        disks: {
          description: 'The disks.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/SnapshotDisk',
          },
        },
      },
    },
    errors: [
      'NoSuchVM',
      'VMNotRunning',
      'NoSuchDisk',
      'UnsupportedDisk',
      'SnapshotFailed',
      'FreezeGuestFSFailed',
      'BackupBusy',
      'CheckpointError',
      'AlreadyExists',
      'PathNotAllowed',
      'UnsafeImage',
      'WrongFormat',
      'NoSuchImage',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'NotAuthorized',
      'DiskInUse',
    ],
  },
  deleteCheckpoint: {
    name: 'deleteCheckpoint',
    summary: 'Delete a checkpoint and its bitmaps',
    description:
      "Where the bitmaps are gone or broken, libvirt's knowledge of it alone. One that another product made is `NotOurs`; one that a live backup counts from or that waits for one, or of which a live export reads the bitmap's file, is `ExportInUse`.",
    changes: true,
    undoes: true,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'checkpoint'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        checkpoint: {
          description: 'The checkpoint.',
          $ref: '#/components/schemas/LibvirtName',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'checkpoint'],
      properties: {
        vmId: {
          description: 'The VM, by UUID where it is known.',
          $ref: '#/components/schemas/VmId',
        },
        checkpoint: {
          description: 'The checkpoint.',
          type: 'string',
        },
      },
    },
    errors: [
      'NotOurs',
      'ExportInUse',
      'BackupBusy',
      'MigrationInProgress',
      'CheckpointError',
      'DiskInUse',
      'NoSuchImage',
      'PathNotAllowed',
      'UnsafeImage',
      'UnsupportedDisk',
      'WrongFormat',
      'NotAuthorized',
    ],
  },
  deleteSnapshot: {
    name: 'deleteSnapshot',
    summary: "Merge a snapshot's overlays into what it froze, as a job",
    description:
      "A running VM's chain is merged live, one disk after another; a stopped VM's by libvirt, which shows no progress and cannot be cancelled. What was written since is kept: only the frozen state is gone. A repeated call returns the running job; a snapshot that is gone, or was never known, a `done` one. Once it has begun the snapshot can no longer be exported, and after a cancel or an interruption (VM stopped, QEMU or libvirt died) `deleteSnapshot` again finishes it, with nothing lost. `SnapshotInUse` while an export reads one of the images, or another disk (a linked clone) has one that would change in its backing chain. `MergeFailed` where an overlay is in no chain, or the VM is gone, and may hold what was written since: it stays. So is a VM that is off and was saved with its memory (`virsh managedsave`): it goes on with the files of then. A libvirt external snapshot of another program is deleted too where it is named.",
    changes: true,
    undoes: true,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'snapshotId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        snapshotId: {
          description: 'The snapshot.',
          $ref: '#/components/schemas/LibvirtName',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['jobId'],
      properties: {
        jobId: {
          description: 'The job; see `getJob`.',
          type: 'string',
        },
      },
    },
    errors: [
      'VMNotRunning',
      'SnapshotInUse',
      'BackupBusy',
      'MergeFailed',
      'NotOurs',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'NotAuthorized',
    ],
  },
  drain: {
    name: 'drain',
    summary: 'End all exports and backups of the host, as a job',
    description:
      'For maintenance, or to remove the package. Exports and mounts of whatever owner are ended as `teardownBackupDisk` with `force` and the outcome `failed` does: drives are unplugged first, and what a client has written is waited for, never cut off. A backup is ended after its exports. What cannot be ended yet (a guest that does not let go, a libvirt that is away) is tried again until `timeoutSeconds` have passed; the job then is `failed`, and its `result` says what was ended and what was not, and why. While it runs, new exports and backups are `LimitReached`. A repeated call joins the drain that runs, whose time limit stays. `cancelJob` ends it: what was ended stays so, and what is half ended is finished. It does not outlive the daemon: a restart makes the job `failed`, to be drained again. Merges go on, and drives of other hosts stay in their VMs.',
    changes: true,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: [],
      properties: {
        timeoutSeconds: {
          description: 'How long the job goes on trying.',
          type: 'integer',
          minimum: 1,
          maximum: 86400,
          default: 600,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['jobId'],
      properties: {
        jobId: {
          description: 'The job; see `getJob`.',
          type: 'string',
        },
      },
    },
    errors: ['NotAuthorized'],
  },
  getExport: {
    name: 'getExport',
    summary: 'Tell what is known of one export',
    description: 'The row that `listExports` has for it.',
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
      },
    },
    result: {
      $ref: '#/components/schemas/ExportRow',
    },
    errors: ['NoSuchExport', 'NotAuthorized'],
  },
  getHostInfo: {
    name: 'getHostInfo',
    summary: 'Tell what this daemon is, what it works with, and its limits',
    description: 'Answers at every limit, and while libvirt is away.',
    changes: false,
    undoes: false,
    deadlineSeconds: 10,
    alwaysAdmitted: true,
    params: {
      type: 'object',
      additionalProperties: false,
      properties: {},
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['apiVersion', 'hostId', 'state', 'versions', 'capabilities', 'limits'],
      properties: {
        apiVersion: {
          description: 'The version of this API.',
          type: 'string',
        },
        hostId: {
          description: "The host's id, stable over reboots.",
          type: 'string',
        },
        state: {
          description:
            '`recovering` from its start until the host agrees with the records: other verbs answer RecoveryInProgress then. Else `ready`.',
          type: 'string',
          enum: ['recovering', 'ready'],
        },
        versions: {
          description: 'Versions of the programs; null where one is missing or cannot be asked now.',
          type: 'object',
          additionalProperties: false,
          required: ['vmdiskd', 'node', 'libvirt', 'qemu', 'qemuNbd'],
          properties: {
            vmdiskd: {
              description: 'This daemon.',
              type: 'string',
            },
            node: {
              description: 'Node.js.',
              type: 'string',
            },
            libvirt: {
              description: 'The libvirt daemon.',
              type: ['string', 'null'],
            },
            qemu: {
              description: 'QEMU, as libvirt runs it.',
              type: ['string', 'null'],
            },
            qemuNbd: {
              description: 'qemu-nbd, which serves the exports.',
              type: ['string', 'null'],
            },
          },
        },
        capabilities: {
          description: 'What the parts can do here.',
          type: 'object',
          additionalProperties: false,
          required: ['libvirt', 'qemu'],
          properties: {
            libvirt: {
              description: 'The connection to libvirt.',
              type: 'object',
              additionalProperties: false,
              required: ['uri', 'connected'],
              properties: {
                uri: {
                  description: "The connection's URI.",
                  type: 'string',
                },
                connected: {
                  description: 'Whether it answers now.',
                  type: 'boolean',
                },
              },
            },
            qemu: {
              description: 'The means to serve and to map a disk.',
              type: 'object',
              additionalProperties: false,
              required: ['bitmaps', 'allocationDepth'],
              properties: {
                bitmaps: {
                  description: 'qemu-nbd can serve dirty bitmaps.',
                  type: 'boolean',
                },
                allocationDepth: {
                  description: 'qemu-nbd can serve allocation depth.',
                  type: 'boolean',
                },
              },
            },
          },
        },
        limits: {
          description: 'What a caller may ask for, and how long it may take.',
          type: 'object',
          additionalProperties: false,
          required: [
            'clients',
            'clientsPerIdentity',
            'frameBytes',
            'batch',
            'verbs',
            'exports',
            'exportsPerVm',
            'maxLease',
            'scratchReserve',
            'scratchPerExport',
            'events',
            'eventWaiters',
            'inlineExtents',
            'maxExtents',
            'bitmapBytes',
            'connections',
            'deadlineSeconds',
            'stateSeconds',
          ],
          properties: {
            clients: {
              description: 'Connections to the daemon.',
              type: 'integer',
            },
            clientsPerIdentity: {
              description: 'Connections of one identity from the network.',
              type: 'integer',
            },
            frameBytes: {
              description: 'The size of a message.',
              type: 'integer',
            },
            batch: {
              description: 'The calls in a batch.',
              type: 'integer',
            },
            verbs: {
              description: 'Verbs at work at once.',
              type: 'integer',
            },
            exports: {
              description: 'Exports on the host.',
              type: 'integer',
            },
            exportsPerVm: {
              description: "Exports of one VM's disks.",
              type: 'integer',
            },
            maxLease: {
              description: 'The longest lease in seconds; 0: any.',
              type: 'integer',
            },
            scratchReserve: {
              description: 'Bytes that must be free for a live backup to begin.',
              type: 'integer',
            },
            scratchPerExport: {
              description: 'Bytes that the throw-away layer of one export may take.',
              type: 'integer',
            },
            events: {
              description: 'Events that are kept.',
              type: 'integer',
            },
            eventWaiters: {
              description: 'Callers that wait for events at once.',
              type: 'integer',
            },
            inlineExtents: {
              description: 'Extents that come back inline.',
              type: 'integer',
            },
            maxExtents: {
              description: 'Extents in a page.',
              type: 'integer',
            },
            bitmapBytes: {
              description: 'The size of a bitmap page before base64.',
              type: 'integer',
            },
            connections: {
              description: 'Clients of an export.',
              type: 'integer',
            },
            deadlineSeconds: {
              description: 'How long each verb may take, in seconds, by name.',
              type: 'object',
              additionalProperties: {
                type: 'integer',
              },
            },
            stateSeconds: {
              description:
                'How long a state may last in which nobody can use the thing, in seconds, by kind and state: then the work in it is given up and tried again from the records.',
              type: 'object',
              additionalProperties: {
                type: 'integer',
              },
            },
          },
        },
      },
    },
    errors: [],
  },
  getJob: {
    name: 'getJob',
    summary: 'Tell how far a job is',
    description: 'Finished jobs are kept for 7 days.',
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['jobId'],
      properties: {
        jobId: {
          description: 'The job.',
          $ref: '#/components/schemas/Id',
        },
      },
    },
    result: {
      $ref: '#/components/schemas/JobRow',
    },
    errors: ['NoSuchJob', 'NotAuthorized'],
  },
  getSnapConfig: {
    name: 'getSnapConfig',
    summary: "Tell a VM's configuration as it was at a snapshot",
    description:
      "Also after its hardware has changed, and from our own record after the VM was undefined; a snapshot that another program made is as good. Passwords are in it for callers of the role `admin` alone (the UNIX socket's callers are), and only while libvirt has the snapshot: our own record never holds them. Neither the firmware's variables nor a TPM's state are frozen by a snapshot of disks: `nvram` and `tpm` say where they lie.",
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'snapshotId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        snapshotId: {
          description: "The snapshot, ours or another program's.",
          $ref: '#/components/schemas/LibvirtName',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['snapshotId', 'created', 'domainXml', 'disks', 'nvram', 'tpm'],
      properties: {
        snapshotId: {
          description: 'The snapshot.',
          $ref: '#/components/schemas/LibvirtName',
        },
        created: {
          description: 'When it was made.',
          $ref: '#/components/schemas/Time',
        },
        domainXml: {
          description: "libvirt's `<domain>`, in a form that can be defined; its disks name what was frozen.",
          type: 'string',
        },
        disks: {
          description: 'The disks that it froze.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/SnapshotDisk',
          },
        },
        nvram: {
          description: "The firmware's variables (UEFI); null where the VM had none.",
          anyOf: [
            {
              type: 'object',
              additionalProperties: false,
              required: ['path', 'template'],
              properties: {
                path: {
                  description: 'The file that holds them, as they are now.',
                  $ref: '#/components/schemas/HostPath',
                },
                template: {
                  description: 'What they were made from; null where that is not said.',
                  type: ['string', 'null'],
                },
              },
            },
            {
              type: 'null',
            },
          ],
        },
        tpm: {
          description: 'The TPM; null where the VM had none.',
          anyOf: [
            {
              type: 'object',
              additionalProperties: false,
              required: ['model', 'backend', 'version', 'state'],
              properties: {
                model: {
                  description: 'Its model: `tpm-crb`, `tpm-tis`, …',
                  type: 'string',
                },
                backend: {
                  description: '`emulator`, `passthrough` or `external`.',
                  type: 'string',
                },
                version: {
                  description: '`1.2` or `2.0`; null where that is not said.',
                  type: ['string', 'null'],
                },
                state: {
                  description: "The directory of an emulator's state, as it is now; null for others.",
                  type: ['string', 'null'],
                },
              },
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: ['NoSuchVM', 'NoSuchSnapshot', 'MigrationInProgress', 'LibvirtUnavailable', 'NotAuthorized'],
  },
  listBackups: {
    name: 'listBackups',
    summary: 'List the backup jobs',
    description: "Those of startBackup; a job that prepareBackupDisk began for itself is its export's.",
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      properties: {
        vmId: {
          description: 'Those of this VM alone, by UUID or by the name that it had.',
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['backups'],
      properties: {
        backups: {
          description: 'The backups, the oldest first.',
          type: 'array',
          items: {
            type: 'object',
            additionalProperties: false,
            required: [
              'backupId',
              'vmId',
              'owner',
              'created',
              'state',
              'error',
              'quiesced',
              'checkpoint',
              'disks',
              'lease',
            ],
            properties: {
              backupId: {
                description: 'The backup.',
                $ref: '#/components/schemas/Id',
              },
              vmId: {
                description: "The domain's UUID.",
                $ref: '#/components/schemas/VmId',
              },
              owner: {
                description: 'The identity that made it.',
                type: 'string',
              },
              created: {
                description: 'When.',
                $ref: '#/components/schemas/Time',
              },
              state: {
                description: '`starting`, `running`, `failed` (see `error`) or `ending`.',
                type: 'string',
                enum: ['starting', 'running', 'failed', 'ending'],
              },
              error: {
                description: 'Why it failed; null in other states.',
                anyOf: [
                  {
                    $ref: '#/components/schemas/Cause',
                  },
                  {
                    type: 'null',
                  },
                ],
              },
              quiesced: {
                description: "Whether the guest's file systems were frozen for the instant.",
                type: 'boolean',
              },
              checkpoint: {
                description: 'Its checkpoint, or null.',
                type: ['string', 'null'],
              },
              disks: {
                description: 'Its disks.',
                type: 'array',
                items: {
                  type: 'object',
                  additionalProperties: false,
                  required: ['disk', 'mode', 'tracked'],
                  properties: {
                    disk: {
                      description: 'Its target name.',
                      type: 'string',
                    },
                    mode: {
                      description: 'Whether its map is `full` or `incremental`.',
                      type: 'string',
                      enum: ['full', 'incremental'],
                    },
                    since: {
                      description: 'The checkpoint that an incremental map counts from.',
                      type: 'string',
                    },
                    reason: {
                      description: 'Why it is full although `since` was given.',
                      $ref: '#/components/schemas/Cause',
                    },
                    tracked: {
                      description: 'Whether a checkpoint can cover it: false for raw disks.',
                      type: 'boolean',
                    },
                  },
                },
              },
              lease: {
                description: 'Its lease; null: until it is stopped.',
                anyOf: [
                  {
                    $ref: '#/components/schemas/Lease',
                  },
                  {
                    type: 'null',
                  },
                ],
              },
            },
          },
        },
      },
    },
    columns: [
      'backupId',
      'state',
      'vmId',
      'checkpoint',
      'quiesced',
      'disks.disk',
      'lease.expires',
      'created',
    ],
    errors: [],
  },
  listCheckpoints: {
    name: 'listCheckpoints',
    summary: "List a VM's checkpoints, the oldest first",
    description: "Ours and other products'.",
    changes: false,
    undoes: false,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['checkpoints'],
      properties: {
        checkpoints: {
          description: 'The checkpoints, parents before children.',
          type: 'array',
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['checkpoint', 'parent', 'created', 'disks', 'state', 'reason', 'xml'],
            properties: {
              checkpoint: {
                description: 'Its name.',
                type: 'string',
              },
              parent: {
                description: 'The one before it; null for the first.',
                type: ['string', 'null'],
              },
              created: {
                description: 'When; null where nobody knows.',
                anyOf: [
                  {
                    $ref: '#/components/schemas/Time',
                  },
                  {
                    type: 'null',
                  },
                ],
              },
              disks: {
                description: 'Targets of the disks that it covers.',
                type: 'array',
                items: {
                  type: 'string',
                },
              },
              state: {
                description:
                  "`pending` (its backup has not been called good), `good`, `broken` (`since` it would be refused of one of its disks: see `reason`) or `foreign` (another product's).",
                type: 'string',
                enum: ['pending', 'good', 'broken', 'foreign'],
              },
              reason: {
                description: 'Why it is broken; null in other states.',
                type: ['string', 'null'],
              },
              xml: {
                description: "libvirt's XML of it, for `redefineCheckpoints`.",
                type: ['string', 'null'],
              },
            },
          },
        },
      },
    },
    columns: ['checkpoint', 'state', 'parent', 'disks', 'created'],
    errors: ['NoSuchVM', 'BackupBusy', 'MigrationInProgress', 'CheckpointError'],
  },
  listDisks: {
    name: 'listDisks',
    summary: "List a VM's disks that can be exported",
    description:
      'Each with its chain, and whether its changed blocks can be tracked. CD-ROMs, shareable and transient disks, and network disks are left out.',
    changes: false,
    undoes: false,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['disks'],
      properties: {
        disks: {
          description: "The disks, in the domain's order.",
          type: 'array',
          items: {
            $ref: '#/components/schemas/DiskRow',
          },
        },
      },
    },
    columns: [
      'target',
      'bus',
      'serial',
      'format',
      'capacity',
      'readonly',
      'trackable',
      'checkpoints.checkpoint',
    ],
    errors: ['NoSuchVM', 'MigrationInProgress', 'LibvirtUnavailable'],
  },
  listExports: {
    name: 'listExports',
    summary: 'List the exports',
    description: 'All exports that the caller may see, or those of one VM, oldest first.',
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      properties: {
        vmId: {
          description: "Only the exports of this VM's disks.",
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exports'],
      properties: {
        exports: {
          description: 'The exports.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/ExportRow',
          },
        },
      },
    },
    columns: [
      'exportId',
      'state',
      'vmId',
      'disk',
      'pointInTime.kind',
      'access',
      'transport.type',
      'clients',
      'bytes',
      'attachedTo.vmId',
      'lease.expires',
      'created',
    ],
    errors: ['NoSuchVM', 'LibvirtUnavailable'],
  },
  listJobs: {
    name: 'listJobs',
    summary: 'List jobs',
    description: 'Those that run and those that ended within 7 days, the oldest first.',
    changes: false,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: [],
      properties: {
        vmId: {
          description: 'Only those of this VM.',
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['jobs'],
      properties: {
        jobs: {
          description: 'The jobs.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/JobRow',
          },
        },
      },
    },
    columns: [
      'jobId',
      'kind',
      'state',
      'vmId',
      'subject',
      'progress.current',
      'progress.total',
      'created',
      'ended',
    ],
    errors: ['NotAuthorized'],
  },
  listSnapshots: {
    name: 'listSnapshots',
    summary: "List a VM's snapshots",
    description: 'Those made here and those that other programs made, parents before children.',
    changes: false,
    undoes: false,
    deadlineSeconds: 60,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['snapshots'],
      properties: {
        snapshots: {
          description: 'The snapshots.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/SnapshotRow',
          },
        },
      },
    },
    columns: ['snapshotId', 'state', 'parent', 'disks.disk', 'quiesced', 'created'],
    errors: ['NoSuchVM', 'MigrationInProgress', 'LibvirtUnavailable', 'NotAuthorized'],
  },
  mountDisk: {
    name: 'mountDisk',
    summary: 'Expose a disk or snapshot for any use: to scan, to list, to restore',
    description:
      'The mechanism of `prepareBackupDisk` without the meaning of a backup: no map, no checkpoint. The disk is named by `vmId` and `disk`, or by `path` and `format`; `snapshotId`, `backupId` and a running VM mean what they mean there. With `access: "scratch"` writes go to a throw-away layer, with `read-write` to the image itself, and its bitmaps record them. With `as: "file"` there is a plain file on this host besides. Ended by `unmountDisk`.',
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'Names the export.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: 'The VM whose disk it is. Goes with `disk`.',
          $ref: '#/components/schemas/VmId',
        },
        disk: {
          description: 'The disk: target name, alias or serial. Goes with `vmId`.',
          $ref: '#/components/schemas/DiskName',
        },
        path: {
          description: 'Instead of `vmId` and `disk`: an image file or block device under an allowed root.',
          $ref: '#/components/schemas/HostPath',
        },
        format: {
          description: 'The format of the image at `path`. Never probed.',
          $ref: '#/components/schemas/ImageFormat',
        },
        snapshotId: {
          description: 'The state that this libvirt external snapshot froze.',
          'x-rule': 'must be the name of a snapshot: 1-255 printable characters',
          $ref: '#/components/schemas/LibvirtName',
        },
        backupId: {
          description: "The instant that this backup fixed. `quiesce` is then the backup's.",
          $ref: '#/components/schemas/Id',
        },
        quiesce: {
          description: "Freeze the guest's file systems for a backup job of this export's own. Absent: `no`.",
          $ref: '#/components/schemas/Quiesce',
        },
        access: {
          description:
            'What clients may do. `read-write` is for an image as it is, of a VM that is off or by path, and goes without `snapshotId` and `backupId`.',
          $ref: '#/components/schemas/ExportAccess',
          default: 'read-only',
        },
        transport: {
          description: 'How the export is reached.',
          $ref: '#/components/schemas/Transport',
          default: {
            type: 'unix',
          },
        },
        leaseSeconds: {
          description:
            'The export is torn down by itself, outcome failed, when so long nobody has called `renewExport`. Absent: `limits.maxLease` where that is set, else it stays until it is torn down.',
          $ref: '#/components/schemas/LeaseSeconds',
        },
        as: {
          description:
            "`file`: `path` in the result is a plain file on this host with the disk's raw content (FUSE), besides the NBD export. Its owner is the transport's `user`, or root. With a `unix` transport only.",
          type: 'string',
          enum: ['nbd', 'file'],
          default: 'nbd',
        },
        create: {
          description:
            'Make a new, empty image at `path` first. It stays when the export ends; where the export cannot be made, it does not.',
          type: 'object',
          additionalProperties: false,
          required: ['capacity'],
          properties: {
            capacity: {
              description: 'The size of the disk in bytes, a multiple of 512.',
              type: 'integer',
              minimum: 512,
              maximum: 1125899906842624,
              multipleOf: 512,
            },
            format: {
              description: 'The same as the `format` beside `path`, which it may be left to.',
              $ref: '#/components/schemas/ImageFormat',
            },
          },
        },
      },
      allOf: [
        {
          'x-rule': 'name the disk by vmId and disk, or by path and format: one pair, whole',
          oneOf: [
            {
              required: ['vmId', 'disk'],
              not: {
                anyOf: [
                  {
                    required: ['path'],
                  },
                  {
                    required: ['format'],
                  },
                ],
              },
            },
            {
              required: ['path', 'format'],
              not: {
                anyOf: [
                  {
                    required: ['vmId'],
                  },
                  {
                    required: ['disk'],
                  },
                ],
              },
            },
          ],
        },
        {
          'x-rule': 'snapshotId, backupId and quiesce go with vmId and disk, not with path',
          not: {
            required: ['path'],
            anyOf: [
              {
                required: ['snapshotId'],
              },
              {
                required: ['backupId'],
              },
              {
                required: ['quiesce'],
              },
            ],
          },
        },
        {
          'x-rule': "with backupId, quiesce and snapshotId are the backup's and not given here",
          not: {
            required: ['backupId'],
            anyOf: [
              {
                required: ['quiesce'],
              },
              {
                required: ['snapshotId'],
              },
            ],
          },
        },
        {
          'x-rule': 'quiesce does not go with snapshotId: that instant has passed',
          not: {
            required: ['snapshotId', 'quiesce'],
          },
        },
        {
          'x-rule':
            'access read-write goes without snapshotId, backupId and quiesce: it is of the image as it is now',
          not: {
            required: ['access'],
            properties: {
              access: {
                description: 'Writing.',
                const: 'read-write',
              },
            },
            anyOf: [
              {
                required: ['snapshotId'],
              },
              {
                required: ['backupId'],
              },
              {
                required: ['quiesce'],
              },
            ],
          },
        },
        {
          'x-rule': 'create goes with path and access read-write',
          anyOf: [
            {
              not: {
                required: ['create'],
              },
            },
            {
              required: ['path', 'access'],
              properties: {
                access: {
                  description: 'Writing.',
                  const: 'read-write',
                },
              },
            },
          ],
        },
        {
          'x-rule': 'as file goes with a unix transport: the file is on this host',
          not: {
            required: ['as', 'transport'],
            properties: {
              as: {
                description: 'A file.',
                const: 'file',
              },
              transport: {
                description: 'On the network.',
                type: 'object',
                properties: {
                  type: {
                    description: 'TCP.',
                    const: 'tcp',
                  },
                },
                required: ['type'],
              },
            },
          },
        },
      ],
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'drive', 'uri', 'blocksStart', 'connections', 'lease'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        drive: {
          description: 'The drive, for `hotplugDisk`.',
          $ref: '#/components/schemas/Drive',
        },
        uri: {
          description: 'The same as an NBD URI, for libnbd and qemu-img.',
          type: 'string',
        },
        credentials: {
          description:
            'The key to the export, where the transport is `{"type": "tcp", "tls": "psk"}`. Absent otherwise.',
          $ref: '#/components/schemas/Credentials',
        },
        blocksStart: {
          description: 'Whether the VM that owns the image cannot start while the export lives.',
          type: 'boolean',
        },
        connections: {
          description: 'How many clients can be connected at once.',
          type: 'integer',
          minimum: 1,
        },
        lease: {
          description: "The export's lease; null: until torn down.",
          anyOf: [
            {
              $ref: '#/components/schemas/Lease',
            },
            {
              type: 'null',
            },
          ],
        },
        path: {
          description: 'The plain file on this host, with `as: "file"`. Absent otherwise.',
          $ref: '#/components/schemas/HostPath',
        },
      },
    },
    errors: [
      'NoSuchVM',
      'VMNotRunning',
      'NoSuchDisk',
      'UnsupportedDisk',
      'NoSuchImage',
      'WrongFormat',
      'PathNotAllowed',
      'UnsafeImage',
      'NoSuchSnapshot',
      'SnapshotInUse',
      'DiskInUse',
      'AlreadyExists',
      'ExportFailed',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'ToolMissing',
      'NotAuthorized',
      'NoSuchBackup',
      'BackupBusy',
      'BackupError',
      'ScratchFull',
      'FreezeGuestFSFailed',
      'CheckpointError',
      'LimitReached',
      'GatewayUnavailable',
    ],
  },
  redefineCheckpoints: {
    name: 'redefineCheckpoints',
    summary: 'Tell libvirt of checkpoints that it has lost',
    description:
      'After a VM was moved, defined anew, or was transient. Parents first; those that libvirt knows are left as they are. Of a running VM the bitmaps are looked at.',
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId'],
      properties: {
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        checkpoints: {
          description: 'Absent: all from our own records.',
          type: 'array',
          maxItems: 1000,
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['checkpoint', 'xml'],
            properties: {
              checkpoint: {
                description: 'Its name.',
                $ref: '#/components/schemas/LibvirtName',
              },
              xml: {
                description: 'As `listCheckpoints` gave it; the name in it is `checkpoint`.',
                type: 'string',
                minLength: 1,
                maxLength: 1000000,
              },
            },
          },
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['vmId', 'checkpoints'],
      properties: {
        vmId: {
          description: "The domain's UUID.",
          $ref: '#/components/schemas/VmId',
        },
        checkpoints: {
          description: 'What became of each.',
          type: 'array',
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['checkpoint', 'state', 'reason'],
            properties: {
              checkpoint: {
                description: 'Its name.',
                type: 'string',
              },
              state: {
                description: '`defined`, `known` (libvirt had it) or `failed`.',
                type: 'string',
                enum: ['defined', 'known', 'failed'],
              },
              reason: {
                description: 'Why it failed; null in other states.',
                type: ['string', 'null'],
              },
            },
          },
        },
      },
    },
    errors: ['NoSuchVM', 'BackupBusy', 'MigrationInProgress', 'CheckpointError', 'NotAuthorized'],
  },
  renewBackup: {
    name: 'renewBackup',
    summary: 'Give a backup a new lease',
    description:
      'The backup lives so long from now on, whatever its lease was; one without a lease gets one. The leases of its exports are their own. A failed or ending backup is not renewed: `BackupError` tells why.',
    changes: true,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId', 'leaseSeconds'],
      properties: {
        backupId: {
          description: 'The backup.',
          $ref: '#/components/schemas/Id',
        },
        leaseSeconds: {
          description: 'How long from now on; at most `limits.maxLease` where that is set.',
          $ref: '#/components/schemas/LeaseSeconds',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId', 'lease'],
      properties: {
        backupId: {
          description: 'The backup.',
          $ref: '#/components/schemas/Id',
        },
        lease: {
          description: 'The new lease.',
          $ref: '#/components/schemas/Lease',
        },
      },
    },
    errors: ['NoSuchBackup', 'BackupError', 'NotAuthorized'],
  },
  renewExport: {
    name: 'renewExport',
    summary: 'Give an export a new lease',
    description:
      'The export lives so long from now on, whatever its lease was; one without a lease gets one. A failed or closing export is not renewed: `ExportFailed` tells why.',
    changes: true,
    undoes: false,
    deadlineSeconds: 30,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'leaseSeconds'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        leaseSeconds: {
          description: 'How long from now on; at most `limits.maxLease` where that is set.',
          $ref: '#/components/schemas/LeaseSeconds',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'lease'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        lease: {
          description: 'The new lease.',
          $ref: '#/components/schemas/Lease',
        },
      },
    },
    errors: ['NoSuchExport', 'ExportFailed', 'NotAuthorized'],
  },
  'rpc.discover': {
    name: 'rpc.discover',
    summary: 'Describe this API as an OpenRPC document',
    description: 'The verbs that this daemon has, with their params, results and errors.',
    changes: false,
    undoes: false,
    deadlineSeconds: 10,
    alwaysAdmitted: true,
    params: {
      type: 'object',
      additionalProperties: false,
      properties: {},
    },
    result: {
      description: 'An OpenRPC 1.3.2 document.',
      type: 'object',
      additionalProperties: true,
    },
    errors: [],
  },
  startBackup: {
    name: 'startBackup',
    summary: "Fix one point in time of a running VM's disks",
    description:
      'Begins a libvirt pull-mode backup job over the disks, all at one instant; `prepareBackupDisk` with this `backupId` then exports each. A raw disk is exported full and left out of the checkpoint. libvirt allows one backup job a VM. Ended by `stopBackup`.',
    changes: true,
    undoes: false,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId', 'vmId', 'disks'],
      properties: {
        backupId: {
          description: 'Names the backup.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: 'The VM.',
          $ref: '#/components/schemas/VmId',
        },
        disks: {
          description: 'The disks, each once.',
          type: 'array',
          minItems: 1,
          maxItems: 256,
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['disk'],
            properties: {
              disk: {
                description: 'Target name, alias or serial.',
                $ref: '#/components/schemas/DiskName',
              },
              since: {
                description:
                  'The map is of blocks changed since that checkpoint; without it, of blocks that hold data.',
                type: 'object',
                additionalProperties: false,
                required: ['checkpoint'],
                properties: {
                  checkpoint: {
                    description: 'A checkpoint of the VM.',
                    $ref: '#/components/schemas/LibvirtName',
                  },
                },
              },
              ifUntracked: {
                description:
                  'Where a trustworthy map cannot be had: `fail` with the named error, or give the `full` map with the cause in `reason`.',
                type: 'string',
                enum: ['fail', 'full'],
                default: 'fail',
              },
            },
          },
        },
        checkpoint: {
          description:
            'Create this checkpoint at the same instant. It is pending until `stopBackup` says `outcome: "success"`.',
          $ref: '#/components/schemas/Id',
        },
        quiesce: {
          description: "Freeze the guest's file systems for the instant.",
          $ref: '#/components/schemas/Quiesce',
          default: 'try',
        },
        leaseSeconds: {
          description:
            'The backup and its exports are ended by themselves, outcome failed, when so long nobody has called `renewBackup`. Absent: `limits.maxLease` where that is set, else it stays until it is stopped.',
          $ref: '#/components/schemas/LeaseSeconds',
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId', 'vmId', 'created', 'quiesced', 'disks', 'lease'],
      properties: {
        backupId: {
          description: 'The backup.',
          $ref: '#/components/schemas/Id',
        },
        vmId: {
          description: "The domain's UUID.",
          $ref: '#/components/schemas/VmId',
        },
        created: {
          description: 'When.',
          $ref: '#/components/schemas/Time',
        },
        quiesced: {
          description: "Whether the guest's file systems were frozen for the instant.",
          type: 'boolean',
        },
        checkpoint: {
          description:
            'The checkpoint that was created; absent where none was asked for or no disk can have one.',
          type: 'string',
        },
        disks: {
          description: 'The disks.',
          type: 'array',
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['disk', 'mode', 'tracked'],
            properties: {
              disk: {
                description: 'Its target name.',
                type: 'string',
              },
              mode: {
                description: 'Whether its map is `full` or `incremental`.',
                type: 'string',
                enum: ['full', 'incremental'],
              },
              since: {
                description: 'The checkpoint that an incremental map counts from.',
                type: 'string',
              },
              reason: {
                description: 'Why it is full although `since` was given.',
                $ref: '#/components/schemas/Cause',
              },
              tracked: {
                description: 'Whether a checkpoint can cover it: false for raw disks.',
                type: 'boolean',
              },
            },
          },
        },
        lease: {
          description: "The backup's lease; null: until it is stopped.",
          anyOf: [
            {
              $ref: '#/components/schemas/Lease',
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [
      'NoSuchVM',
      'VMNotRunning',
      'NoSuchDisk',
      'UnsupportedDisk',
      'NotTracked',
      'NoSuchCheckpoint',
      'CheckpointPending',
      'InconsistentCheckpoint',
      'CheckpointError',
      'BackupBusy',
      'BackupError',
      'ScratchFull',
      'FreezeGuestFSFailed',
      'AlreadyExists',
      'PathNotAllowed',
      'NoSuchImage',
      'MigrationInProgress',
      'NotAuthorized',
    ],
  },
  stopBackup: {
    name: 'stopBackup',
    summary: 'End a backup job',
    description:
      "Ends exactly that job, never another's, and decides over its checkpoint. `ExportInUse` with live exports of it, unless `force`, which tears them down first.",
    changes: true,
    undoes: true,
    deadlineSeconds: 180,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId'],
      properties: {
        backupId: {
          description: 'The backup.',
          $ref: '#/components/schemas/Id',
        },
        outcome: {
          description: 'Whether the backup was good.',
          $ref: '#/components/schemas/Outcome',
        },
        force: {
          description: 'Tear its exports down first, unplugging their drives.',
          type: 'boolean',
          default: false,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['backupId', 'checkpoint'],
      properties: {
        backupId: {
          description: 'The backup.',
          $ref: '#/components/schemas/Id',
        },
        checkpoint: {
          description: 'What became of its checkpoint; null without one.',
          anyOf: [
            {
              $ref: '#/components/schemas/EndedCheckpoint',
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [
      'ExportInUse',
      'BackupBusy',
      'MigrationInProgress',
      'BackupError',
      'CheckpointError',
      'HotunplugTimeout',
      'HotunplugRefused',
      'HotunplugDiskFailed',
      'NotAuthorized',
    ],
  },
  unmountDisk: {
    name: 'unmountDisk',
    summary: 'End an export and remove everything that it made',
    description:
      'The same as `teardownBackupDisk`, which takes what `mountDisk` made, too: removes the file, the server, its socket and the throw-away layer. What was written to an image stays. An export that is gone, or was never known, is success. `ExportInUse` while the drive is attached to a VM, unless `force`.',
    changes: true,
    undoes: true,
    deadlineSeconds: 120,
    params: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        outcome: {
          description: 'How the backup went. Required where a pending checkpoint depends on this call.',
          type: 'string',
          enum: ['success', 'failed'],
        },
        force: {
          description: 'Detach the drive first where it is attached to a VM.',
          type: 'boolean',
          default: false,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['exportId', 'checkpoint'],
      properties: {
        exportId: {
          description: 'The export.',
          $ref: '#/components/schemas/Id',
        },
        checkpoint: {
          description: 'The checkpoint that depended on the export, if any.',
          anyOf: [
            {
              $ref: '#/components/schemas/EndedCheckpoint',
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [
      'ExportInUse',
      'HotunplugTimeout',
      'HotunplugRefused',
      'MigrationInProgress',
      'LibvirtUnavailable',
      'NotAuthorized',
      'BackupBusy',
      'BackupError',
      'CheckpointError',
    ],
  },
  waitEvents: {
    name: 'waitEvents',
    summary: 'Wait for what happens on the host, and tell it',
    description:
      'A long poll over a numbered journal, which is bounded (`[limits] events`, `eventBytes`) and goes on after a restart of the daemon. The answer comes at once where there is something after `after`, else with the next event, and at `timeoutSeconds` without one. What the caller may not see is left out, so an answer may come early and be empty; `next` is past it. Call again with `next` as `after`. What cannot be told is a `gap`; after one, and after a new `journal` id, list what there is and go on with `next`. A wait takes no place among the verbs at work; of waits there are `[limits] eventWaiters` at once. A caller that has closed its side of the connection (or has left, which looks the same) is answered within 5 seconds, and all are answered at once when the daemon stops.',
    changes: false,
    undoes: false,
    deadlineSeconds: 330,
    alwaysAdmitted: true,
    params: {
      type: 'object',
      additionalProperties: false,
      properties: {
        after: {
          description:
            'The number of the last event that the caller knows: `next` of the last answer. 0: all that is kept. Absent: from now on. A number beyond the newest (of another journal, or after the state was restored) is answered at once, with a gap.',
          type: 'integer',
          minimum: 0,
          maximum: 9007199254740991,
        },
        timeoutSeconds: {
          description: 'How long to wait for an event. 0: not at all.',
          type: 'integer',
          minimum: 0,
          maximum: 300,
          default: 30,
        },
        max: {
          description: 'How many events to tell at most; fewer where they are long.',
          type: 'integer',
          minimum: 1,
          maximum: 1000,
          default: 100,
        },
      },
    },
    result: {
      type: 'object',
      additionalProperties: false,
      required: ['journal', 'events', 'next', 'gap'],
      properties: {
        journal: {
          description:
            'The id of the journal. Where it is not that of the last answer, the numbering began again, and this answer does not follow on that one.',
          type: 'string',
        },
        events: {
          description:
            'What happened after `after`, or after the gap, in order and without a number missing.',
          type: 'array',
          items: {
            $ref: '#/components/schemas/HostEvent',
          },
        },
        next: {
          description: 'The `after` of the next call.',
          type: 'integer',
          minimum: 0,
          maximum: 9007199254740991,
        },
        gap: {
          description:
            'Numbers before `events` that cannot be told: too long ago, lost in a crash, never given, or not of this journal. Null without any.',
          anyOf: [
            {
              type: 'object',
              additionalProperties: false,
              required: ['from', 'to'],
              properties: {
                from: {
                  description: 'The first of them.',
                  type: 'integer',
                },
                to: {
                  description: 'The last of them.',
                  type: 'integer',
                },
              },
            },
            {
              type: 'null',
            },
          ],
        },
      },
    },
    errors: [],
  },
};

/** What each error means. */
export const errorMeanings: Readonly<Record<ErrorName, string>> = {
  NoSuchVM: 'libvirt has no domain of that UUID or name.',
  VMNotRunning: 'The verb needs the VM running, or the VM has migrated to another host.',
  NoSuchImage: 'There is no image at that path.',
  WrongFormat: 'The image is not of the format that was given.',
  HotplugDiskFailed:
    'libvirt did not plug the disk in, its own text is in the error; or the certificates that QEMU would need are not in order.',
  HotunplugDiskFailed: 'libvirt did not take the disk out; its own text is in the error.',
  SnapshotFailed: 'libvirt did not make the snapshot.',
  MigrationInProgress: 'The VM is migrating.',
  MergeFailed: 'The snapshot could not be merged.',
  NoSuchJob: 'There is no job of that id.',
  FreezeGuestFSFailed: "The guest agent did not freeze the guest's file systems.",
  RecoveryInProgress: 'The daemon has just started and is taking stock.',
  InvalidBitmapChain: 'The bitmap has a gap in the backing chain: a map from it would lack changes.',
  BitmapDoesNotExist: 'The image has no bitmap of that name.',
  BackupError: 'libvirt did not begin or end the backup.',
  NoSuchBackup: 'There is no backup of that id.',
  CheckpointError: 'libvirt did not make or delete the checkpoint.',
  NoSuchCheckpoint: 'The VM has no checkpoint of that name.',
  InconsistentCheckpoint: 'The bitmap or checkpoint is in use, disabled or broken: it may lack changes.',
  AlreadyExists:
    'The id is taken by a call with other params, or ended less than an hour ago; or there is a file where `create` is to make an image.',
  NoSuchExport: 'There is no export of that id.',
  ExportInUse: "The export's drive is attached to a VM.",
  ExportFailed: "The export's server could not be started, or died.",
  NoSuchDisk: 'The VM has no disk of that name, or several with that alias or serial.',
  DiskInUse:
    'A running VM, another process or another export has the image open, or another disk has it in its chain, in a way that rules this out; a VM that was saved with its memory counts as running.',
  PathNotAllowed: 'The path, or one that its image refers to, is not under one of the allowed roots.',
  UnsafeImage:
    "The path is neither a file nor a block device, or the image's header asks for something that is never opened.",
  NotTracked: 'Changed blocks cannot be had for this disk.',
  BackupBusy: 'Another backup of this VM is at work.',
  NoSuchSnapshot: 'The VM has no snapshot of that name that froze this disk.',
  SnapshotInUse:
    'An export reads the snapshot, a merge has begun on it, or another disk has what it froze in its backing chain.',
  HotunplugTimeout: 'The guest has not let go of the disk in time.',
  HotunplugRefused: 'The guest refused to let go of the disk.',
  NoFreeSlot: 'The VM has no free PCI port or target name left.',
  LibvirtUnavailable: 'libvirt does not answer.',
  Timeout: 'The verb did not finish before its deadline, and is being undone.',
  NotAuthorized:
    'The caller may not do this, or the drive is not one of a known export, or not for this host.',
  LimitReached: 'A limit of the daemon is reached, or a drain is at work.',
  ScratchFull: 'The space for scratch files ran out.',
  CheckpointPending: 'The checkpoint has not been called good yet.',
  NotOurs: 'The disk was not plugged in by hotplugDisk.',
  ToolMissing: 'A program that the daemon needs is not installed.',
  UnsupportedDisk: 'Disks of this kind cannot be exported.',
  GatewayUnavailable:
    "The TLS gateway, of this host or of the drive's, does not answer (try again), or there is none for exports of that kind (set it up first).",
  DrainFailed: 'A drain has not ended all exports and backups; drain again.',
};

/** The configuration. */
export const configSchema: JsonSchema = {
  title: 'Config',
  description: "The daemon's configuration.",
  type: 'object',
  additionalProperties: false,
  properties: {
    hostId: {
      description:
        "This host's id: part of every drive's serial, so that guest paths never collide between hosts. Empty: made from /etc/machine-id.",
      type: 'string',
      maxLength: 64,
      pattern: '^[A-Za-z0-9_.-]*$',
      default: '',
    },
    libvirt: {
      description: 'The libvirt daemon that this one works with.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        uri: {
          description: "The connection: the system's VMs, or those of the user that runs the daemon.",
          type: 'string',
          enum: ['qemu:///system', 'qemu:///session'],
          default: 'qemu:///system',
        },
        socket: {
          description:
            "The path of libvirt's own UNIX socket, where it is not the usual one. Empty: found from the URI.",
          type: 'string',
          maxLength: 107,
          pattern: '^(/.*)?$',
          default: '',
        },
      },
    },
    rpc: {
      description: 'Where callers reach the daemon.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        socket: {
          description:
            'The UNIX socket; one JSON value and a newline a message, both ways. At most 107 bytes, which is what the kernel takes.',
          type: 'string',
          minLength: 2,
          maxLength: 107,
          pattern: '^/',
          default: '/run/vmdiskd/vmdiskd.sock',
        },
        group: {
          description:
            'The group that may use that socket (mode 0660). Its members can read every disk, as root can. Where there is no such group, root alone.',
          type: 'string',
          minLength: 1,
          maxLength: 32,
          pattern: '^[A-Za-z_][A-Za-z0-9_.-]*$',
          default: 'vmdiskd',
        },
        tls: {
          description:
            'Addresses with ports (1 to 65535) for callers on other machines, e.g. "192.0.2.10:16520": TLS with a client certificate, then one JSON value and a newline a message, both ways. `[tls]` and `[[roles]]` say who may come in. Empty: none.',
          type: 'array',
          maxItems: 16,
          items: {
            type: 'string',
            minLength: 3,
            maxLength: 262,
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$',
          },
          default: [],
        },
        https: {
          description: 'The same for HTTPS: one message or batch in the body of a POST to `/`.',
          type: 'array',
          maxItems: 16,
          items: {
            type: 'string',
            minLength: 3,
            maxLength: 262,
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$',
          },
          default: [],
        },
        wss: {
          description:
            'The same for WebSockets: a text message is one JSON value. May share an address with `https`.',
          type: 'array',
          maxItems: 16,
          items: {
            type: 'string',
            minLength: 3,
            maxLength: 262,
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$',
          },
          default: [],
        },
      },
    },
    tls: {
      description:
        "The certificates of this host's network side, PEM files. They are read at the start of vmdiskd-gateway, and of vmdiskd where it listens on the network, and again at a reload, when files that are named here since then count too.",
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        cert: {
          description:
            'The host\'s own certificate, with those between it and its CA after it. Empty: there are no exports with certificates (`tls: "x509"`).',
          'x-reload': true,
          type: 'string',
          maxLength: 4095,
          pattern: '^(/.*)?$',
          default: '',
        },
        key: {
          description:
            'The key of that certificate, without a passphrase, in a file that nobody else can read.',
          'x-reload': true,
          type: 'string',
          maxLength: 4095,
          pattern: '^(/.*)?$',
          default: '',
        },
        clientCa: {
          description:
            "The CAs that clients' certificates must come from. No other is trusted, the system's neither.",
          'x-reload': true,
          type: 'string',
          maxLength: 4095,
          pattern: '^(/.*)?$',
          default: '',
        },
        crl: {
          description:
            'Their revocation lists, one for each CA in clientCa: with one missing or expired no certificate of that CA is accepted. Empty: revocation is not looked at.',
          'x-reload': true,
          type: 'string',
          maxLength: 4095,
          pattern: '^(/.*)?$',
          default: '',
        },
      },
    },
    roles: {
      description:
        'Who may do what over the network. A caller is known by the identities of its certificate; all rows that name one of them count, and the first names the caller as an owner. One that no row names may do nothing. After a reload the next call on a connection is judged anew; verbs at work finish.',
      'x-reload': true,
      type: 'array',
      maxItems: 1024,
      default: [],
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['identity', 'role'],
        properties: {
          identity: {
            description:
              'An identity of a certificate: `subject:` and an RFC 4514 name (`subject:CN=engine,O=Example`), `dns:` or `uri:` and an alternative name. Compared whole.',
            type: 'string',
            minLength: 5,
            maxLength: 1024,
          },
          role: {
            description:
              '`observer` reads what is of its VMs; `backup` makes points in time, exports, and plugs drives in; `restore` may write, too; `admin` everything, as on the UNIX socket.',
            type: 'string',
            enum: ['observer', 'backup', 'restore', 'admin'],
          },
          vms: {
            description: 'The VMs that it is for: UUIDs, or names; "*" is all. For `admin` it means nothing.',
            type: 'array',
            maxItems: 4096,
            items: {
              type: 'string',
              minLength: 1,
              maxLength: 256,
            },
            default: [],
          },
        },
      },
    },
    paths: {
      description: 'Where the daemon keeps its files.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        run: {
          description:
            "Exports and sockets: gone after a reboot, as they must be. Short, since a socket's path has at most 107 bytes and `/exports/<exportId>/nbd.sock` is added to it.",
          type: 'string',
          minLength: 2,
          maxLength: 25,
          pattern: '^/',
          default: '/run/vmdiskd',
        },
        state: {
          description: 'Records that outlive a reboot.',
          type: 'string',
          minLength: 2,
          maxLength: 1024,
          pattern: '^/',
          default: '/var/lib/vmdiskd',
        },
        scratch: {
          description:
            'Scratch files and overlays, on a file system with room for what guests write during a backup.',
          type: 'string',
          minLength: 2,
          maxLength: 1024,
          pattern: '^/',
          default: '/var/lib/vmdiskd/scratch',
        },
      },
    },
    images: {
      description: 'Which images may be opened.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        allowedRoots: {
          description:
            "Directories under which every image of a chain must lie, links resolved: an image's header may name any file of the host.",
          type: 'array',
          maxItems: 256,
          items: {
            type: 'string',
            minLength: 1,
            maxLength: 4095,
            pattern: '^/',
          },
          default: ['/var/lib/libvirt/images'],
        },
        user: {
          description:
            "The account that qemu-nbd and qemu-img run as, where the daemon is root; it owns nothing and is in no group. Where there is no such account, nobody's.",
          type: 'string',
          minLength: 1,
          maxLength: 32,
          pattern: '^[A-Za-z_][A-Za-z0-9_.-]*$',
          default: 'vmdiskd-nbd',
        },
      },
    },
    qemu: {
      description: 'How VMs run here.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        group: {
          description:
            "The group of QEMU's own account: it gets in at an export's socket when the drive is plugged in. Debian: libvirt-qemu; Fedora: qemu.",
          type: 'string',
          minLength: 1,
          maxLength: 32,
          pattern: '^[A-Za-z_][A-Za-z0-9_.-]*$',
          default: 'libvirt-qemu',
        },
        user: {
          description:
            "QEMU's own account: it makes the socket of a live backup. Debian: libvirt-qemu; Fedora: qemu.",
          type: 'string',
          minLength: 1,
          maxLength: 32,
          pattern: '^[A-Za-z_][A-Za-z0-9_.-]*$',
          default: 'libvirt-qemu',
        },
      },
    },
    hotplug: {
      description: 'Which drives may be plugged into VMs of this host.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        allowedHosts: {
          description:
            'Gateways whose drives may be plugged in here, as drives name them, e.g. "192.0.2.10:10809", "gw1.example" or "[2001:db8::1]:10809"; without a port: any port of that host. A drive that is reached at another address is `NotAuthorized`. QEMU shows all of them this host\'s certificate, whichever VM the drive is for, so name only hosts whose callers may read what is exported to this one. Empty: drives on UNIX sockets of this host alone; under systemd the service is then without a network, so that the first one needs a restart.',
          'x-reload': true,
          type: 'array',
          maxItems: 1024,
          items: {
            type: 'string',
            minLength: 1,
            maxLength: 262,
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?$',
          },
          default: [],
        },
      },
    },
    log: {
      description:
        "Entries in systemd's journal, with fields; without systemd, JSON lines on the standard output.",
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        level: {
          description: 'The least level that is written.',
          'x-reload': true,
          type: 'string',
          enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
          default: 'info',
        },
        debug: {
          description:
            'Parts of the program that also say what is for debugging, whatever the level: `libvirt` each call to it.',
          'x-reload': true,
          type: 'array',
          maxItems: 32,
          items: {
            type: 'string',
            enum: ['rpc', 'exports', 'libvirt', 'events', 'host', 'gateway'],
          },
          default: [],
        },
      },
    },
    metrics: {
      description: 'Numbers for Prometheus, by HTTP at `/metrics`.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        listen: {
          description:
            'A UNIX socket\'s path (mode 0660, group `rpc.group`), e.g. "/run/vmdiskd/metrics.sock", or a loopback address with a port, e.g. "127.0.0.1:9737", where every local account can read the ids of exports and the names of VMs. Empty: none.',
          type: 'string',
          maxLength: 107,
          pattern: '^(/.+|(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5})?$',
          default: '',
        },
      },
    },
    gateway: {
      description: 'The TLS gateway, vmdiskd-gateway: the one way to exports over the network.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        listen: {
          description:
            'Addresses with ports (1 to 65535), e.g. "0.0.0.0:10809" or "[::]:10809"; drives name the port of the first. Empty: no network exports.',
          type: 'array',
          maxItems: 16,
          items: {
            type: 'string',
            minLength: 3,
            maxLength: 262,
            pattern: '^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$',
          },
          default: [],
        },
        advertise: {
          description:
            "The name or address that is put into drives, without a port. Empty: the first of `listen`, or this host's name where that is all addresses.",
          'x-reload': true,
          type: 'string',
          maxLength: 255,
          pattern: '^[A-Za-z0-9_.:-]*$',
          default: '',
        },
        plaintextLoopback: {
          description:
            'Whether exports without TLS (`tls: "none"`) may be made, for clients on this very host: any local account can connect to them.',
          type: 'boolean',
          default: false,
        },
        handshakes: {
          description:
            "Clients at once that have not shown who they are yet. Beyond it the oldest of the address with most of them is dropped: who opens many connections and says nothing is in nobody else's way.",
          type: 'integer',
          minimum: 1,
          maximum: 65536,
          default: 256,
        },
        handshakeSeconds: {
          description: 'How long a client has to show who it is.',
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 600,
          default: 20,
        },
        connections: {
          description:
            'Clients at once that have shown who they are. Each may hold 2 MiB of memory, where it reads more slowly than it is sent to.',
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 65536,
          default: 512,
        },
        stallSeconds: {
          description:
            'How long a client may take nothing of what is sent to it before it is dropped, so that one that hangs does not keep a place.',
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 86400,
          default: 600,
        },
      },
    },
    limits: {
      description: 'What callers may ask for. At a limit the answer is LimitReached.',
      type: 'object',
      additionalProperties: false,
      default: {},
      properties: {
        clients: {
          description: 'Connections to the daemon at once; each may hold frameBytes of memory.',
          type: 'integer',
          minimum: 1,
          maximum: 4096,
          default: 64,
        },
        clientsPerIdentity: {
          description:
            'Connections of one identity (`[[roles]]`) from the network at once: one certificate, or a client that leaks connections, must not take the places of all others. With as many as `clients` or more it limits nothing.',
          type: 'integer',
          minimum: 1,
          maximum: 4096,
          default: 32,
        },
        frameBytes: {
          description: 'The size of one message. The longest drive is a few KiB; a batch is many.',
          type: 'integer',
          minimum: 4096,
          maximum: 16777216,
          default: 1048576,
        },
        batch: {
          description: 'The calls in one batch.',
          type: 'integer',
          minimum: 1,
          maximum: 1000,
          default: 100,
        },
        verbs: {
          description:
            'Verbs at work at once, over all clients. getHostInfo and waitEvents are answered beyond it.',
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 1024,
          default: 32,
        },
        exports: {
          description: 'Exports at once: each is a process of some 20 MiB.',
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 10000,
          default: 256,
        },
        exportsPerVm: {
          description:
            "Exports of one VM's disks at once: one that leaks exports must not take the places of all others.",
          'x-reload': true,
          type: 'integer',
          minimum: 1,
          maximum: 10000,
          default: 64,
        },
        maxLease: {
          description:
            'The longest lease in seconds that an export or a backup gets, and the one of those that ask for none: whatever its caller has forgotten is gone after it. 0: as long as is asked for, and without a lease until it is torn down.',
          'x-reload': true,
          type: 'integer',
          minimum: 0,
          maximum: 31536000,
          default: 0,
        },
        scratchReserve: {
          description:
            'Bytes that must be free where scratch files lie before a live backup begins; below that a warning, below a quarter of it the backup is ended, since QEMU would pause the guest.',
          'x-reload': true,
          type: 'integer',
          minimum: 1048576,
          maximum: 9007199254740991,
          default: 1073741824,
        },
        scratchPerExport: {
          description:
            'Bytes that the throw-away layer of one export with `access: "scratch"` may take: beyond it writes fail with ENOSPC, and reads go on. Less where that would leave less than `scratchReserve` free when the export begins.',
          'x-reload': true,
          type: 'integer',
          minimum: 1048576,
          maximum: 9007199254740991,
          default: 10737418240,
        },
        mergeBytesPerSecond: {
          description:
            "The bytes that a live merge (deleteSnapshot) writes in a second, so that the guest's own I/O is not starved. 0: as fast as it goes.",
          'x-reload': true,
          type: 'integer',
          minimum: 0,
          maximum: 9007199254740991,
          default: 0,
        },
        events: {
          description:
            'Events that are kept for waitEvents, in memory and on disk: a caller that stays away for longer is told a gap, and reads the lists. One is some 300 bytes.',
          type: 'integer',
          minimum: 100,
          maximum: 1000000,
          default: 1000,
        },
        eventBytes: {
          description:
            'Bytes of those events, where they are longer than usual. On disk it may be a quarter more.',
          type: 'integer',
          minimum: 65536,
          maximum: 1073741824,
          default: 8388608,
        },
        eventWaiters: {
          description:
            'Callers that wait for events (waitEvents) at once. They take no place among the verbs at work.',
          type: 'integer',
          minimum: 1,
          maximum: 4096,
          default: 128,
        },
        deadlineSeconds: {
          description:
            'How long each verb may take, in seconds. Then it is undone and the caller gets Timeout.',
          type: 'object',
          additionalProperties: false,
          default: {},
          properties: {
            prepareBackupDisk: {
              description: 'For prepareBackupDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            teardownBackupDisk: {
              description: 'For teardownBackupDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            hotplugDisk: {
              description: 'For hotplugDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            hotunplugDisk: {
              description: 'For hotunplugDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 660,
            },
            getChangedBlocks: {
              description: 'For getChangedBlocks.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            cancelJob: {
              description: 'For cancelJob.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            confirmCheckpoint: {
              description: 'For confirmCheckpoint.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            createSnapshot: {
              description: 'For createSnapshot.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            deleteCheckpoint: {
              description: 'For deleteCheckpoint.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            deleteSnapshot: {
              description: 'For deleteSnapshot.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            drain: {
              description: 'For drain.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            getExport: {
              description: 'For getExport.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            getHostInfo: {
              description: 'For getHostInfo.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 10,
            },
            getJob: {
              description: 'For getJob.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            getSnapConfig: {
              description: 'For getSnapConfig.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            listBackups: {
              description: 'For listBackups.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            listCheckpoints: {
              description: 'For listCheckpoints.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            listDisks: {
              description: 'For listDisks.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            listExports: {
              description: 'For listExports.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            listJobs: {
              description: 'For listJobs.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            listSnapshots: {
              description: 'For listSnapshots.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 60,
            },
            mountDisk: {
              description: 'For mountDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            redefineCheckpoints: {
              description: 'For redefineCheckpoints.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            renewBackup: {
              description: 'For renewBackup.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            renewExport: {
              description: 'For renewExport.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 30,
            },
            'rpc.discover': {
              description: 'For rpc.discover.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 10,
            },
            startBackup: {
              description: 'For startBackup.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            stopBackup: {
              description: 'For stopBackup.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 180,
            },
            unmountDisk: {
              description: 'For unmountDisk.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 120,
            },
            waitEvents: {
              description: 'For waitEvents.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 330,
            },
          },
        },
        stateSeconds: {
          description:
            'How long a state may last in which a thing can be used by nobody, in seconds. Then the attempt to end it is given up, said in the log, and begun again from the records.',
          type: 'object',
          additionalProperties: false,
          default: {},
          properties: {
            recovery: {
              description:
                "From the daemon's start until verbs are answered; what is not in order by then is gone on with meanwhile.",
              type: 'integer',
              minimum: 1,
              maximum: 600,
              default: 30,
            },
            halfWay: {
              description:
                'An attempt to finish or take back an export, a backup or a snapshot that was left half-way. A snapshot that libvirt has made is merged then, which takes as long as it takes and is not cut short.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 3600,
              default: 60,
            },
            detach: {
              description:
                'How long a guest may take to let go of a drive that is unplugged because its export ends, or because a hot-plug failed.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 3600,
              default: 30,
            },
            leaseEnd: {
              description: 'An attempt to end what its lease has left.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 3600,
              default: 120,
            },
            libvirtAway: {
              description:
                'How long a merge waits for a libvirt that went away, before its job fails; QEMU goes on with it meanwhile.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 86400,
              default: 600,
            },
            frozen: {
              description:
                'How long a guest stays frozen while libvirt makes a snapshot or begins a backup; then that is given up and undone.',
              'x-reload': true,
              type: 'integer',
              minimum: 1,
              maximum: 300,
              default: 20,
            },
          },
        },
      },
    },
  },
};
