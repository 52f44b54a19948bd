import type { DomainConfig } from './config.js';

/** The buses that drives are plugged in on. */
export type HotplugBus = 'virtio' | 'scsi';

const PREFIX: Record<HotplugBus, string> = { virtio: 'vd', scsi: 'sd' };

/** The bus that a target name is for. */
export function busOfTarget(target: string): HotplugBus {
  return target.startsWith(PREFIX.scsi) ? 'scsi' : 'virtio';
}

/** The first target name of the bus that none of the configurations (the running and the stored one) uses. */
export function freeTarget(bus: HotplugBus, configs: readonly DomainConfig[]): string {
  const used = new Set(configs.flatMap(({ disks }) => disks.map(({ target }) => target)));
  for (let i = 0; ; i++) {
    const target = PREFIX[bus] + letters(i);
    if (!used.has(target)) return target;
  }
}

/** 0 is `a`, 25 `z`, 26 `aa`: the order in which libvirt and Linux name disks. */
function letters(index: number): string {
  const last = String.fromCharCode(97 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}
