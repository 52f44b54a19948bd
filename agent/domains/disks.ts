import { AgentError, InvalidParams } from '../errors.js';
import type { DomainDisk } from './config.js';
import type { DomainState } from './lookup.js';

/** Why a disk cannot be exported, as the middle of a sentence; null where it can. */
export function whyUnsupported(disk: DomainDisk): string | null {
  if (disk.device !== 'disk') return `is a ${disk.device} device`;
  if (disk.shareable) return 'is shared with other VMs, whose writes nobody sees here';
  if (disk.transient) return 'is transient and loses its content when the VM stops';
  if (disk.encrypted) return 'is encrypted, and only QEMU holds the key';
  const source = disk.source;
  if ((source.type !== 'file' && source.type !== 'block') || source.path === null) {
    return `lies on a source of type ${source.type}, not in a file or on a block device`;
  }
  if (source.format !== 'qcow2' && source.format !== 'raw') {
    return `is in the format ${source.format ?? 'unknown'}; qcow2 and raw are supported`;
  }
  return null;
}

/**
 * The disk that a caller means: its target name, of which a VM has no two, or else an alias or a serial. A serial may
 * be on several disks (libvirt asks for nothing else), and the first of them is as likely the wrong one.
 * @throws AgentError `NoSuchDisk`, also where several could be meant; `UnsupportedDisk`
 */
export function findDisk({ domain, config }: DomainState, name: string): DomainDisk {
  const byTarget = config.disks.filter(({ target }) => target === name);
  const meant =
    byTarget.length > 0
      ? byTarget
      : config.disks.filter(({ alias, serial }) => alias === name || serial === name);
  const [disk] = meant;
  if (disk === undefined) {
    throw new AgentError(
      'NoSuchDisk',
      `${domain.name} has no disk with the target name, alias or serial "${name}"; it has ${targetsOf(config.disks) || 'none'}.`,
      { vmId: domain.uuid, disk: name },
    );
  }
  if (meant.length > 1) {
    throw new AgentError(
      'NoSuchDisk',
      `${domain.name} has ${meant.length} disks with the alias or serial "${name}"; name the one that is meant by its ` +
        `target: ${targetsOf(meant)}.`,
      { vmId: domain.uuid, disk: name },
    );
  }
  const why = whyUnsupported(disk);
  if (why !== null) {
    throw new AgentError(
      'UnsupportedDisk',
      `The disk ${disk.target} of ${domain.name} ${why}; back it up from inside the guest.`,
      { vmId: domain.uuid, disk: disk.target },
    );
  }
  return disk;
}

/**
 * The disks that a caller means, in the caller's order.
 * @param pathOf where in the params, as a JSON pointer, the name at an index stands
 * @throws AgentError as `findDisk`; InvalidParams for a disk that is named twice, in whatever way
 */
export function findDisks(
  state: DomainState,
  names: readonly string[],
  pathOf: (index: number) => string,
): DomainDisk[] {
  const before = new Map<DomainDisk, string>();
  return names.map((name, index) => {
    const disk = findDisk(state, name);
    const other = before.get(disk);
    if (other !== undefined) {
      const path = pathOf(index);
      const message = `names ${disk.target} again, which "${other}" names already`;
      throw new InvalidParams(`Invalid params: ${path} ${message}.`, [{ path, message }]);
    }
    before.set(disk, name);
    return disk;
  });
}

function targetsOf(disks: readonly DomainDisk[]): string {
  return disks.map(({ target }) => target).join(', ');
}
