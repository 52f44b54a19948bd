import type { DomainConfig, ScsiTarget } from './config.js';

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

/** QEMU, hw/scsi/virtio-scsi.c: VIRTIO_SCSI_MAX_TARGET. */
const LAST_SCSI_TARGET = 255;

/**
 * A place on a virtio-scsi controller that all the configurations have, free in each of them. libvirt itself puts
 * disks on target 0, seven on a controller, and adds controllers that stay in the VM: from target 1 on nobody is in
 * the way, and nothing has to be added.
 * @returns null where they have such a controller and every target is taken; undefined where they have none
 */
export function freeScsiTarget(configs: readonly DomainConfig[]): ScsiTarget | null | undefined {
  const [first, ...others] = configs;
  const controllers = (first?.virtioScsi ?? []).filter((index) =>
    others.every(({ virtioScsi }) => virtioScsi.includes(index)),
  );
  for (const controller of controllers.sort((a, b) => a - b)) {
    const used = new Set(
      configs.flatMap(({ scsiTargets }) =>
        scsiTargets.filter((at) => at.controller === controller).map(({ target }) => target),
      ),
    );
    for (let target = 1; target <= LAST_SCSI_TARGET; target++) {
      if (!used.has(target)) return { controller, target };
    }
  }
  return controllers.length > 0 ? null : undefined;
}
