import { realpath, stat } from 'node:fs/promises';
import { type ChainFile, chainFiles } from '../domains/block-commit.js';
import type { DomainState } from '../domains/lookup.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { SnapshotDiskRecord } from './snapshot-record.js';

/** What is to be merged on one disk: the layer above the frozen one goes into the frozen one. */
export interface DiskMerge {
  target: string;
  /** The frozen layer. */
  base: ChainFile;
  baseFormat: string;
  /** The layer right above it, which is then gone. */
  top: ChainFile;
  /** Whether the VM writes to `top`. */
  active: boolean;
  /** Bytes that `top` takes up: what progress is measured in. */
  bytes: number;
}

/**
 * What is to be merged on a disk, as its chain is now. Null where nothing is: the VM writes to the frozen layer again,
 * or that is no longer below the disk.
 */
export async function planDiskMerge(
  { config, running }: DomainState,
  { target, frozen, frozenFormat }: Pick<SnapshotDiskRecord, 'target' | 'frozen' | 'frozenFormat'>,
  allowedRoots: readonly string[],
): Promise<DiskMerge | null> {
  const disk = config.disks.find((one) => one.target === target);
  const file = await fileAt(frozen);
  if (disk === undefined || file === undefined || disk.source.path === null) return null;
  const top = { path: disk.source.path, format: knownFormat(disk.source.format ?? 'raw', disk.source.path) };
  const chain = running ? await chainFiles(disk) : await readChain(top, allowedRoots);
  const at = chain.findIndex((layer) => isSameFile(layer.file, file));
  const base = chain[at];
  const above = chain[at - 1];
  if (base === undefined || above === undefined) return null;
  const { blocks } = await stat(above.path);
  return {
    target,
    base: { path: base.path, file: base.file },
    baseFormat: frozenFormat,
    top: { path: above.path, file: above.file },
    active: at === 1,
    bytes: Math.max(blocks * 512, 1),
  };
}

/** The disks of a snapshot as libvirt knows them now: it follows what merges of other snapshots do to the files. */
export async function disksOf({ disks }: SnapshotFacts): Promise<SnapshotDiskRecord[]> {
  const found: SnapshotDiskRecord[] = [];
  for (const { target, active, frozen } of disks) {
    if (active === null || frozen === null) continue;
    found.push({
      target,
      frozen: await real(frozen.path),
      frozenFormat: frozen.format,
      active: await real(active),
      activeFile: null,
    });
  }
  return found;
}

async function real(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}
