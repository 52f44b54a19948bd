import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BlockBits } from '../changed-blocks/bits.js';
import { longestRequest, type MapSource } from '../changed-blocks/map.js';
import type { MapPlan } from '../changed-blocks/plan.js';
import { AgentError } from '../errors.js';
import type { Confinement } from '../host/confine.js';
import type { StopOptions } from '../host/process.js';
import { setSocketAccess } from '../host/socket-access.js';
import { readOnlyImage, writableImage } from '../images/blockdev.js';
import type { HeldLayer, Layer } from '../images/chain.js';
import { openedAs, withOwnNames } from '../images/opened-as.js';
import { blockStatus } from '../nbd/block-status.js';
import { NbdClient } from '../nbd/client.js';
import { NbdError } from '../nbd/error.js';
import {
  type QemuNbdOptions,
  type QemuNbdServer,
  servesAt,
  startQemuNbd,
  stopQemuNbd,
} from '../nbd/qemu-nbd.js';
import { type ExportsContext, exportFiles, SHARED, STEP_MS, STOP, STOP_WRITER } from './context.js';
import { holdAgain, refuseOtherFiles } from './held-layers.js';
import type { ExportRecord, ExportServer } from './record.js';
import { isWriter } from './registry.js';

/** What is to be served. */
export interface ServeRequest {
  exportId: string;
  serverName: string;
  layers: readonly Layer[];
  plan: MapPlan<Layer>;
  /** Whether its clients write to the image. */
  write: boolean;
  /** Whether its only client is the layer in front of it that is thrown away. */
  behind: boolean;
  /** A local account that may connect, besides root. */
  user: string | null;
}

export interface Served {
  server: ExportServer;
  source: MapSource;
  /** The disk's size in bytes, as the server presents it. */
  capacity: number;
}

/** QEMU, docs/interop/nbd.txt. */
export const bitmapContext = (name: string): string => `qemu:dirty-bitmap:${name}`;

/**
 * Starts the server of an export, merging first what several layers' bitmaps say, and returns once a client has
 * been greeted and the map can be read. What it makes lies in the export's directory, and runs under the name that
 * the record bears already; `unserve` removes all of it.
 */
export async function serve(
  context: Pick<ExportsContext, 'processes' | 'settings' | 'points'>,
  request: ServeRequest,
  signal: AbortSignal,
): Promise<Served> {
  const chain = await holdAgain(request.layers, context.settings.allowedRoots);
  try {
    return await serveLayers(context, request, chain.layers, signal);
  } catch (cause) {
    const path = request.layers[0]?.path;
    const ours = cause instanceof AgentError && cause.name === 'ExportFailed';
    if (!ours && !(cause instanceof NbdError)) throw cause;
    const fact = ours
      ? withOwnNames(cause.message, chain.layers)
      : `qemu-nbd does not answer as it should: ${cause.message}`;
    // Its own remedy is in it.
    if (ours && fact.startsWith('systemd ')) throw cause;
    throw new AgentError(
      'ExportFailed',
      `${fact.replace(/\.$/, '')}; see that the image is whole (qemu-img check ${path}), then try again.`,
      { ...(ours && cause.details), cause },
    );
  } finally {
    await chain.close();
  }
}

async function serveLayers(
  { processes, settings, points }: Pick<ExportsContext, 'processes' | 'settings' | 'points'>,
  request: ServeRequest,
  layers: readonly HeldLayer[],
  signal: AbortSignal,
): Promise<Served> {
  const { exportId, serverName, plan, write, behind, user } = request;
  const { confinement } = points;
  const files = exportFiles(settings.run, exportId);
  await makeExportDirectory(settings.run, files.dir);
  if (confinement !== null) await letIn(files.dir, confinement);
  const as = (of: readonly HeldLayer[]) => {
    const { layers: named, confined } = openedAs(of, confinement, { write, directory: files.dir });
    return { image: write ? writableImage(named) : readOnlyImage(named), ...(confined && { confined }) };
  };
  const options: QemuNbdOptions = {
    name: serverName,
    ...as(layers),
    readOnly: !write,
    discard: write,
    exportName: exportId,
    socket: behind ? files.base : files.socket,
    shared: SHARED,
    stderrFile: files.stderr,
  };
  const wait = { timeoutMs: STEP_MS, signal };
  const merged = plan.origin === 'bitmap' && plan.layers.length > 1;
  if (merged) {
    const bits = new BlockBits(plan.granularity, 0, layers[0]?.capacity ?? 0);
    for (const layer of layers.slice(0, plan.layers.length)) {
      // Under the export's own name, one after another: the record knows of whichever runs.
      const alone = { ...options, ...as([layer]), bitmaps: [plan.bitmap] };
      const server = await startQemuNbd(processes, alone, wait);
      try {
        await refuseOtherFiles(server, [layer], files.stderr);
        await collectDirty(server, bitmapContext(plan.bitmap), bits, wait);
      } finally {
        await stopQemuNbd(processes, server, STOP);
      }
    }
    await writeFile(files.bits, bits.bytes, { mode: 0o600, flag: 'wx' });
  }
  const bitmaps = plan.origin === 'bitmap' && !merged ? [plan.bitmap] : [];
  const allocationDepth = plan.origin === 'depth';
  const server = await startQemuNbd(processes, { ...options, bitmaps, allocationDepth }, wait);
  // When this throws, the server is on record by its name, and is taken back with the rest.
  await refuseOtherFiles(server, layers, files.stderr);
  if (confinement !== null) await shutOut(files.dir);
  await setSocketAccess(server.socket, { user: behind ? null : user, group: null });
  return {
    server: { kind: 'qemu-nbd', ...server },
    source: sourceOf(plan, files.bits),
    capacity: await capacityOf(server, wait),
  };
}

/**
 * Stops the server, whether the record knows its process or only its name, and removes its directory. A process that
 * does not serve at the export's socket is a stranger, whatever a record says.
 */
export async function unserve({ processes, settings }: ExportsContext, record: ExportRecord): Promise<void> {
  const { exportId, serverName, server } = record;
  const known = server?.kind === 'qemu-nbd' ? server : null;
  const { socket, base } = exportFiles(settings.run, exportId);
  const stop = isWriter(record) ? STOP_WRITER : STOP;
  await stopServer(processes, { exportId, name: serverName, known, sockets: [socket, base], stop });
  await removeExportDirectory(settings, exportId);
}

/**
 * Stops a qemu-nbd of an export, whether the record knows its process or only its name.
 * @param sockets where it would serve if the record does not say: [paths] run may be another since it was made
 * @throws AgentError `Timeout`: it is still at work, and may be asked again
 */
export async function stopServer(
  processes: ExportsContext['processes'],
  of: {
    exportId: string;
    name: string;
    known: QemuNbdServer | null;
    sockets: readonly string[];
    stop?: StopOptions;
  },
): Promise<void> {
  const process = of.known?.process ?? (await processes.find(of.name));
  if (process === undefined) return;
  for (const socket of of.known === null ? of.sockets : [of.known.socket]) {
    if (!(await servesAt(process, socket))) continue;
    await stopQemuNbd(processes, { process, socket, exportName: of.exportId }, of.stop ?? STOP);
    return;
  }
}

/** Idempotent. */
export async function removeExportDirectory({ run }: { run: string }, exportId: string): Promise<void> {
  await rm(exportFiles(run, exportId).dir, { recursive: true, force: true });
}

/** Others may pass through the directories to a socket that lets them in, and list none of them. */
export async function makeExportDirectory(run: string, dir: string): Promise<void> {
  await mkdir(run, { recursive: true, mode: 0o755 });
  await mkdir(join(run, 'exports'), { recursive: true, mode: 0o711 });
  await rm(dir, { recursive: true, force: true }); // nothing of ours: the record would know
  await mkdir(dir, { mode: 0o711 });
}

/** A confined server makes its socket there; what others have made there it can neither remove nor replace. */
export async function letIn(dir: string, { gid }: Confinement): Promise<void> {
  await chown(dir, 0, gid);
  await chmod(dir, 0o1731);
}

export async function shutOut(dir: string): Promise<void> {
  await chmod(dir, 0o711);
  await chown(dir, 0, 0);
}

async function collectDirty(
  { socket, exportName }: QemuNbdServer,
  context: string,
  bits: BlockBits,
  wait: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const client = await NbdClient.connect(
    { transport: 'unix', socket },
    { exportName, contexts: [context], ...wait },
  );
  try {
    for await (const { extents } of blockStatus(client, {
      longestRequest: longestRequest(bits.granularity),
      ...wait,
    })) {
      for (const { start, length, flags } of extents.get(context) ?? []) {
        if ((flags & 1) !== 0) bits.set(start, length);
      }
    }
  } finally {
    await client.close();
  }
}

function sourceOf(plan: MapPlan<Layer>, bitsFile: string): MapSource {
  if (plan.origin === 'allocation') return { kind: 'allocation' };
  if (plan.origin === 'depth') return { kind: 'depth', layers: plan.layers };
  return plan.layers.length === 1
    ? { kind: 'bitmap', context: bitmapContext(plan.bitmap) }
    : { kind: 'bits', file: bitsFile, granularity: plan.granularity };
}

/** The size of an export's disk in bytes, as its server presents it. */
export async function capacityOf(
  { socket, exportName }: Pick<QemuNbdServer, 'socket' | 'exportName'>,
  wait: { timeoutMs: number; signal: AbortSignal },
): Promise<number> {
  const client = await NbdClient.connect(
    { transport: 'unix', socket },
    { exportName, contexts: [], ...wait },
  );
  try {
    return client.facts.size;
  } finally {
    await client.close();
  }
}
