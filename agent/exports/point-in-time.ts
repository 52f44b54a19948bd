import { realpath, stat } from 'node:fs/promises';
import type { PrepareBackupDiskParams } from '../api/generated.js';
import type { DomainDisk } from '../domains/config.js';
import { findDisk } from '../domains/disks.js';
import { libvirtFault } from '../domains/faults.js';
import { type DomainState, readAllDomains, readDomain } from '../domains/lookup.js';
import { frozenSource } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import { type ImageFormat, knownFormat, type Layer, readChain } from '../images/chain.js';
import type { LibvirtClient } from '../libvirt/index.js';

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
  allowedRoots: readonly string[];
  signal: AbortSignal;
}

/** Finds the files behind what a caller has named. @throws AgentError */
export async function findPointInTime(
  params: PrepareBackupDiskParams,
  sources: Sources,
): Promise<PointInTime> {
  if (params.path !== undefined && params.format !== undefined) {
    return imageAsItIs({ path: params.path, format: params.format }, null, sources);
  }
  const state = await readDomain(sources.libvirt, params.vmId ?? '', sources.signal);
  const disk = findDisk(state, params.disk ?? '');
  if (params.snapshotId !== undefined) return frozen(state, disk, params.snapshotId, sources);
  if (params.backupId !== undefined || state.running) {
    return { at: { kind: 'backup', backupId: params.backupId ?? null }, of: { state, disk } };
  }
  return imageAsItIs(imageOf(disk), { state, disk }, sources);
}

async function imageAsItIs(
  image: { path: string; format: ImageFormat },
  of: ImagePoint['of'],
  sources: Sources,
): Promise<ImagePoint> {
  const layers = await readChain(image, sources.allowedRoots);
  const users = await usersOf(layers[0], sources);
  const writer = users.find(({ running }) => running);
  if (writer !== undefined) {
    throw new AgentError(
      'DiskInUse',
      `${writer.domain.name} runs and writes to ${image.path}; name the VM and a snapshot of it, or shut it off.`,
      { vmId: writer.domain.uuid, ...(of !== null && { disk: of.disk.target }) },
    );
  }
  const vm = of === null ? null : { uuid: of.state.domain.uuid, name: of.state.domain.name };
  return { at: { kind: 'image' }, vm, of, layers, blocksStart: users.length > 0 };
}

/**
 * The domains that write to a file, or will when they start. QEMU's own locks do not tell for raw images.
 */
async function usersOf(top: Layer | undefined, { libvirt, signal }: Sources): Promise<DomainState[]> {
  const users: DomainState[] = [];
  for (const state of await readAllDomains(libvirt, signal)) {
    for (const { source, readonly } of state.config.disks) {
      if (readonly || source.path === null) continue;
      const file = await stat(source.path).catch(() => undefined); // a disk whose file is gone is nobody's
      if (file?.dev === top?.file.dev && file?.ino === top?.file.ino) {
        users.push(state);
        break;
      }
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
  const source = await frozenSource(sources.libvirt, state, disk, snapshotId, sources.signal);
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
  return {
    at: { kind: 'snapshot', snapshotId },
    vm: { uuid: domain.uuid, name: domain.name },
    of: { state, disk },
    layers: await readChain(
      { path, format: knownFormat(source.format ?? 'raw', path) },
      sources.allowedRoots,
    ),
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
