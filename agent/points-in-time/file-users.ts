import type { DomainDisk } from '../domains/config.js';
import { type DomainState, readAllDomains } from '../domains/lookup.js';
import { refuseSaved } from '../domains/managed-save.js';
import { AgentError } from '../errors.js';
import { type FileId, fileAt, isSameFile } from '../host/open-files.js';
import { filesOfChain } from '../images/chain-files.js';
import type { PointsContext } from './context.js';

/** A disk of a VM that depends on a file: it has it in its chain. */
export interface FileUser {
  vm: { uuid: string; name: string };
  target: string;
  /** False: its chain cannot be read whole, and may lead there. */
  certain: boolean;
}

type VmDisk = Pick<FileUser, 'target'> & { uuid: string };

/** A disk that depends on one of these files, whether its VM runs or not; undefined without one. */
async function userOf(
  { libvirt, points }: Pick<PointsContext, 'libvirt' | 'points'>,
  files: readonly FileId[],
  signal: AbortSignal,
  except?: VmDisk,
): Promise<FileUser | undefined> {
  let possible: FileUser | undefined;
  for (const state of await readAllDomains(libvirt, signal)) {
    const { uuid, name } = state.domain;
    for (const disk of state.config.disks) {
      if (uuid === except?.uuid && disk.target === except.target) continue;
      const { files: its, whole } = await filesOf(state, disk, points.allowedRoots);
      const certain = its.some((one) => files.some((file) => isSameFile(one, file)));
      const user = { vm: { uuid, name }, target: disk.target, certain };
      if (certain) return user;
      if (!whole) possible ??= user;
    }
  }
  return possible;
}

/** Of a VM that runs libvirt knows the chain; of one that does not, the top layer and no more. */
async function filesOf(
  { running }: DomainState,
  { source, backing, mirror }: DomainDisk,
  roots: readonly string[],
): Promise<{ files: FileId[]; whole: boolean }> {
  const paths = [source.path, mirror?.path ?? null, ...backing.map((layer) => layer.path)];
  const found = await Promise.all(
    paths.map((path) => (path === null ? undefined : fileAt(path).catch(() => undefined))),
  );
  const known = found.filter((file) => file !== undefined);
  if (running || source.path === null) return { files: known, whole: true };
  const { files, whole } = await filesOfChain({ path: source.path, format: source.format }, roots);
  return { files: [...known, ...files], whole };
}

/** A VM that a file must stay for, also where that cannot be ruled out; undefined without one. */
export async function neededBy(
  context: PointsContext,
  file: FileId,
  signal: AbortSignal,
): Promise<FileUser | undefined> {
  return userOf(context, [file], signal);
}

/**
 * Who writes to an image changes what every disk reads that has it in its chain, and a running VM's own. Only a VM that is
 * off may have it as its own file: it sees the new content when it starts, unless it goes on from a saved memory.
 * @throws AgentError `DiskInUse`
 */
export async function refuseOtherUser(
  { libvirt, points }: Pick<PointsContext, 'libvirt' | 'points'>,
  { path, file }: { path: string; file: FileId },
  of: { uuid: string; name: string } | null,
  signal: AbortSignal,
): Promise<void> {
  for (const state of await readAllDomains(libvirt, signal)) {
    const { uuid, name } = state.domain;
    for (const disk of state.config.disks) {
      const own =
        disk.source.path === null ? undefined : await fileAt(disk.source.path).catch(() => undefined);
      if (!state.running && own !== undefined && isSameFile(own, file)) {
        await refuseSaved(libvirt, state.domain, 'DiskInUse', `write to ${disk.target} of ${name}`, signal);
        continue;
      }
      const { files } = await filesOf(state, disk, points.allowedRoots);
      if (!files.some((one) => isSameFile(one, file))) continue;
      const remedy = state.running
        ? 'shut it off first'
        : 'give that disk an image of its own first (qemu-img convert)';
      throw new AgentError(
        'DiskInUse',
        `${disk.target} of ${name}${state.running ? ', which runs,' : ''} has ${path} in its chain, so it cannot be written to; ${remedy}.`,
        { vmId: of?.uuid ?? uuid, ...(of?.uuid === uuid && { disk: disk.target }) },
      );
    }
  }
}

/**
 * A merge changes the base: another disk that has it as its backing file, as linked clones do, would be broken by that.
 * QEMU's locks do not tell while that VM is off, nor for raw images.
 * @throws AgentError `SnapshotInUse`
 */
export async function refuseSharedBase(
  context: PointsContext,
  vm: { uuid: string; name: string },
  { target, base }: { target: string; base: { path: string; file: FileId } },
  signal: AbortSignal,
): Promise<void> {
  const user = await userOf(context, [base.file], signal, { uuid: vm.uuid, target });
  if (user === undefined || !user.certain) return;
  throw new AgentError(
    'SnapshotInUse',
    `${user.target} of ${user.vm.name} has ${base.path} in its backing chain, which merging the snapshot on ${target} of ` +
      `${vm.name} would change; give it an image of its own first (qemu-img convert), or remove it.`,
    { vmId: vm.uuid, disk: target },
  );
}
