import { join } from 'node:path';
import type { ServerProcesses } from '../host/process.js';
import type { PointsCall, PointsContext } from '../points-in-time/context.js';
import type { DriveRegistry } from './drive-record.js';
import type { ExportRegistry } from './registry.js';

/** What the operations on exports work with. */
export interface ExportsContext extends PointsContext {
  registry: ExportRegistry;
  /** Drives of other hosts in VMs of this one. */
  drives: DriveRegistry;
  processes: ServerProcesses;
  settings: ExportSettings;
}

export interface ExportSettings {
  hostId: string;
  /** Directory of run-time files; the exports' sockets lie in `exports/<id>/` below it. */
  run: string;
  allowedRoots: readonly string[];
  /** The group of QEMU's account. */
  qemuGroup: string;
  /** Whether a gateway is meant to run. */
  networkExports: boolean;
  /** Gateways whose drives may be plugged in here: `host` or `host:port`. */
  allowedHosts: readonly string[];
  /** libvirt's qemu.conf. */
  qemuConf: string;
  /** Exports at once, and of one VM's disks. */
  maxExports: number;
  maxExportsPerVm: number;
  /** Bytes that a throw-away layer may take. */
  scratchPerExport: number;
}

/** Who calls, and how long it may take. */
export type ExportCall = PointsCall;

/** Clients of an export that are promised a place. */
export const CONNECTIONS = 8;
/** What qemu-nbd is told: those, the daemon's own look at the map, and a client that has left unnoticed. */
export const SHARED = CONNECTIONS * 2;
/** Those that the gateway lets in at once; the rest is for the daemon, and for who reads on this host. */
export const NETWORK_CLIENTS = CONNECTIONS + 4;
/** Milliseconds that the gateway has to answer the daemon. */
export const GATEWAY_MS = 2000;
/** Milliseconds that another host's gateway has to let this host in, before QEMU is sent there. */
export const TRIAL_MS = 15_000;
/** Milliseconds for one step with a server: a connection, a request, a start. */
export const STEP_MS = 30_000;
/** Milliseconds that a server has between SIGTERM and SIGKILL, and until it must be gone. */
export const STOP = { graceMs: 10_000, timeoutMs: 20_000 };

/**
 * The same of one whose clients wrote: at its end it brings to the disk what they have not flushed, and its bitmaps, however
 * long that takes. Killed before, all of it would be lost without a word: it is waited for, and never killed.
 */
export const STOP_WRITER = { graceMs: 24 * 3600 * 1000, timeoutMs: 90_000 };

/** Of who opens which files: short, and the last one taken. */
export const CLAIMS = 'claims';
export const exportLock = (exportId: string): string => `export ${exportId}`;
/** Of another host's drive, in whatever VM of this one. */
export const driveLock = (serial: string): string => `drive ${serial}`;
export const vmLock = (uuid: string): string => `vm ${uuid}`;

/** The files of an export at run time. */
export function exportFiles(
  run: string,
  exportId: string,
): {
  dir: string;
  socket: string;
  base: string;
  stderr: string;
  overlayStderr: string;
  file: string;
  fileStderr: string;
  bits: string;
  data: string;
} {
  const dir = join(run, 'exports', exportId);
  return {
    dir,
    socket: join(dir, 'nbd.sock'),
    base: join(dir, 'base.sock'),
    stderr: join(dir, 'qemu-nbd.log'),
    overlayStderr: join(dir, 'overlay.log'),
    file: join(dir, 'disk'),
    fileStderr: join(dir, 'file.log'),
    bits: join(dir, 'map.bits'),
    data: join(dir, 'data.bits'),
  };
}
