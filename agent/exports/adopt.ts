import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isListening } from '../nbd/probe.js';
import { servesAt } from '../nbd/qemu-nbd.js';
import { decideCheckpoint } from '../points-in-time/checkpoint-life.js';
import { endPointInTime } from '../points-in-time/stop-backup.js';
import { type ExportsContext, exportFiles, STEP_MS } from './context.js';
import type { ExportRecord } from './record.js';
import { removeExportDirectory, unserve } from './serve.js';
import { finishTeardown } from './teardown.js';
import { declareFailed } from './watch.js';

/**
 * Makes the host agree with the records, at start: what is whole is adopted, what was half-way is finished or taken
 * back, and what no record names is removed.
 */
export async function adoptExports(context: ExportsContext): Promise<void> {
  const { registry, log } = context;
  await registry.forgetEnded(Date.now());
  for (const record of registry.all()) {
    try {
      await adopt(context, record);
    } catch (error) {
      log.error({ exportId: record.exportId, err: error }, 'an export could not be adopted');
    }
  }
  await removeStrays(context);
}

/** Milliseconds for bringing one export in order. */
const ADOPT_MS = 60_000;

async function adopt(context: ExportsContext, record: ExportRecord): Promise<void> {
  const { registry, log } = context;
  const { exportId } = record;
  switch (record.state) {
    case 'starting':
      // Nobody has had an answer yet: the retry makes it anew.
      await takeBack(context, record);
      await registry.remove(exportId);
      log.warn({ exportId }, 'removed an export that was half-way when the daemon ended');
      return;
    case 'closing':
      await finishTeardown(context, record, AbortSignal.timeout(ADOPT_MS));
      log.warn({ exportId }, 'finished a teardown that was half-way when the daemon ended');
      return;
    case 'ready':
      await adoptReady(context, record);
      return;
    case 'failed':
    case 'ended':
      return;
  }
}

async function takeBack(context: ExportsContext, record: ExportRecord): Promise<void> {
  const { pointInTime: point, vm, checkpoint } = record;
  const signal = AbortSignal.timeout(ADOPT_MS);
  if (point.kind === 'backup') {
    if (point.own) await endPointInTime(context, point.backupId, 'failed', signal);
    await removeExportDirectory(context.settings, record.exportId);
    return;
  }
  await unserve(context, record);
  if (checkpoint !== null && vm !== null)
    await decideCheckpoint(context, vm.uuid, checkpoint, 'failed', signal);
}

async function adoptReady(context: ExportsContext, { exportId, server }: ExportRecord): Promise<void> {
  const { processes, log } = context;
  if (server?.kind === 'backup') return; // whether the backup lives is for the watch to say
  if (server !== null && (await processes.isAlive(server.process))) {
    const address = { transport: 'unix', socket: server.socket } as const;
    const listening = await isListening(address, { timeoutMs: STEP_MS });
    log.info({ exportId, listening }, 'adopted an export');
    return;
  }
  await declareFailed(context, exportId);
}

/** Directories of exports that no record names, of records that were lost or set aside. */
async function removeStrays({ registry, settings, processes, log }: ExportsContext): Promise<void> {
  const parent = join(settings.run, 'exports');
  const names = await readdir(parent).catch(() => []);
  for (const name of names) {
    const record = registry.find(name);
    if (record !== undefined && record.state !== 'ended') continue;
    const process = await processes.find(`vmdiskd-export-${name}`);
    const { socket } = exportFiles(settings.run, name);
    if (process !== undefined && (await servesAt(process, socket)))
      await processes.stop(process, { graceMs: STEP_MS / 2, timeoutMs: STEP_MS });
    await rm(join(parent, name), { recursive: true, force: true });
    log.warn({ exportId: name }, 'removed the remains of an export that no record names');
  }
}
