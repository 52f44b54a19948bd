/** What there is on a private host that the agent may have made, and what its records say. */
import { type Dirent, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import type { DriveRecord } from '../../agent/exports/drive-record.js';
import type { ExportRecord } from '../../agent/exports/record.js';
import { entryIds, type GatewayEntry, readEntry } from '../../agent/gateway/entry.js';
import type { BackupRecord } from '../../agent/points-in-time/backup-record.js';
import type { CheckpointRecord } from '../../agent/points-in-time/checkpoint-record.js';
import type { JobRecord } from '../../agent/points-in-time/job-record.js';
import type { SnapshotRecord } from '../../agent/points-in-time/snapshot-record.js';
import type { Host, HostProcess } from '../host/host.js';
import { socketsOf } from './judge-host.js';
import { type VmFacts, vmFacts } from './libvirt-facts.js';

const STATE = '/var/lib/vmdiskd';
const RUN = '/run/vmdiskd';
const IMAGES = '/var/lib/libvirt/images';
const GREETING_MS = 5000;

export interface Records {
  exports: ExportRecord[];
  drives: DriveRecord[];
  backups: BackupRecord[];
  checkpoints: CheckpointRecord[];
  snapshots: SnapshotRecord[];
  jobs: JobRecord[];
}
const KINDS = ['exports', 'drives', 'backups', 'checkpoints', 'snapshots', 'jobs'] as const;

export interface HostFacts {
  records: Records;
  vms: VmFacts[];
  /** `serves`: the name that the agent has started it under. */
  processes: (HostProcess & { serves: string | null })[];
  /** Below /run/vmdiskd and the scratch directory: directory to its files. */
  exportDirs: Map<string, string[]>;
  backupDirs: Map<string, string[]>;
  /** The gateway's, by export; null where it would let nobody in by it. */
  entries: Map<string, GatewayEntry | null>;
  scratchDirs: Map<string, string[]>;
  /** Files where only records and directories of the agent should be. */
  strays: string[];
  mounts: string[];
  /** File names under /var/lib/libvirt/images. */
  images: string[];
  sockets: Map<string, SocketFacts>;
  /** Bitmaps in the images of VMs that are off, by VM. */
  storedBitmaps: Map<string, string[]>;
}

export interface SocketFacts {
  uid: number;
  gid: number;
  mode: number;
  /** Whether an NBD server greets whoever connects. */
  greets: boolean;
}

/** @param vms names of the VMs that are looked at */
export async function hostFacts(host: Host, vms: readonly string[]): Promise<HostFacts> {
  const { records, strays } = readRecords(host);
  const facts = await vmFacts(host, vms);
  const sockets = new Map<string, SocketFacts>();
  for (const socket of new Set(records.exports.flatMap(socketsOf))) {
    if (existsSync(host.path(socket))) sockets.set(socket, await socketFacts(host.path(socket)));
  }
  const storedBitmaps = new Map<string, string[]>();
  for (const { name, pid, files } of facts) {
    const bitmaps: string[] = [];
    if (pid === null) for (const file of files) bitmaps.push(...(await bitmapsOf(host, file)));
    storedBitmaps.set(name, [...new Set(bitmaps)]);
  }
  return {
    records,
    vms: facts,
    processes: (await host.processes()).map((process) => ({
      ...process,
      serves: servesAs(host, process.pid),
    })),
    exportDirs: directories(host.path(`${RUN}/exports`)),
    backupDirs: directories(host.path(`${RUN}/backups`)),
    entries: new Map(entryIds(host.path(RUN)).map((id) => [id, readEntry(host.path(RUN), id) ?? null])),
    scratchDirs: directories(host.path(`${STATE}/scratch`)),
    strays: [
      ...strays,
      ...others(host.path(STATE), [...KINDS, 'thaws', 'events', 'scratch', 'lock.json']).map(
        (name) => `${STATE}/${name}`,
      ),
      ...others(host.path(RUN), [
        'exports',
        'backups',
        'gateway',
        'root',
        'lock.json',
        'words.json',
        'words.json.new',
        'vmdiskd.sock',
      ]).map((name) => `${RUN}/${name}`),
      ...others(host.path(`${RUN}/gateway`), ['exports', 'lock.json', 'gateway.sock']).map(
        (name) => `${RUN}/gateway/${name}`,
      ),
      ...[...directories(host.path(`${RUN}/gateway/exports`)).keys()]
        .filter((name) => !name.endsWith('.json'))
        .map((name) => `${RUN}/gateway/exports/${name}`),
    ],
    mounts: (await host.leftovers()).filter((line) => line.startsWith('mount ')),
    images: readdirSync(host.path(IMAGES)),
    sockets,
    storedBitmaps,
  };
}

/** All records, and what lies among them and is none. */
export function readRecords(host: Host): { records: Records; strays: string[] } {
  const records: Records = {
    exports: [],
    drives: [],
    backups: [],
    checkpoints: [],
    snapshots: [],
    jobs: [],
  };
  const strays: string[] = [];
  for (const kind of KINDS) {
    const directory = host.path(`${STATE}/${kind}`);
    for (const name of existsSync(directory) ? readdirSync(directory) : []) {
      try {
        if (!name.endsWith('.json')) throw new Error('no record');
        records[kind].push(JSON.parse(readFileSync(`${directory}/${name}`, 'utf8')));
      } catch {
        strays.push(`${STATE}/${kind}/${name}`);
      }
    }
  }
  return { records, strays };
}

function directories(parent: string): Map<string, string[]> {
  const entries: Dirent[] = existsSync(parent) ? readdirSync(parent, { withFileTypes: true }) : [];
  return new Map(
    entries.map((entry) => [entry.name, entry.isDirectory() ? readdirSync(`${parent}/${entry.name}`) : []]),
  );
}

function others(parent: string, known: readonly string[]): string[] {
  return (existsSync(parent) ? readdirSync(parent) : []).filter((name) => !known.includes(name));
}

function servesAs(host: Host, pid: number): string | null {
  try {
    const environment = readFileSync(`/proc/${host.pid}/root/proc/${pid}/environ`, 'utf8').split('\0');
    return environment.find((entry) => entry.startsWith('VMDISKD_PROCESS='))?.slice(16) ?? null;
  } catch {
    return null; // it has ended
  }
}

async function socketFacts(path: string): Promise<SocketFacts> {
  const { uid, gid, mode } = statSync(path);
  const greets = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    const settle = (value: boolean) => {
      socket.destroy();
      resolve(value);
    };
    socket.setTimeout(GREETING_MS, () => settle(false));
    socket.once('data', (data) => settle(data.toString('latin1').startsWith('NBDMAGIC')));
    socket.once('error', () => settle(false)).once('close', () => settle(false));
  });
  return { uid, gid, mode: mode & 0o777, greets };
}

async function bitmapsOf(host: Host, file: string): Promise<string[]> {
  const { stdout } = await host.run('qemu-img', ['info', '--backing-chain', '--output=json', '-U', file]);
  if (stdout.trim() === '') return [];
  const layers: { 'format-specific'?: { data?: { bitmaps?: { name: string }[] } } }[] = JSON.parse(stdout);
  return layers.flatMap((layer) => (layer['format-specific']?.data?.bitmaps ?? []).map(({ name }) => name));
}
