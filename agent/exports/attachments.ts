import type { DomainDisk } from '../domains/config.js';
import { type DomainState, readDomain, readStoredConfig } from '../domains/lookup.js';
import { isOurAlias } from '../domains/place.js';
import { AgentError } from '../errors.js';
import type { LibvirtClient } from '../libvirt/index.js';
import { applySocketAccess } from './access.js';
import type { ExportsContext } from './context.js';
import type { AttachmentRecord, ExportRecord } from './record.js';

/** In which of a domain's configurations a disk is now. */
export interface Presence {
  live: boolean;
  stored: boolean;
}

/** Where the disk of an attachment is now, as libvirt tells; nowhere when the VM itself is gone. */
export async function presenceOf(
  libvirt: LibvirtClient,
  { vm, alias, persistent }: AttachmentRecord,
  signal: AbortSignal,
): Promise<Presence> {
  let state: DomainState;
  try {
    state = await readDomain(libvirt, vm.uuid, signal);
  } catch (error) {
    if (error instanceof AgentError && error.name === 'NoSuchVM') return { live: false, stored: false };
    throw error;
  }
  const has = (disks: readonly DomainDisk[]) => disks.some((disk) => disk.alias === alias);
  return {
    live: state.running && has(state.config.disks),
    stored: persistent && has((await readStoredConfig(libvirt, state.domain, signal)).disks),
  };
}

/**
 * Brings an export's attachments in line with what libvirt says: one whose disk is gone is forgotten, and with the
 * last one QEMU's access to the socket ends. To be called under the export's lock.
 */
export async function refreshAttachments(
  context: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const kept: AttachmentRecord[] = [];
  for (const attachment of record.attachments) {
    const { live, stored } = await presenceOf(context.libvirt, attachment, signal);
    if (live || stored) kept.push(attachment);
  }
  if (kept.length === record.attachments.length) return record;
  return withAttachments(context, record, kept);
}

/** Writes the attachments down, and lets QEMU in at the socket exactly while there is one. */
export async function withAttachments(
  context: ExportsContext,
  record: ExportRecord,
  attachments: AttachmentRecord[],
): Promise<ExportRecord> {
  const { registry } = context;
  const saved = await registry.save({ ...record, attachments });
  const changed = record.attachments.length > 0 !== attachments.length > 0;
  if (changed && saved.server !== null && saved.state === 'ready') {
    await applySocketAccess(context, registry.allLive(), saved.server.socket);
  }
  return saved;
}

/** The export and attachment behind an alias in a VM, if any. */
export function attachmentByAlias(
  records: readonly ExportRecord[],
  uuid: string,
  alias: string | null,
): { record: ExportRecord; attachment: AttachmentRecord } | undefined {
  if (!isOurAlias(alias)) return undefined;
  for (const record of records) {
    const attachment = record.attachments.find((one) => one.vm.uuid === uuid && one.alias === alias);
    if (attachment !== undefined) return { record, attachment };
  }
  return undefined;
}
