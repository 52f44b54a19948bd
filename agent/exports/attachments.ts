import type { DomainDisk } from '../domains/config.js';
import { type DomainState, readDomain, readStoredConfig } from '../domains/lookup.js';
import { AgentError } from '../errors.js';
import type { NewEvent } from '../events/event.js';
import type { LibvirtClient } from '../libvirt/index.js';
import { applySocketAccess } from './access.js';
import type { ExportsContext } from './context.js';
import { type AttachmentRecord, type ExportRecord, frontOf } from './record.js';
import { ofDrive } from './told.js';

/** In which of a domain's configurations a disk is now. */
export interface Presence {
  live: boolean;
  stored: boolean;
  /** Whether the domain runs. */
  running: boolean;
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
    if (error instanceof AgentError && error.name === 'NoSuchVM')
      return { live: false, stored: false, running: false };
    throw error;
  }
  const has = (disks: readonly DomainDisk[]) => disks.some((disk) => disk.alias === alias);
  return {
    running: state.running,
    live: state.running && has(state.config.disks),
    stored: persistent && has((await readStoredConfig(libvirt, state.domain, signal)).disks),
  };
}

/**
 * Brings an export's attachments in line with what libvirt says: one whose disk is gone is forgotten, and with the
 * last one QEMU's access to the socket ends; one that was being plugged in when the daemon ended is plugged in if the disk
 * is there. To be called under the export's lock.
 */
export async function refreshAttachments(
  context: ExportsContext,
  record: ExportRecord,
  signal: AbortSignal,
): Promise<ExportRecord> {
  const kept: AttachmentRecord[] = [];
  const gone: NewEvent[] = [];
  for (const attachment of record.attachments) {
    const where = await presenceOf(context.libvirt, attachment, signal);
    const { vm, target, state } = attachment;
    if (where.live || where.stored) kept.push({ ...attachment, state: 'attached' });
    else if (state === 'attached')
      gone.push({ kind: 'driveDetached', ...ofDrive(record, vm.uuid, target), reason: whyGone(where) });
  }
  const all = kept.length === record.attachments.length;
  if (all && record.attachments.every(({ state }) => state === 'attached')) return record;
  const saved = await withAttachments(context, record, kept);
  for (const event of gone) context.events.emit(event);
  return saved;
}

/** How a drive that is not where it was plugged in has left. */
export function whyGone({ running }: Presence): 'left' | 'vmEnded' {
  return running ? 'left' : 'vmEnded';
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
  const front = frontOf(saved);
  if (changed && front !== null && saved.state === 'ready') await applySocketAccess(context, front.socket);
  return saved;
}
