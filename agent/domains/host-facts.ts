import type { LibvirtClient } from '../libvirt/index.js';
import { type QemuNbdFacts, qemuNbdFacts } from '../nbd/qemu-nbd-facts.js';
import { type HypervisorVersions, hypervisorVersions } from './hypervisor.js';

/** Facts are asked for again when they are older than this. */
const FRESH_MS = 10_000;
/** Where some are missing, so long: each time a program is started to ask. */
const MISSING_MS = 1000;
/** Who asks waits no longer than this for newer ones. */
const WAIT_MS = 500;

export type Facts = HypervisorVersions & { qemuNbd: QemuNbdFacts; connected: boolean };

/**
 * Versions and abilities of the programs on this host. A hung libvirt delays nobody who asks what this host is: the
 * last answers stand until there are newer ones.
 */
export class HostFacts {
  readonly #libvirt: LibvirtClient;
  #hypervisor: HypervisorVersions = { libvirt: null, qemu: null };
  #qemuNbd: QemuNbdFacts = { version: null, bitmaps: false, allocationDepth: false };
  #freshUntil = 0;
  #asking: Promise<void> | undefined;

  constructor(libvirt: LibvirtClient) {
    this.#libvirt = libvirt;
    libvirt.on('back', () => {
      this.#freshUntil = 0;
    });
  }

  async current(): Promise<Facts> {
    if (Date.now() > this.#freshUntil) {
      const asking = this.refresh();
      let timer: NodeJS.Timeout | undefined;
      const waited = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, WAIT_MS);
      });
      await Promise.race([asking, waited]);
      clearTimeout(timer);
    }
    return { ...this.#hypervisor, qemuNbd: this.#qemuNbd, connected: this.#libvirt.status.connected };
  }

  /** Asks, and returns when all have answered or failed to: seconds at most. */
  refresh(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #ask(): Promise<void> {
    [this.#hypervisor, this.#qemuNbd] = await Promise.all([
      hypervisorVersions(this.#libvirt),
      qemuNbdFacts(),
    ]);
    const whole = this.#hypervisor.libvirt !== null && this.#qemuNbd.version !== null;
    this.#freshUntil = Date.now() + (whole ? FRESH_MS : MISSING_MS);
  }
}
