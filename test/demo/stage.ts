/** The private host of the demo, who is in it, and how a call is shown. */
import type { GetHostInfoResult } from '../../agent/api/generated.js';
import type { DaemonHandle } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { size } from './map.js';
import { jsonLines, type Report } from './report.js';

export const MIB = 1 << 20;
export const CAPACITY = 64 * MIB;
/** The image of shop's disk. */
export const IMAGE = 'shop.qcow2';

/** A JSON-RPC call that is shown in one line; `shown` are its params where they are too long for that. */
export type Rpc = <Result>(method: string, params: object, shown?: string) => Promise<Result>;

/** The private host and who is in it. */
export interface Stage {
  report: Report;
  host: Host;
  daemon: DaemonHandle;
  rpc: Rpc;
  /** The VM whose disk is backed up. */
  shop: Guest;
  /** The VM in which a backup product runs. */
  appliance: Guest;
}

export async function setTheStage(t: Teardown, report: Report): Promise<Stage> {
  report.step('Start a private host: libvirtd, two small guests (emulated, without KVM), and the daemon');
  const [host, hostMs] = await timed(startHost(t));
  report.done(`libvirtd in namespaces of its own; files under ${host.dir}`, hostMs);
  const path = await host.createImage({ name: IMAGE, format: 'qcow2', size: CAPACITY });
  // What a guest can write during the demo is less than that reserve; a merge is slowed down so that one sees it.
  const limits = { scratchReserve: CAPACITY, mergeBytesPerSecond: 2 * MIB };
  const [[shop, shopMs], [appliance, applianceMs], [daemon, daemonMs]] = await Promise.all([
    timed(host.startGuest({ name: 'shop', disks: [{ target: 'vda', path, format: 'qcow2' }] })),
    timed(host.startGuest({ name: 'appliance', scsiController: true })),
    timed(host.startDaemon({ limits })),
  ]);
  report.done(`VM "shop": its disk vda (${size(CAPACITY)}, qcow2) is to be backed up`, shopMs);
  report.done('VM "appliance": no disk; a backup product would run in it', applianceMs);
  report.done('vmdiskd: JSON-RPC on /run/vmdiskd/vmdiskd.sock (below, "> verb params" is a call)', daemonMs);
  const rpc = shownCalls(daemon, report);
  report.detail(jsonLines((await rpc<GetHostInfoResult>('getHostInfo', {})).versions));
  return { report, host, daemon, rpc, shop, appliance };
}

function shownCalls(daemon: DaemonHandle, report: Report): Rpc {
  return async <Result>(method: string, params: object, shown = JSON.stringify(params)) => {
    const [result, ms] = await timed(daemon.call<Result>(method, params));
    report.call(method, shown, ms);
    return result;
  };
}

/** The beginning is enough for the eye; what is compared is all of it. */
export function checksum(sha256: string): string {
  return `sha256 ${sha256.slice(0, 16)}...`;
}

/** A comparison in one line: what was compared, and its checksum. */
export function compared(what: string, sha256: string): string {
  return `${what.padEnd(56)} ${checksum(sha256)}`;
}

export async function timed<T>(work: Promise<T>): Promise<[result: T, ms: number]> {
  const began = performance.now();
  const result = await work;
  return [result, performance.now() - began];
}
