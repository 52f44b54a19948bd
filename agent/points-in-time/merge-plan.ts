import { realpath, stat } from 'node:fs/promises';
import { type ChainFile, chainFiles } from '../domains/block-commit.js';
import type { DomainState } from '../domains/lookup.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile } from '../host/open-files.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { SnapshotDiskRecord, SnapshotRecord } from './snapshot-record.js';

/** What is to be merged on one disk: a snapshot's overlay, into the layer below it, which is what it froze. */
export interface DiskMerge {
  target: string;
  /** The overlay, which is then gone. */
  top: ChainFile;
  base: ChainFile;
  /** Whether the VM writes to `top`. */
  active: boolean;
  /** The layer above `top`; null where it is the active one. */
  above: FileId | null;
  /** Bytes that `top` takes up: what progress is measured in. */
  bytes: number;
}

/**
 * What is to be merged on a disk, or why nothing is:
 * - `merged`: it was, by our record, or by what a merge that was under way has left of the chain;
 * - `nothing`: the overlay is gone, or has no layer below it any more. There is nothing to remove either;
 * - `astray`: the overlay is there and not in the VM's chain. It may hold all that was written since the snapshot.
 */
export type DiskPlan = DiskMerge | 'merged' | 'nothing' | 'astray';

/** Whether there is something to merge. */
export function isMerge(plan: DiskPlan): plan is DiskMerge {
  return typeof plan === 'object';
}

/**
 * What is to be done for a disk, as its chain is now. The overlay is found by itself and not by its place: once it is
 * gone, what then lies above the frozen layer is the overlay of a later snapshot.
 */
export async function planDiskMerge(
  { config, running }: DomainState,
  record: SnapshotDiskRecord,
  allowedRoots: readonly string[],
): Promise<DiskPlan> {
  const { target, active, activeFile, merged = false } = record;
  if (merged) return 'merged';
  const file = await fileAt(active);
  // Another file may have got the name, or the number, of one that was removed; not both.
  if (file === undefined || (activeFile !== null && !isSameFile(file, activeFile))) return 'nothing';
  const disk = config.disks.find((one) => one.target === target);
  if (disk === undefined || disk.source.path === null) return 'astray';
  const image = {
    path: disk.source.path,
    format: knownFormat(disk.source.format ?? 'raw', disk.source.path),
  };
  const chain: ChainFile[] = running ? await chainFiles(disk) : await readChain(image, allowedRoots);
  const at = chain.findIndex((layer) => isSameFile(layer.file, file));
  const top = chain[at];
  const base = chain[at + 1];
  if (top === undefined) return (await showsMerge(record, chain)) ? 'merged' : 'astray';
  if (base === undefined) return 'nothing';
  const { blocks } = await stat(top.path);
  return {
    target,
    top: { path: top.path, file: top.file },
    base: { path: base.path, file: base.file },
    active: at === 0,
    above: chain[at - 1]?.file ?? null,
    bytes: Math.max(blocks * 512, 1),
  };
}

/**
 * Whether the chain, without the overlay, is what our own merge makes of it: one whose end nobody has written down, since
 * the daemon or libvirtd died. That it is not in the chain shows nothing by itself: the VM may have been pointed elsewhere.
 */
async function showsMerge(
  { frozen, goingOver = false, above }: SnapshotDiskRecord,
  chain: readonly ChainFile[],
): Promise<boolean> {
  const base = await fileAt(frozen);
  const at = base === undefined ? -1 : chain.findIndex((layer) => isSameFile(layer.file, base));
  if (at === 0) return goingOver;
  const over = chain[at - 1];
  return at > 0 && above != null && over !== undefined && isSameFile(over.file, above);
}

/** The disks of a snapshot, as far as what libvirt knows of it by now shows that its own merge of some is done. */
export function mergedByLibvirt(
  disks: readonly SnapshotDiskRecord[],
  facts: SnapshotFacts | undefined,
): SnapshotDiskRecord[] {
  return disks.map((disk) => (disk.byLibvirt && facts === undefined ? { ...disk, merged: true } : disk));
}

/** @throws AgentError `MergeFailed` where the overlay of a disk is not where it could be merged */
export function refuseAstray(
  { uuid, name }: { uuid: string; name: string },
  disk: SnapshotDiskRecord,
  plan: DiskPlan,
): void {
  if (plan !== 'astray') return;
  const { target, active } = disk;
  throw new AgentError(
    'MergeFailed',
    `${active} may hold all that was written to ${target} of ${name} since the snapshot, and is not in that disk's chain ` +
      `now, so it cannot be merged; it stays. Give ${target} that file as its source again ` +
      `(attach the disk, or \`virsh edit ${name}\`), or, where that disk is not to come back, move the file elsewhere; then call ` +
      'deleteSnapshot again.',
    { vmId: uuid, disk: target },
  );
}

/**
 * Of a VM that libvirt does not know (a transient one that is off is gone, and comes back with the same disks): what is to be
 * merged nobody can say without its chains.
 * @throws AgentError `MergeFailed` where an overlay is there that was not merged
 */
export async function refuseLeft({ vm, disks }: Pick<SnapshotRecord, 'vm' | 'disks'>): Promise<void> {
  for (const { active, activeFile, merged = false } of disks) {
    const file = merged ? undefined : await fileAt(active);
    if (file === undefined || (activeFile !== null && !isSameFile(file, activeFile))) continue;
    throw new AgentError(
      'MergeFailed',
      `${vm.name} is not on this host, and ${active}, which may hold all that was written since the snapshot, can only be ` +
        'merged with the VM: on the host that it has moved to, or here once it is defined or started. Then, or where no host ' +
        'wants its disks and you have removed that file, call deleteSnapshot again.',
      { vmId: vm.uuid },
    );
  }
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
