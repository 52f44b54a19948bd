import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { endBackup, runningBackup } from '../domains/backup-job.js';
import { unplug } from '../domains/hotplug.js';
import { type DomainState, readAllDomains, readStoredConfig } from '../domains/lookup.js';
import { isOurAlias } from '../domains/place.js';
import type { Domain } from '../libvirt/index.js';
import { exclusively, pointsLock } from '../points-in-time/context.js';
import { backupFiles, removeBackupFiles } from '../points-in-time/scratch.js';
import { type ExportsContext, vmLock } from './context.js';
import { closeLostFront } from './front.js';
import { removeStrayEntries } from './network.js';
import { pluggedByAlias } from './pluggable.js';
import { unserve } from './serve.js';

/**
 * Removes what no record names, although only this daemon makes it: drives with our alias, backup jobs that serve at our
 * sockets, servers and their directories. They come of records that were lost or set aside, and of calls that libvirt
 * carried out after their answer was given up. Since records are written before the deeds, nothing that a verb is at
 * work on is among them. A server stays while a drive of its export might still be plugged in somewhere.
 * @throws AgentError `LibvirtUnavailable`, `Timeout`: nothing is removed then that libvirt might be using
 */
export async function removeStrays(context: ExportsContext, signal: AbortSignal): Promise<void> {
  const domains = await readAllDomains(context.libvirt, signal);
  const results = await Promise.allSettled(
    domains.filter(({ running }) => running).map((state) => removeFromDomain(context, state, signal)),
  );
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  await removeServers(context);
  await removeBackups(context);
  for (const file of await removeStrayEntries(context)) {
    context.log.warn({ file }, 'removed a file of the gateway that no record names');
  }
}

async function removeFromDomain(
  context: ExportsContext,
  { domain, config }: DomainState,
  signal: AbortSignal,
): Promise<void> {
  const { log } = context;
  for (const { alias, target } of config.disks) {
    if (!isOurAlias(alias) || isKnownDrive(context, domain, alias)) continue;
    await unplugStray(context, domain, { alias, target }, signal);
    log.warn({ vmId: domain.uuid, target }, 'unplugged a drive that no record names');
  }
  const stray = await strayJob(context, domain, signal);
  if (stray === null || context.locks.holder(pointsLock(domain.uuid)) !== undefined) return;
  await exclusively(context, domain, 'the removal of a backup job that no record names', async () => {
    const socket = await strayJob(context, domain, signal);
    if (socket === null) return;
    await endBackup(context.libvirt, domain, socket, signal);
    log.warn({ vmId: domain.uuid, socket }, 'ended a backup job that no record names');
  });
}

/** The socket of a backup job that serves at one of ours and that no record names; null without one. */
async function strayJob(
  context: ExportsContext,
  domain: Domain,
  signal: AbortSignal,
): Promise<string | null> {
  const socket = (await runningBackup(context.libvirt, domain, signal))?.socket ?? null;
  if (socket === null || !isOurSocket(context, socket)) return null;
  return context.backups.allLive().some((one) => one.socket === socket) ? null : socket;
}

function isKnownDrive(context: ExportsContext, { uuid }: Domain, alias: string): boolean {
  return pluggedByAlias(context, uuid, alias) !== undefined;
}

async function unplugStray(
  context: ExportsContext,
  domain: Domain,
  disk: { alias: string; target: string },
  signal: AbortSignal,
): Promise<void> {
  const { libvirt, locks, points } = context;
  await locks.run(vmLock(domain.uuid), `the removal of ${disk.target}`, signal, async () => {
    if (isKnownDrive(context, domain, disk.alias)) return;
    const stored = await readStoredConfig(libvirt, domain, signal);
    const where = { live: true, stored: stored.disks.some(({ alias }) => alias === disk.alias) };
    await unplug(libvirt, domain, disk, where, { timeoutMs: points.stateMs.detach, signal });
  });
}

function isOurSocket({ points }: ExportsContext, socket: string): boolean {
  return dirname(dirname(socket)) === join(points.run, 'backups');
}

/** Directories of exports that no record names, with their servers and mounts. */
async function removeServers(context: ExportsContext): Promise<void> {
  const { registry, settings, log } = context;
  const parent = join(settings.run, 'exports');
  for (const name of await readdir(parent).catch(() => [])) {
    if (registry.find(name)?.ended === null) continue;
    await closeLostFront(context, name);
    await unserve(context, { exportId: name, serverName: `vmdiskd-export-${name}`, server: null });
    log.warn({ exportId: name }, 'removed the remains of an export that no record names');
  }
}

/**
 * Directories of backups that no record names. Scratch files are removed only together with the socket's directory, which is
 * surely ours: the scratch directory may be one that others use too.
 */
async function removeBackups({ backups, points, log }: ExportsContext): Promise<void> {
  for (const name of await readdir(join(points.run, 'backups')).catch(() => [])) {
    const { socket } = backupFiles(points, name);
    if (backups.allLive().some((record) => record.socket === socket)) continue;
    await removeBackupFiles(points, name);
    log.warn({ backupId: name }, 'removed the remains of a backup that no record names');
  }
}
