import { AgentError } from '../errors.js';
import {
  type Domain,
  ErrorCode,
  hasCode,
  isNoBackup,
  isStateLockTimeout,
  type LibvirtClient,
  LibvirtError,
} from '../libvirt/index.js';
import type { DomainConfig } from './config.js';
import { libvirtFault } from './faults.js';
import { element, elements, parseXml, text, toXml } from './xml.js';

/** Milliseconds that libvirt has to begin a job; it waits up to 30 s for the VM's lock. */
const BEGIN_MS = 60_000;
/** Milliseconds that QEMU has to end a job that was aborted, with its server and scratch files. */
const END_MS = 30_000;
const LOOK_AGAIN_MS = 100;

/** One disk of a pull-mode backup job. */
export interface BackupJobDisk {
  target: string;
  /** The checkpoint that its map counts from; null: full. */
  since: string | null;
  /** Its NBD export name at QEMU's server. */
  exportName: string;
  /** The scratch file, which libvirt makes, gives to QEMU, and removes. */
  scratch: string;
}

/** A pull-mode backup job that runs, whoever began it. */
export interface RunningBackup {
  /** The server's socket, which tells one job from another; null for a push-mode or TCP job. */
  socket: string | null;
  disks: { target: string; nodeIndex: number | null }[];
}

/**
 * The `<domainbackup>` of a job (libvirt, docs/formatbackup.rst). All disks of the domain are named: one that is left
 * out of the list would be for libvirt to decide.
 */
export function backupXml(
  socket: string,
  disks: readonly BackupJobDisk[],
  { disks: all }: DomainConfig,
): string {
  return toXml(
    element(
      'domainbackup',
      { mode: 'pull' },
      element('server', { transport: 'unix', socket }),
      element(
        'disks',
        {},
        ...all.map(({ target }) => {
          const disk = disks.find((one) => one.target === target);
          if (disk === undefined) return element('disk', { name: target, backup: 'no' });
          const { since, exportName, scratch } = disk;
          return element(
            'disk',
            {
              name: target,
              backup: 'yes',
              type: 'file',
              backupmode: since === null ? 'full' : 'incremental',
              incremental: since ?? undefined,
              exportname: exportName,
              exportbitmap: since ?? undefined,
            },
            element('driver', { type: 'qcow2' }),
            element('scratch', { file: scratch }),
          );
        }),
      ),
    ),
  );
}

/** The `<domaincheckpoint>` that covers exactly those disks (libvirt, docs/formatcheckpoint.rst). */
export function checkpointXml(name: string, targets: readonly string[], { disks }: DomainConfig): string {
  return toXml(
    element(
      'domaincheckpoint',
      {},
      element('name', {}, name),
      element(
        'disks',
        {},
        ...disks.map(({ target }) =>
          element('disk', { name: target, checkpoint: targets.includes(target) ? 'bitmap' : 'no' }),
        ),
      ),
    ),
  );
}

/** The backup job that runs on a domain; null without one. Answers at once, whatever else is busy. */
export async function runningBackup(
  libvirt: LibvirtClient,
  domain: Domain,
  signal: AbortSignal,
): Promise<RunningBackup | null> {
  let xml: string;
  try {
    xml = await libvirt.backup.getXMLDesc(domain, { signal });
  } catch (cause) {
    if (isNoBackup(cause) || hasCode(cause, ErrorCode.operationInvalid)) return null;
    throw libvirtFault(cause, 'BackupError', `ask for the backup job of ${domain.name}`, {
      vmId: domain.uuid,
    });
  }
  const document = parseXml(xml);
  return {
    socket: text('/domainbackup/server/@socket', document),
    disks: elements('/domainbackup/disks/disk[@backup="yes"]', document).map((disk) => ({
      target: text('@name', disk) ?? '',
      nodeIndex: Number(text('@index', disk) ?? Number.NaN) || null,
    })),
  };
}

/** A disk whose bitmap libvirt does not trust; `target` is null where its message does not say which. */
export class UntrustedBitmap extends AgentError {
  constructor(
    readonly target: string | null,
    error: AgentError,
  ) {
    super(error.name, error.message, { ...error.details, cause: error });
  }
}

/**
 * Begins the job and, with `checkpoint`, the checkpoint, at one instant.
 * @throws UntrustedBitmap, AgentError `BackupBusy`, `BackupError`, `LibvirtUnavailable`, `Timeout`
 */
export async function beginBackup(
  libvirt: LibvirtClient,
  domain: Domain,
  xml: { backup: string; checkpoint: string | null },
  signal: AbortSignal,
): Promise<void> {
  const about = { vmId: domain.uuid };
  try {
    // Longer than libvirt waits for the VM's lock: a begin that was given up could still happen later.
    await libvirt.backup.begin(domain, xml.backup, xml.checkpoint, 0, { signal, timeoutMs: BEGIN_MS });
  } catch (cause) {
    if (isStateLockTimeout(cause)) {
      throw new AgentError(
        'BackupBusy',
        `Another job holds ${domain.name} (\`virsh domjobinfo ${domain.name}\` tells which); try again when it has ended.`,
        { ...about, cause },
      );
    }
    // libvirt's messages: src/qemu/qemu_backup.c, qemuBackupDiskPrepareOneBitmapsChain and its callers.
    if (
      hasCode(cause, ErrorCode.checkpointInconsistent) ||
      (hasCode(cause, ErrorCode.invalidArg) && /bitmap/.test(cause.message))
    ) {
      const fault = libvirtFault(
        cause,
        'InconsistentCheckpoint',
        `rely on a bitmap of ${domain.name}`,
        about,
      );
      if (fault instanceof AgentError) {
        throw new UntrustedBitmap(/disk '([^']+)'/.exec(fault.message)?.[1] ?? null, fault);
      }
    }
    if (cause instanceof LibvirtError && /[Bb]itmap already exists/.test(cause.message)) {
      throw new AgentError(
        'AlreadyExists',
        `A disk of ${domain.name} has a bitmap of the checkpoint's name already (${cause.message}), which is no checkpoint's that ` +
          'is known here; use a new name.',
        { ...about, cause },
      );
    }
    throw libvirtFault(cause, 'BackupError', `begin a backup of ${domain.name}`, about);
  }
}

/**
 * Ends the backup job of that socket, and no other, and returns when it is gone. One that is gone already is success.
 * To be called under the VM's lock: between the look and the abort nobody of ours begins another job.
 */
export async function endBackup(
  libvirt: LibvirtClient,
  domain: Domain,
  socket: string,
  signal: AbortSignal,
): Promise<void> {
  const running = await runningBackup(libvirt, domain, signal);
  if (running?.socket !== socket) return;
  try {
    await libvirt.jobs.abort(domain, 0, { signal });
  } catch (cause) {
    if (!hasCode(cause, ErrorCode.operationInvalid)) {
      throw libvirtFault(cause, 'BackupError', `end the backup of ${domain.name}`, { vmId: domain.uuid });
    }
  }
  const deadline = Date.now() + END_MS;
  while ((await runningBackup(libvirt, domain, signal))?.socket === socket) {
    signal.throwIfAborted();
    if (Date.now() > deadline) {
      throw new AgentError('Timeout', `The backup job of ${domain.name} does not end; its QEMU may hang.`, {
        vmId: domain.uuid,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}
