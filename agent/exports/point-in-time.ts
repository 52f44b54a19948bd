import { realpath } from 'node:fs/promises';
import type { DomainDisk } from '../domains/config.js';
import { findDisk } from '../domains/disks.js';
import { libvirtFault } from '../domains/faults.js';
import { type DomainState, readAllDomains, readDomain } from '../domains/lookup.js';
import { refuseMigrating, refuseMovedAway } from '../domains/migration.js';
import { AgentError } from '../errors.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { type ImageFormat, knownFormat, type Layer, readChain } from '../images/chain.js';
import type { LibvirtClient } from '../libvirt/index.js';
import { findFrozen } from '../points-in-time/frozen-disk.js';
import type { SnapshotRegistry } from '../points-in-time/snapshot-record.js';
import type { ExportParams } from './record.js';

/** Files that hold the state of a disk that an export shows. */
export interface ImagePoint {
  at: { kind: 'image' } | { kind: 'snapshot'; snapshotId: string };
  vm: { uuid: string; name: string } | null;
  /** The VM and its disk; null for an image by path. */
  of: { state: DomainState; disk: DomainDisk } | null;
  /** Top first, checked. */
  layers: Layer[];
  /** Whether a shut-off VM cannot start while a server has the image open. */
  blocksStart: boolean;
}

/** The instant of a backup job of a running VM. */
export interface LivePoint {
  at: { kind: 'backup'; backupId: string | null };
  of: { state: DomainState; disk: DomainDisk };
}

export type PointInTime = ImagePoint | LivePoint;

export function isLive(point: PointInTime): point is LivePoint {
  return point.at.kind === 'backup';
}

interface Sources {
  libvirt: LibvirtClient;
  snapshots: SnapshotRegistry;
  allowedRoots: readonly string[];
  signal: AbortSignal;
}

/** Finds the files behind what a caller has named. @throws AgentError */
export async function findPointInTime(params: ExportParams, sources: Sources): Promise<PointInTime> {
  if (params.path !== undefined && params.format !== undefined) {
    return imageAsItIs({ path: params.path, format: params.format }, null, sources);
  }
  const state = await readDomain(sources.libvirt, params.vmId ?? '', sources.signal);
  await refuseMigrating(sources.libvirt, state.domain, sources.signal);
  await refuseMovedAway(sources.libvirt, state.domain, sources.signal);
  const disk = findDisk(state, params.disk ?? '');
  if (params.snapshotId !== undefined) return frozen(state, disk, params.snapshotId, sources);
  if (params.access === 'read-write' && state.running) throw runs(state, disk);
  if (params.backupId !== undefined || state.running) {
    return { at: { kind: 'backup', backupId: params.backupId ?? null }, of: { state, disk } };
  }
  return imageAsItIs(imageOf(disk), { state, disk }, sources);
}

function runs({ domain: { name, uuid } }: DomainState, { target }: DomainDisk): AgentError {
  return new AgentError(
    'DiskInUse',
    `${name} runs and writes to ${target} itself; shut it off to write there, or use access "scratch".`,
    { vmId: uuid, disk: target },
  );
}

async function imageAsItIs(
  image: { path: string; format: ImageFormat },
  of: ImagePoint['of'],
  sources: Sources,
): Promise<ImagePoint> {
  const layers = await readChain(image, sources.allowedRoots);
  const users = await usersOf(layers, sources);
  refuseWritten(users, of);
  const vm = of === null ? null : { uuid: of.state.domain.uuid, name: of.state.domain.name };
  return {
    at: { kind: 'image' },
    vm,
    of,
    layers,
    blocksStart: users.some(({ layer }) => layer === layers[0]),
  };
}

/** @throws AgentError `DiskInUse` where a running VM writes to a layer: QEMU's own locks do not tell for raw images */
function refuseWritten(users: readonly LayerUser[], of: ImagePoint['of']): void {
  const writer = users.find(({ state }) => state.running);
  if (writer === undefined) return;
  const { layer, state } = writer;
  throw new AgentError(
    'DiskInUse',
    `${state.domain.name} runs and writes to ${layer.path}; name the VM and a snapshot of it, or shut it off.`,
    { vmId: state.domain.uuid, ...(of !== null && { disk: of.disk.target }) },
  );
}

/** A domain that writes to a layer, or will when it starts. */
interface LayerUser {
  state: DomainState;
  layer: Layer;
}

async function usersOf(layers: readonly Layer[], { libvirt, signal }: Sources): Promise<LayerUser[]> {
  const users: LayerUser[] = [];
  for (const state of await readAllDomains(libvirt, signal)) {
    for (const { source, readonly } of state.config.disks) {
      if (readonly || source.path === null) continue;
      const file = await fileAt(source.path).catch(() => undefined); // a disk whose file is gone is nobody's
      const layer = layers.find((one) => file !== undefined && isSameFile(one.file, file));
      if (layer !== undefined) users.push({ state, layer });
    }
  }
  return users;
}

async function frozen(
  state: DomainState,
  disk: DomainDisk,
  snapshotId: string,
  sources: Sources,
): Promise<ImagePoint> {
  const { domain } = state;
  const about = { vmId: domain.uuid, disk: disk.target };
  const { source } = await findFrozen(sources, state, disk, snapshotId, sources.signal);
  const path = source.path === null ? null : await realpath(source.path).catch(() => null);
  if (path === null || !(await isBelowActive(path, state, disk, sources))) {
    throw new AgentError(
      'NoSuchSnapshot',
      `What the snapshot "${snapshotId}" froze (${source.path ?? source.type}) is no longer below ${disk.target} of ` +
        `${domain.name}: it was merged, or the disk was exchanged. Take a new snapshot.`,
      about,
    );
  }
  if (state.running) await refuseDuringBlockJob(state, disk, snapshotId, sources);
  const layers = await readChain(
    { path, format: knownFormat(source.format ?? 'raw', path) },
    sources.allowedRoots,
  );
  refuseWritten(await usersOf(layers, sources), { state, disk });
  return {
    at: { kind: 'snapshot', snapshotId },
    vm: { uuid: domain.uuid, name: domain.name },
    of: { state, disk },
    layers,
    blocksStart: false,
  };
}

/** Whether the file is one that the VM reads through its active layer, and does not write to. */
async function isBelowActive(
  path: string,
  { running }: DomainState,
  disk: DomainDisk,
  { allowedRoots }: Sources,
): Promise<boolean> {
  const below = running
    ? disk.backing.map((layer) => layer.path)
    : (await readChain(imageOf(disk), allowedRoots)).slice(1).map((layer) => layer.path);
  for (const candidate of below) {
    if (candidate !== null && (await realpath(candidate).catch(() => null)) === path) return true;
  }
  return false;
}

/** A merge changes the layers below it: what a snapshot froze is then no longer to be had. */
async function refuseDuringBlockJob(
  { domain }: DomainState,
  disk: DomainDisk,
  snapshotId: string,
  { libvirt, signal }: Sources,
): Promise<void> {
  const about = { vmId: domain.uuid, disk: disk.target };
  const job = await libvirt.block.getJobInfo(domain, disk.target, { signal }).catch((cause: unknown) => {
    throw libvirtFault(
      cause,
      'SnapshotInUse',
      `ask for block jobs on ${disk.target} of ${domain.name}`,
      about,
    );
  });
  if (job === null) return;
  throw new AgentError(
    'SnapshotInUse',
    `A block job runs on ${disk.target} of ${domain.name} and may change what the snapshot "${snapshotId}" froze; ` +
      'try again when it has ended.',
    { ...about, retryable: true },
  );
}

/** A supported disk (`findDisk`) has a path and a known format. */
function imageOf({ source }: DomainDisk): { path: string; format: ImageFormat } {
  const path = source.path ?? '';
  return { path, format: knownFormat(source.format ?? 'raw', path) };
}
