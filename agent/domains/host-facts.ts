import type { LibvirtClient } from '../libvirt/index.js';
import { type QemuNbdFacts, qemuNbdFacts } from '../nbd/qemu-nbd-facts.js';
import { type HypervisorVersions, hypervisorVersions } from './hypervisor.js';

/** Facts are asked for again when they are older than this. */
const FRESH_MS = 10_000;

/**
 * Versions and abilities of the programs on this host, answered at once from the last time that they were asked for:
 * a hung libvirt delays nobody who asks what this host is.
 */
export class HostFacts {
  readonly #libvirt: LibvirtClient;
  #hypervisor: HypervisorVersions = { libvirt: null, qemu: null };
  #qemuNbd: QemuNbdFacts = { version: null, bitmaps: false, allocationDepth: false };
  #asked = 0;

  constructor(libvirt: LibvirtClient) {
    this.#libvirt = libvirt;
  }

  /** Asks now, and returns when the answers are there. */
  async refresh(): Promise<void> {
    this.#asked = Date.now();
    [this.#hypervisor, this.#qemuNbd] = await Promise.all([
      hypervisorVersions(this.#libvirt),
      qemuNbdFacts(),
    ]);
  }

  get current(): HypervisorVersions & { qemuNbd: QemuNbdFacts; connected: boolean } {
    if (Date.now() - this.#asked > FRESH_MS) void this.refresh();
    return { ...this.#hypervisor, qemuNbd: this.#qemuNbd, connected: this.#libvirt.status.connected };
  }
}
