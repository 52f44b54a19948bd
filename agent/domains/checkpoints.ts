import { AgentError } from '../errors.js';
import {
  type Checkpoint,
  CheckpointCreateFlag,
  CheckpointDeleteFlag,
  CheckpointListFlag,
  CheckpointXmlFlag,
  type Domain,
  DomainXmlFlag,
  ErrorCode,
  hasCode,
  isInconsistentCheckpoint,
  isNoCheckpoint,
  isStateLockTimeout,
  type LibvirtClient,
  LibvirtError,
} from '../libvirt/index.js';
import { libvirtFault } from './faults.js';
import type { DomainState } from './lookup.js';
import { element, elements, parseXml, text, toXml } from './xml.js';

/** What libvirt knows of a checkpoint. */
export interface CheckpointFacts {
  name: string;
  parent: string | null;
  /** Seconds since 1970, as libvirt writes it. */
  creationTime: string | null;
  /** Targets of the disks that it covers. */
  disks: string[];
  xml: string;
}

/** The checkpoint of that name; null where libvirt has none. */
export async function findCheckpoint(
  libvirt: LibvirtClient,
  domain: Domain,
  name: string,
  signal: AbortSignal,
): Promise<CheckpointFacts | null> {
  try {
    const checkpoint = await libvirt.checkpoints.lookupByName(domain, name, { signal });
    return await readCheckpoint(libvirt, checkpoint, signal);
  } catch (cause) {
    if (isNoCheckpoint(cause)) return null;
    throw libvirtFault(cause, 'CheckpointError', `read the checkpoint "${name}" of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

/** All checkpoints of a domain, parents before children. */
export async function readCheckpoints(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<CheckpointFacts[]> {
  try {
    const checkpoints = await libvirt.checkpoints.listAll(domain, CheckpointListFlag.topological, { signal });
    const facts = [];
    for (const checkpoint of checkpoints) facts.push(await readCheckpoint(libvirt, checkpoint, signal));
    return facts;
  } catch (cause) {
    throw libvirtFault(cause, 'CheckpointError', `list the checkpoints of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

async function readCheckpoint(
  libvirt: LibvirtClient,
  checkpoint: Checkpoint,
  signal: AbortSignal,
): Promise<CheckpointFacts> {
  const xml = await libvirt.checkpoints.getXMLDesc(checkpoint, 0, { signal });
  const document = parseXml(xml);
  return {
    name: checkpoint.name,
    parent: text('/domaincheckpoint/parent/name', document),
    creationTime: text('/domaincheckpoint/creationTime', document),
    disks: elements('/domaincheckpoint/disks/disk[@checkpoint="bitmap"]', document).map(
      (disk) => text('@name', disk) ?? '',
    ),
    xml,
  };
}

/** The name that a checkpoint's XML gives it; null where it is no XML of a checkpoint. */
export function checkpointName(xml: string): string | null {
  try {
    return text('/domaincheckpoint/name', parseXml(xml));
  } catch {
    return null;
  }
}

/**
 * Whether a running VM's QEMU still has sound bitmaps of the checkpoint: libvirt looks at them when it is asked for
 * their sizes, and leaves out those of which it cannot tell one (VIR_DOMAIN_CHECKPOINT_XML_SIZE).
 * @returns what is wrong, as a sentence, or null
 * @throws AgentError `BackupBusy` where another job holds the VM, which says nothing of the bitmaps
 */
export async function whyBroken(
  libvirt: LibvirtClient,
  domain: Domain,
  name: string,
  signal: AbortSignal,
): Promise<string | null> {
  const flags = CheckpointXmlFlag.size | CheckpointXmlFlag.noDomain;
  try {
    const document = parseXml(await libvirt.checkpoints.getXMLDesc({ name, domain }, flags, { signal }));
    const unsized = elements('/domaincheckpoint/disks/disk[@checkpoint="bitmap"][not(@size)]', document);
    if (unsized.length === 0) return null;
    const disks = unsized.map((disk) => text('@name', disk)).join(', ');
    return `QEMU has no sound bitmap "${name}" of ${disks}: it is gone, disabled, or was not stored properly.`;
  } catch (cause) {
    if (isStateLockTimeout(cause)) {
      throw new AgentError(
        'BackupBusy',
        `Another job holds ${domain.name} (\`virsh domjobinfo ${domain.name}\` tells which), so its checkpoints cannot be looked at; try again when it has ended.`,
        { vmId: domain.uuid, cause },
      );
    }
    if (cause instanceof LibvirtError) return cause.message;
    throw libvirtFault(cause, 'CheckpointError', `look at the checkpoint "${name}" of ${domain.name}`);
  }
}

/**
 * Deletes a checkpoint of a running VM and its bitmaps; where the bitmaps are gone or broken, libvirt's knowledge of it
 * alone. One that is not there is success.
 */
export async function deleteCheckpointOf(
  libvirt: LibvirtClient,
  domain: Domain,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await libvirt.checkpoints.delete({ name, domain }, 0, { signal });
  } catch (cause) {
    if (saysNoBitmap(cause)) return forgetCheckpoint(libvirt, domain, name, signal);
    refuseUnlessGone(cause, domain, name);
  }
}

/**
 * Whether a deletion failed for want of a (sound) bitmap: any other fault, such as a frozen layer that an export's server
 * keeps libvirt from opening read-write, leaves bitmaps that only this deletion removes. libvirt has no code of its own
 * for a bitmap that is gone (src/qemu/qemu_checkpoint.c, qemuCheckpointDiscardDiskBitmaps).
 */
function saysNoBitmap(cause: unknown): boolean {
  return (
    isInconsistentCheckpoint(cause) ||
    (hasCode(cause, ErrorCode.internalError) && /not found in backing chain/.test(cause.message))
  );
}

/** Deletes what libvirt knows of a checkpoint, and leaves the bitmaps to others. One that is not there is success. */
export async function forgetCheckpoint(
  libvirt: LibvirtClient,
  domain: Domain,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await libvirt.checkpoints.delete({ name, domain }, CheckpointDeleteFlag.metadataOnly, { signal });
  } catch (cause) {
    refuseUnlessGone(cause, domain, name);
  }
}

function refuseUnlessGone(cause: unknown, { name: vm, uuid: vmId }: Domain, name: string): void {
  if (isNoCheckpoint(cause)) return;
  throw libvirtFault(cause, 'CheckpointError', `delete the checkpoint "${name}" of ${vm}`, { vmId });
}

/**
 * The XML by which libvirt is told of a checkpoint whose bitmaps were made without it, while the VM is off: the last
 * one's child, with the stored configuration of the VM, which a redefinition must have.
 */
export async function redefinitionXml(
  libvirt: LibvirtClient,
  { domain, config }: DomainState,
  name: string,
  targets: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const last = (await readCheckpoints(libvirt, domain, signal)).at(-1);
  const head = toXml(
    element(
      'domaincheckpoint',
      {},
      element('name', {}, name),
      last === undefined ? undefined : element('parent', {}, element('name', {}, last.name)),
      element('creationTime', {}, String(Math.floor(Date.now() / 1000))),
      element(
        'disks',
        {},
        ...config.disks.map(({ target }) =>
          targets.includes(target)
            ? element('disk', { name: target, checkpoint: 'bitmap', bitmap: name })
            : element('disk', { name: target, checkpoint: 'no' }),
        ),
      ),
    ),
  );
  const domainXml = await libvirt.domains.getXMLDesc(domain, DomainXmlFlag.inactive, { signal });
  return head.replace('</domaincheckpoint>', () => `${domainXml}</domaincheckpoint>`);
}

/**
 * libvirt's XML of a checkpoint with another parent: one whose parent was deleted since cannot be defined again as it
 * was written ("parent … for moment … not found").
 */
export function withParent(xml: string, parent: string | null): string {
  const head = xml.indexOf('<domain ');
  const own = head === -1 ? xml : xml.slice(0, head);
  const written = parent === null ? '' : toXml(element('parent', {}, element('name', {}, parent)));
  const cleared = own.replace(/<parent>\s*<name>[^<]*<\/name>\s*<\/parent>/, '');
  const placed = cleared.replace(/<\/name>/, () => `</name>${written}`);
  return head === -1 ? placed : placed + xml.slice(head);
}

/** Makes a checkpoint of a running domain now, without a backup. */
export async function createCheckpoint(
  libvirt: LibvirtClient,
  domain: Domain,
  xml: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await libvirt.checkpoints.create(domain, xml, 0, { signal });
  } catch (cause) {
    throw libvirtFault(cause, 'CheckpointError', `make a checkpoint of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

/** Tells libvirt of a checkpoint that it does not know (any more). Of a running VM the bitmaps are looked at. */
export async function redefineCheckpoint(
  libvirt: LibvirtClient,
  domain: Domain,
  xml: string,
  running: boolean,
  signal: AbortSignal,
): Promise<void> {
  const flags = CheckpointCreateFlag.redefine | (running ? CheckpointCreateFlag.redefineValidate : 0);
  try {
    await libvirt.checkpoints.create(domain, xml, flags, { signal });
  } catch (cause) {
    throw libvirtFault(cause, 'CheckpointError', `define the checkpoint again for ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
}

/** What a caller is told of a checkpoint that nobody knows. */
export function noSuchCheckpoint(domain: Domain, name: string): AgentError {
  return new AgentError(
    'NoSuchCheckpoint',
    `${domain.name} has no checkpoint "${name}"; listCheckpoints shows those there are. Take a full backup, or set ifUntracked to "full".`,
    { vmId: domain.uuid },
  );
}
