/** The configuration as what works with it takes it: resolved once at the start, and again at a reload. */
import type { Config } from '../config/config.js';
import { qemuConfFile } from '../domains/qemu-conf.js';
import type { PointsSettings } from '../points-in-time/context.js';
import type { ExportSettings } from './context.js';

/** What of the configuration exports go by. */
export function exportSettings(config: Config): ExportSettings {
  const { exports, exportsPerVm, scratchPerExport } = config.limits;
  return {
    hostId: config.hostId,
    run: config.paths.run,
    allowedRoots: config.images.allowedRoots,
    qemuGroup: config.qemu.group,
    networkExports: config.gateway.listen.length > 0,
    allowedHosts: config.hotplug.allowedHosts,
    qemuConf: qemuConfFile(config.libvirt.uri),
    maxExports: exports,
    maxExportsPerVm: exportsPerVm,
    scratchPerExport,
  };
}

/** What of it points in time go by. */
export function pointsSettings(config: Config, confinement: PointsSettings['confinement']): PointsSettings {
  const { scratchReserve, maxLease, stateSeconds, mergeBytesPerSecond } = config.limits;
  return {
    run: config.paths.run,
    scratch: config.paths.scratch,
    allowedRoots: config.images.allowedRoots,
    confinement,
    qemuUser: config.qemu.user,
    scratchReserve,
    maxLease,
    stateMs: inMilliseconds(stateSeconds),
    mergeRate: mergeBytesPerSecond,
  };
}

function inMilliseconds<K extends string>(seconds: Readonly<Record<K, number>>): Record<K, number> {
  const entries = Object.entries<number>(seconds).map(([name, value]) => [name, value * 1000]);
  return Object.fromEntries(entries) as Record<K, number>;
}
