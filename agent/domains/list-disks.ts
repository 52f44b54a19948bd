import type { BitmapRow, DiskRow } from '../api/generated.js';
import { AgentError } from '../errors.js';
import { knownFormat, type Layer, readChain } from '../images/chain.js';
import type { ImageBitmap } from '../images/qcow2.js';
import type { Domain, LibvirtClient } from '../libvirt/index.js';
import type { DomainDisk } from './config.js';
import { whyUnsupported } from './disks.js';
import { libvirtFault } from './faults.js';
import { type DomainState, readDomain } from './lookup.js';
import { refuseMigrating } from './migration.js';
import { elements, parseXml, text } from './xml.js';

/**
 * The disks of a VM that can be exported, in the domain's order. One whose images cannot be looked at is listed all
 * the same, with the reason.
 */
export async function listDisks(
  libvirt: LibvirtClient,
  vmId: string,
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<DiskRow[]> {
  const state = await readDomain(libvirt, vmId, signal);
  await refuseMigrating(libvirt, state.domain, signal);
  const checkpoints = await checkpointsByDisk(libvirt, state.domain, signal);
  const disks = state.config.disks.filter((disk) => whyUnsupported(disk) === null);
  return Promise.all(
    disks.map(async (disk) => ({
      target: disk.target,
      alias: state.running ? disk.alias : null,
      bus: disk.bus,
      serial: disk.serial,
      format: disk.source.format ?? '',
      readonly: disk.readonly,
      checkpoints: (checkpoints.get(disk.target) ?? []).map((checkpoint) => ({ checkpoint })),
      ...(await imageFacts(disk, state, allowedRoots)),
    })),
  );
}

type ImageFacts = Pick<DiskRow, 'capacity' | 'chain' | 'trackable' | 'reason' | 'bitmaps'>;

async function imageFacts(
  disk: DomainDisk,
  { running, domain }: DomainState,
  allowedRoots: readonly string[],
): Promise<ImageFacts> {
  const path = disk.source.path ?? '';
  let layers: Layer[];
  try {
    layers = await readChain({ path, format: knownFormat(disk.source.format ?? '', path) }, allowedRoots);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return {
      capacity: null,
      chain: [{ path, format: disk.source.format ?? '' }],
      trackable: false,
      reason: { name: error.name, message: error.message },
      bitmaps: [],
    };
  }
  const [top] = layers;
  const trackable = top?.holdsBitmaps ?? false;
  return {
    capacity: top?.capacity ?? null,
    chain: layers.map(({ path, format }) => ({ path, format })),
    trackable,
    reason: trackable
      ? null
      : {
          name: 'NotTracked',
          message: `${path} cannot hold dirty bitmaps; convert it to qcow2 (compat 1.1) to track changed blocks.`,
        },
    bitmaps: (top?.bitmaps ?? []).map((bitmap) => bitmapRow(bitmap, running ? domain : null)),
  };
}

/** @param owner the running VM whose QEMU has the image open, if any */
function bitmapRow(
  { name, granularity, recording, inconsistent }: ImageBitmap,
  owner: Domain | null,
): BitmapRow {
  const why =
    owner !== null
      ? `is in use by ${owner.name}, which runs; ask for its checkpoint, or for the bitmap of a frozen layer`
      : inconsistent
        ? 'was not stored properly and may lack changes; remove it (qemu-img bitmap --remove)'
        : recording
          ? null
          : 'is disabled and may lack changes; remove it (qemu-img bitmap --remove)';
  return {
    name,
    granularity,
    usable: why === null,
    reason: why === null ? null : { name: 'InconsistentCheckpoint', message: `The bitmap "${name}" ${why}.` },
  };
}

/** Names of the checkpoints that cover each disk, by target. */
async function checkpointsByDisk(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<Map<string, string[]>> {
  const byDisk = new Map<string, string[]>();
  try {
    for (const checkpoint of await libvirt.checkpoints.listAll(domain, 0, { signal })) {
      const xml = await libvirt.checkpoints.getXMLDesc(checkpoint, 0, { signal });
      for (const disk of elements('/domaincheckpoint/disks/disk[@checkpoint="bitmap"]', parseXml(xml))) {
        const target = text('@name', disk) ?? '';
        byDisk.set(target, [...(byDisk.get(target) ?? []), checkpoint.name]);
      }
    }
  } catch (cause) {
    throw libvirtFault(cause, 'CheckpointError', `list the checkpoints of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
  return byDisk;
}
