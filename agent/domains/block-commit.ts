import { AgentError } from '../errors.js';
import { type FileId, fileAt } from '../host/open-files.js';
import {
  BlockCommitFlag,
  BlockJobAbortFlag,
  type BlockJobInfo,
  BlockJobType,
  type Domain,
  ErrorCode,
  hasCode,
  isOperationInvalid,
  isStateLockTimeout,
  type LibvirtClient,
} from '../libvirt/index.js';
import type { DomainDisk } from './config.js';
import { libvirtFault } from './faults.js';

/** One file of a disk's backing chain, as libvirt names it and as the file system knows it. */
export interface ChainFile {
  path: string;
  file: FileId;
}

/** The chain of a running VM's disk, top first. A layer that is no file, or is gone, ends the list. */
export async function chainFiles(disk: Pick<DomainDisk, 'source' | 'backing'>): Promise<ChainFile[]> {
  const files: ChainFile[] = [];
  for (const { path } of [disk.source, ...disk.backing]) {
    const file = path === null ? undefined : await fileAt(path);
    if (path === null || file === undefined) break;
    files.push({ path, file });
  }
  return files;
}

/** A block job on a disk, and what it is to a merge. */
export interface CommitJob extends BlockJobInfo {
  commits: boolean;
  /** QEMU calls the commit of an active layer ready: until then libvirt keeps `current` below `end`. */
  caughtUp: boolean;
}

/** The block job on a disk; null without one. Answers at once, whatever else is busy. */
export async function commitJob(
  libvirt: LibvirtClient,
  domain: Domain,
  target: string,
  signal: AbortSignal,
): Promise<CommitJob | null> {
  try {
    const info = await libvirt.block.getJobInfo(domain, target, { signal });
    if (info === null) return null;
    const { type, current, end } = info;
    const commits = type === BlockJobType.commit || type === BlockJobType.activeCommit;
    return { ...info, commits, caughtUp: type === BlockJobType.activeCommit && current === end };
  } catch (cause) {
    if (isOperationInvalid(cause)) return null; // it does not run any more
    throw fault(cause, domain, target, `ask for block jobs on ${target} of ${domain.name}`);
  }
}

/**
 * Begins to merge the layer `top` into the one below it, `base`. The merge of the active layer stays until `pivot`; that
 * of a lower one ends by itself, and libvirt corrects what its other snapshots say of the files.
 * @param bytesPerSecond 0: as fast as it goes
 * @returns false while libvirt has not done with an earlier job on the disk
 */
export async function beginCommit(
  libvirt: LibvirtClient,
  domain: Domain,
  target: string,
  {
    top,
    base,
    active,
    bytesPerSecond,
  }: { top: string; base: string; active: boolean; bytesPerSecond: number },
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await libvirt.block.commit(
      domain,
      target,
      {
        base,
        top: active ? null : top,
        bandwidth: bytesPerSecond,
        flags: active ? BlockCommitFlag.active : 0,
      },
      { signal },
    );
    return true;
  } catch (cause) {
    if (hasCode(cause, ErrorCode.blockCopyActive)) return false;
    if (isOutOfChain(cause)) {
      throw new AgentError(
        'MergeFailed',
        `${top} is merged into ${base} already, but libvirt does not know: libvirtd ended in the same moment as the ` +
          `merge. Shut ${domain.name} down, start it and call deleteSnapshot again.`,
        { vmId: domain.uuid, disk: target, cause },
      );
    }
    throw fault(cause, domain, target, `merge ${top} into ${base}`);
  }
}

/** Lets the VM write to the base from now on. @returns false where it does not: the job is not ready, or gone */
export async function pivot(
  libvirt: LibvirtClient,
  domain: Domain,
  target: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await libvirt.block.abortJob(domain, target, BlockJobAbortFlag.pivot, { signal });
    return true;
  } catch (cause) {
    // libvirt, src/qemu/qemu_driver.c: "block copy still active: disk 'vda' not ready for pivot yet"; and invalid where
    // the job has ended meanwhile, or is being ended.
    if (hasCode(cause, ErrorCode.blockCopyActive) || isOperationInvalid(cause)) return false;
    throw fault(cause, domain, target, `go over to the merged image of ${target} of ${domain.name}`);
  }
}

/** Ends the job without going over to the base. What it has written there stays. @returns false where it has ended by itself */
export async function abandonCommit(
  libvirt: LibvirtClient,
  domain: Domain,
  target: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await libvirt.block.abortJob(domain, target, 0, { signal });
    return true;
  } catch (cause) {
    if (isOperationInvalid(cause) || hasCode(cause, ErrorCode.invalidArg)) return false;
    throw fault(cause, domain, target, `cancel the merge on ${target} of ${domain.name}`);
  }
}

/**
 * QEMU's answers where a chain that libvirt has in mind is longer than its own: the layer is out of the chain, or its
 * node is gone (blockdev.c, qmp_block_commit; block.c, bdrv_lookup_bs).
 */
function isOutOfChain(cause: unknown): boolean {
  return (
    hasCode(cause, ErrorCode.internalError) &&
    /is not in this backing file chain|Cannot find device=.* nor node-name=/.test(cause.message)
  );
}

function fault(cause: unknown, domain: Domain, target: string, doing: string): unknown {
  const about = { vmId: domain.uuid, disk: target };
  if (isStateLockTimeout(cause)) {
    return new AgentError(
      'BackupBusy',
      `Another job holds ${domain.name}, so vmdiskd could not ${doing}; \`virsh domjobinfo ${domain.name}\` tells which.`,
      { ...about, cause },
    );
  }
  return libvirtFault(cause, 'MergeFailed', doing, about);
}
