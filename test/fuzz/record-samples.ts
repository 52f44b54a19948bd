/** Records as the daemon writes them, of every kind and in every state, for directories of the test's own. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Drive, Transport } from '../../agent/api/generated.js';
import type { ThawRecord } from '../../agent/domains/thaw-record.js';
import { DRIVE_RECORD_VERSION, type DriveRecord, driveRecordId } from '../../agent/exports/drive-record.js';
import { EXPORT_RECORD_VERSION, type ExportRecord, type ExportServer } from '../../agent/exports/record.js';
import { ENTRY_VERSION, type GatewayEntry } from '../../agent/gateway/entry.js';
import type { ProcessIdentity } from '../../agent/host/identity.js';
import type { LeaseRecord } from '../../agent/host/lease.js';
import type { BackupRecord } from '../../agent/points-in-time/backup-record.js';
import { type CheckpointRecord, withinVm } from '../../agent/points-in-time/checkpoint-record.js';
import type { JobRecord } from '../../agent/points-in-time/job-record.js';
import type { SnapshotRecord } from '../../agent/points-in-time/snapshot-record.js';
import type { SeededRandom } from '../golden/random.js';

/** The directories that the records name. */
export interface Places {
  readonly run: string;
  readonly scratch: string;
  readonly images: string;
  /** Somebody's process, which the record of an export may name. */
  readonly stranger: ProcessIdentity;
}

export interface Sample {
  readonly folder: 'exports' | 'drives' | 'backups' | 'checkpoints' | 'snapshots' | 'jobs' | 'thaws';
  /** The name of its file, without `.json`. */
  readonly id: string;
  readonly record: object;
}

const vm = { uuid: '01010101-0101-0101-0101-010101010101', name: 'web1' };
const created = '2026-11-22T15:00:00.000Z';
const ended = () => new Date().toISOString();

export const currentBoot = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

export function sample(random: SeededRandom, places: Places, number: number): Sample {
  const others = [driveSample, backupSample, checkpointSample, snapshotSample, jobSample, thawSample];
  return random.pick([exportSample, exportSample, ...others])(random, places, number);
}

/** One that is not over while the test lasts, of this boot or of an earlier one. */
function leaseSample(random: SeededRandom): LeaseRecord | null {
  if (random.chance(0.5)) return null;
  const bootId = random.chance(0.5) ? currentBoot() : vm.uuid;
  return { seconds: 3600, bootId, endsAt: 2 ** 50 + 0.25, expires: '2999-01-01T00:00:00.000Z' };
}

function exportSample(random: SeededRandom, { run, images, stranger }: Places, number: number): Sample {
  const exportId = `e${number}`;
  const live = random.chance(0.4);
  const own = random.chance(0.5);
  const backupId = own ? `_${exportId}` : `b${number}`;
  const access = random.pick(
    live ? (['read-only', 'scratch'] as const) : (['read-only', 'scratch', 'read-write'] as const),
  );
  const use = random.pick(['backup', 'mount'] as const);
  const as = use === 'mount' && random.chance(0.3) ? 'file' : 'nbd';
  const state = random.pick<ExportRecord['state']>(['starting', 'ready', 'failed', 'closing', 'ended']);
  const over = state === 'ended';
  const transport = random.pick<Transport>([
    { type: 'unix' },
    { type: 'unix', user: 'root' },
    { type: 'tcp', tls: 'psk' },
    { type: 'tcp', tls: 'x509', clients: ['dns:appliance.example', 'subject:CN=appliance'] },
  ]);
  const directory = `${run}/exports/${exportId}`;
  const base = access === 'scratch' ? `${directory}/base.sock` : `${directory}/nbd.sock`;
  const socket = live ? `${run}/backups/${backupId}/nbd.sock` : base;
  const front = access === 'scratch' ? `${directory}/nbd.sock` : socket;
  const drive: Drive = {
    ...({
      type: 'network',
      device: 'disk',
      protocol: 'nbd',
      name: exportId,
      tls: false,
      format: 'raw',
    } as const),
    ...{
      hosts: [
        transport.type === 'tcp'
          ? { transport: 'tcp', name: 'host.example', port: 10809 }
          : { transport: 'unix', socket: front },
      ],
      readonly: access === 'read-only',
      serial: 'aaaaabbbbbcccccddddd',
      capacity: 2 ** 20,
    },
  };
  const server: ExportServer = live
    ? { kind: 'backup', backupId, socket, exportName: 'vda' }
    : {
        kind: 'qemu-nbd',
        process: { name: `vmdiskd-export-${exportId}`, identity: stranger },
        socket,
        exportName: exportId,
      };
  const bits = `${run}/exports/${exportId}/${live ? 'data' : 'map'}.bits`;
  const record: ExportRecord = {
    version: EXPORT_RECORD_VERSION,
    kind: 'export',
    exportId,
    use,
    params: live
      ? {
          exportId,
          vmId: vm.uuid,
          disk: 'vda',
          access,
          as,
          inlineExtents: 1000,
          transport,
        }
      : {
          exportId,
          path: `${images}/a`,
          format: 'raw',
          access,
          as,
          inlineExtents: 10,
          transport,
        },
    owner: 'unix',
    created,
    state,
    error: state === 'failed' ? { name: 'ExportFailed', message: 'its qemu-nbd has died.' } : null,
    vm: live ? vm : null,
    disk: live ? 'vda' : null,
    pointInTime: live
      ? { kind: 'backup', backupId, own }
      : random.pick([{ kind: 'image' }, { kind: 'snapshot', snapshotId: 's' }]),
    image: { path: `${images}/a`, format: 'raw' },
    layers: live ? [] : [{ path: `${images}/a`, format: 'raw', file: { dev: 1, ino: 2 } }],
    blocksStart: !live,
    lease: leaseSample(random),
    serverName: `vmdiskd-export-${exportId}`,
    server: over || state === 'starting' ? null : server,
    overlay:
      over || state === 'starting' || access !== 'scratch'
        ? null
        : {
            process: { name: `vmdiskd-overlay-${exportId}`, identity: stranger },
            ...{ socket: front, exportName: exportId, file: { dev: 1, ino: 3 }, limit: 2 ** 30 },
          },
    file:
      over || state === 'starting' || as === 'nbd'
        ? null
        : {
            process: { name: `vmdiskd-file-${exportId}`, identity: stranger },
            ...{ file: `${directory}/disk`, size: 2 ** 20 },
          },
    newImage:
      access === 'read-write' && !over && random.chance(0.3)
        ? {
            temporary: `${images}/.vmdiskd-0123456789abcdef.new`,
            file: random.pick([null, { dev: 1, ino: 4 }]),
          }
        : null,
    drive: state === 'starting' ? null : drive,
    map:
      over || state === 'starting' || use === 'mount'
        ? null
        : {
            ...({
              mode: 'full',
              since: null,
              reason: null,
              origin: 'allocation',
              metaContext: null,
            } as const),
            granularity: 65_536,
            source: live
              ? { kind: 'allocation', data: { file: bits, granularity: 512 } }
              : random.pick([
                  { kind: 'depth', layers: 1 },
                  { kind: 'bits', file: bits, granularity: 65_536 },
                ]),
          },
    checkpoint: live && own ? 'c' : null,
    decided: state === 'closing' || over ? 'success' : null,
    outcome: over ? { id: 'c', state: 'kept' } : null,
    attachments:
      state === 'ready' && random.chance(0.5)
        ? [
            {
              vm,
              target: 'sda',
              bus: 'scsi',
              alias: `ua-vmdiskd-${drive.serial}`,
              persistent: false,
              state: 'attached',
            },
          ]
        : [],
    ended: over ? ended() : null,
  };
  return { folder: 'exports', id: exportId, record };
}

function driveSample(random: SeededRandom, _: Places, number: number): Sample {
  const serial = `drive${'abcdef'[number % 6]}`.padEnd(20, 'a');
  const state = random.pick(['attaching', 'attached'] as const);
  const record: DriveRecord = {
    ...({ version: DRIVE_RECORD_VERSION, kind: 'drive', created, ended: null, owner: 'unix' } as const),
    drive: {
      ...({ type: 'network', device: 'disk', protocol: 'nbd', name: `e${number}`, format: 'raw' } as const),
      ...{ hosts: [{ transport: 'tcp', name: 'host.example', port: 10_809 }], tls: true, readonly: true },
      ...(random.chance(0.5) && { tlsHostname: 'gw.example' }),
      ...{ serial, capacity: 2 ** 20 },
    },
    attachment: {
      ...{ vm, target: 'vdb', bus: 'virtio', alias: `ua-vmdiskd-${serial}`, persistent: false, state },
    },
  };
  return { folder: 'drives', id: driveRecordId(vm.uuid, serial), record };
}

/** The gateway's entry of a network export; undefined of any other record. */
export function entrySample(random: SeededRandom, { run }: Places, record: object): GatewayEntry | undefined {
  const { exportId, params, server, lease } = record as ExportRecord;
  const transport = params?.transport;
  if (transport?.type !== 'tcp') return undefined;
  const socket = server?.socket ?? `${run}/exports/${exportId}/nbd.sock`;
  return {
    ...({ version: ENTRY_VERSION, kind: 'network-export', exportId, lease } as const),
    access:
      transport.tls === 'psk'
        ? { type: 'psk', identity: exportId, key: 'a5'.repeat(32) }
        : { type: 'x509', clients: transport.clients ?? [] },
    server: { socket, exportName: server?.exportName ?? exportId },
    ...{ extendedHeaders: random.chance(0.5), connections: 12 },
  };
}

function backupSample(random: SeededRandom, { run, scratch, images }: Places, number: number): Sample {
  const own = random.chance(0.3);
  const backupId = own ? `_e${number}` : `b${number}`;
  const state = random.pick<BackupRecord['state']>(['starting', 'running', 'failed', 'ending', 'ended']);
  const record: BackupRecord = {
    ...({ version: 1, kind: 'backup', created, backupId, request: '{}', owner: 'unix', vm, state } as const),
    ended: state === 'ended' ? ended() : null,
    exportId: own ? `e${number}` : null,
    error: state === 'failed' ? { name: 'ScratchFull', message: 'the scratch space ran out.' } : null,
    socket: `${run}/backups/${backupId}/nbd.sock`,
    quiesce: random.pick(['no', 'try', 'require']),
    quiesced: false,
    lease: own ? null : leaseSample(random),
    disks: [
      {
        ...({
          target: 'vda',
          path: `${images}/a`,
          capacity: 2 ** 20,
          mode: 'incremental',
          since: 'monday',
        } as const),
        ...{ reason: null, tracked: true, exportName: 'vda', scratch: `${scratch}/${backupId}/vda` },
      },
    ],
    checkpoint: 'c',
    decided: state === 'ending' ? 'success' : null,
    outcome: state === 'ended' ? { id: 'c', state: 'deleted' } : null,
  };
  return { folder: 'backups', id: backupId, record };
}

function checkpointSample(random: SeededRandom, { images }: Places, number: number): Sample {
  const checkpoint = `c${number}`;
  const state = random.pick<CheckpointRecord['state']>(['making', 'pending', 'good', 'deleting', 'ended']);
  const record: CheckpointRecord = {
    ...({ version: 1, kind: 'checkpoint', created, vm, checkpoint, parent: 'monday', state } as const),
    ended: state === 'ended' ? ended() : null,
    madeBy: { kind: 'backup', id: `b${number}` },
    disks: [
      { target: 'vda', capacity: 2 ** 20, files: [{ path: `${images}/a`, dev: 1, ino: 2, born: '17' }] },
    ],
    creationTime: '1700000000',
    xml: '<domaincheckpoint/>',
  };
  return { folder: 'checkpoints', id: withinVm(vm.uuid, checkpoint), record };
}

function snapshotSample(random: SeededRandom, { images }: Places, number: number): Sample {
  const snapshotId = `s${number}`;
  const state = random.pick<SnapshotRecord['state']>(['making', 'ready', 'merging', 'ended']);
  const record: SnapshotRecord = {
    ...({
      version: 1,
      kind: 'snapshot',
      snapshotId,
      created,
      request: null,
      owner: 'unix',
      vm,
      state,
    } as const),
    ended: state === 'ended' ? ended() : null,
    quiesce: random.pick(['no', 'try']),
    quiesced: false,
    disks: [
      {
        ...{
          target: 'vda',
          frozen: `${images}/a`,
          frozenFormat: 'qcow2',
          active: `${images}/a.vmdiskd-0123456789ab.qcow2`,
        },
        activeFile: state === 'merging' ? { dev: 1, ino: 2 } : null,
        // What a merge has noted; records of older programs have none of it.
        ...(state === 'merging' &&
          random.chance(0.5) && {
            goingOver: random.chance(0.5),
            above: random.chance(0.5) ? { dev: 1, ino: 3 } : null,
            byLibvirt: random.chance(0.5),
            merged: random.chance(0.5),
          }),
      },
    ],
    domainXml: '<domain/>',
    checkpoint: null,
    jobId: null,
  };
  return { folder: 'snapshots', id: withinVm(vm.uuid, snapshotId), record };
}

function jobSample(random: SeededRandom, _: Places, number: number): Sample {
  const jobId = randomUUID();
  const state = random.pick<JobRecord['state']>(['running', 'done', 'failed', 'cancelled']);
  const drained = random.chance(0.3);
  const failure = { name: drained ? 'DrainFailed' : 'MergeFailed', message: 'It failed.' } as const;
  const left = { kind: 'backup', id: `b${number}`, error: failure } as const;
  const result = { exports: [`e${number}`], backups: [], left: state === 'failed' ? [left] : [] };
  const record: JobRecord = {
    ...({
      version: 1,
      kind: 'job',
      jobId,
      owner: 'unix',
      work: drained ? 'drain' : 'deleteSnapshot',
      subject: drained ? 'host' : `s${number}`,
      state,
    } as const),
    vm: !drained && random.chance(0.8) ? vm : null,
    created,
    ended: state === 'running' ? null : ended(),
    progress: { current: 1, total: 2 },
    error: state === 'failed' ? failure : null,
    ...(drained && state !== 'running' && { result }),
  };
  return { folder: 'jobs', id: jobId, record };
}

function thawSample(): Sample {
  const uuid = randomUUID();
  const record: ThawRecord = { version: 1, kind: 'thaw', created, ended: null, vm: { ...vm, uuid } };
  return { folder: 'thaws', id: uuid, record };
}
