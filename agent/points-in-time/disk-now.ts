import { stat } from 'node:fs/promises';
import type { DomainDisk } from '../domains/config.js';
import { libvirtFault } from '../domains/faults.js';
import type { DomainState } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import { allowedRealPath } from '../images/allowed-path.js';
import { knownFormat, readChain } from '../images/chain.js';
import type { LibvirtClient } from '../libvirt/index.js';
import type { KnownFile } from './checkpoint-record.js';
import type { DiskNow } from './checkpoint-trust.js';

/**
 * Capacity and files of a disk now: of a running VM as QEMU has it, else as the image headers say.
 * @throws AgentError `PathNotAllowed`, `NoSuchImage`, `BackupError`; of a VM that is off as `readChain`
 */
export async function diskNow(
  libvirt: LibvirtClient,
  { running, domain }: DomainState,
  disk: DomainDisk,
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<DiskNow> {
  const path = disk.source.path ?? '';
  if (!running) {
    const layers = await readChain(
      { path, format: knownFormat(disk.source.format ?? '', path) },
      allowedRoots,
    );
    return {
      capacity: layers[0]?.capacity ?? 0,
      files: await knownFiles(layers.map((layer) => layer.path)),
    };
  }
  const { capacity } = await libvirt.block
    .getInfo(domain, disk.target, { signal })
    .catch((cause: unknown) => {
      throw libvirtFault(cause, 'BackupError', `read the size of ${disk.target} of ${domain.name}`, {
        vmId: domain.uuid,
        disk: disk.target,
      });
    });
  const paths = [disk.source, ...disk.backing].flatMap((source) => source.path ?? []);
  // QEMU has them open already. But what may be exported is one rule, and a checkpoint's bitmaps are removed by us once the VM is off.
  for (const one of paths) await allowedRealPath(one, allowedRoots);
  return { capacity, files: await knownFiles(paths) };
}

/** The files at those paths, so that they can be told from others later. @throws AgentError `NoSuchImage` */
export async function knownFiles(paths: readonly string[]): Promise<KnownFile[]> {
  return Promise.all(
    paths.map(async (path) => {
      const stats = await stat(path, { bigint: true }).catch((cause: Error) => {
        throw new AgentError(
          'NoSuchImage',
          `The image ${path} cannot be looked at (${cause.message}); restore it, or give the disk another image.`,
          {
            cause,
          },
        );
      });
      return { path, dev: Number(stats.dev), ino: Number(stats.ino), born: String(stats.birthtimeNs) };
    }),
  );
}

/** Whether the disk's image can hold the bitmap of a checkpoint: qcow2 from version 3 on. */
export async function isTrackable({ source }: DomainDisk, allowedRoots: readonly string[]): Promise<boolean> {
  if (source.format !== 'qcow2' || source.path === null) return false;
  try {
    return (await readChain({ path: source.path, format: 'qcow2' }, allowedRoots))[0]?.holdsBitmaps ?? false;
  } catch (error) {
    if (error instanceof AgentError) return true; // not for us to look at: QEMU will say
    throw error;
  }
}
