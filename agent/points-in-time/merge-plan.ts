import { realpath, stat } from 'node:fs/promises';
import { type ChainFile, chainFiles } from '../domains/block-commit.js';
import type { DomainState } from '../domains/lookup.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { fileAt, isSameFile } from '../host/open-files.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { SnapshotDiskRecord } from './snapshot-record.js';

/** What is to be merged on one disk: a snapshot's overlay, into the layer below it, which is what it froze. */
export interface DiskMerge {
  target: string;
  /** The overlay, which is then gone. */
  top: ChainFile;
  base: ChainFile;
  /** Whether the VM writes to `top`. */
  active: boolean;
  /** Bytes that `top` takes up: what progress is measured in. */
  bytes: number;
}

/**
 * What is to be merged on a disk, as its chain is now. Null where nothing is: the snapshot's overlay is out of the chain,
 * or has no layer below it any more. It is found by itself and not by its place: once it is gone, what then lies above
 * the frozen layer is the overlay of a later snapshot.
 */
export async function planDiskMerge(
  { config, running }: DomainState,
  { target, active, activeFile }: Pick<SnapshotDiskRecord, 'target' | 'active' | 'activeFile'>,
  allowedRoots: readonly string[],
): Promise<DiskMerge | null> {
  const disk = config.disks.find((one) => one.target === target);
  const file = await fileAt(active);
  if (disk === undefined || disk.source.path === null || file === undefined) return null;
  // Another file may have got the name, or the number, of one that was removed; not both.
  if (activeFile !== null && !isSameFile(file, activeFile)) return null;
  const image = {
    path: disk.source.path,
    format: knownFormat(disk.source.format ?? 'raw', disk.source.path),
  };
  const chain: ChainFile[] = running ? await chainFiles(disk) : await readChain(image, allowedRoots);
  const at = chain.findIndex((layer) => isSameFile(layer.file, file));
  const top = chain[at];
  const base = chain[at + 1];
  if (at < 0 || top === undefined || base === undefined) return null;
  const { blocks } = await stat(top.path);
  return {
    target,
    top: { path: top.path, file: top.file },
    base: { path: base.path, file: base.file },
    active: at === 0,
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
