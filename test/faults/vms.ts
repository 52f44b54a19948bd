/** The VMs of the fault campaign: QEMU processes without an operating system, and one that is off. They cost no CPU. */
import { defineVm, MiB } from '../exports/rig.js';
import type { Host } from '../host/host.js';
import { pidOf, virsh } from './libvirt-facts.js';

/** Bytes of each of their disks. */
export const SIZE = 4 * MiB;

/** What the campaign has to know of any of its VMs. */
export interface CampaignVm {
  readonly name: string;
  /** Whether it is to run. */
  readonly runs: boolean;
  readonly disks: readonly { path: string }[];
  /** QEMU's pid inside, as it is expected; null for one that is off. */
  readonly pid: number | null;
  /** Whether its QEMU is the one that was started last. */
  alive(): boolean;
  /** From now on it is expected to be off. */
  died(): void;
  /** Starts it, where it is to run and does not. */
  start(): Promise<void>;
}

/** A disk and what should be on it. */
export interface ModelDisk {
  target: string;
  /** Inside. */
  path: string;
  content: Buffer;
}

/** Its QEMU was not there to write any more. */
export class VmEnded extends Error {
  override readonly name = 'VmEnded';
}

/** A VM whose disks are written to by QEMU itself while it is there, and by qemu-io while it is not. */
export class ModelVm implements CampaignVm {
  #pid: number | null = null;
  #byte = 0;
  /** Where a write of somebody else was begun of which the end is not known. */
  #unsure: { target: string; offset: number; length: number } | null = null;

  private constructor(
    readonly host: Host,
    readonly name: string,
    readonly uuid: string,
    readonly disks: readonly ModelDisk[],
    /** Whether it is to run. */
    readonly runs: boolean,
  ) {}

  /** @param targets `vda`, `vdb`, …, each an image of its own */
  static async create(
    host: Host,
    {
      name,
      targets,
      devicesXml,
      runs,
    }: { name: string; targets: string[]; devicesXml?: string; runs: boolean },
  ): Promise<ModelVm> {
    const disks: ModelDisk[] = [];
    for (const target of targets) {
      const path = await host.createImage({ name: `${name}-${target}.qcow2`, format: 'qcow2', size: SIZE });
      disks.push({ target, path, content: Buffer.alloc(SIZE) });
    }
    const images = disks.map(({ target, path }) => ({ target, path, format: 'qcow2' as const }));
    const uuid = await defineVm(host, {
      name,
      disks: images,
      ...(devicesXml !== undefined && { devicesXml }),
    });
    const vm = new ModelVm(host, name, uuid, disks, runs);
    await vm.start();
    for (const { target } of disks) await vm.write(target, MiB, MiB);
    return vm;
  }

  get pid(): number | null {
    return this.#pid;
  }

  disk(target: string): ModelDisk {
    const found = this.disks.find((disk) => disk.target === target);
    if (found === undefined) throw new Error(`${this.name} has no ${target}`);
    return found;
  }

  /** What the disk holds now. */
  content(target: string): Buffer {
    return Buffer.from(this.disk(target).content);
  }

  alive(): boolean {
    return this.#pid !== null && pidOf(this.host, this.name) === this.#pid;
  }

  died(): void {
    this.#pid = null;
  }

  /** Paused. */
  async start(): Promise<void> {
    if (!this.runs || this.alive()) return;
    await virsh(this.host, 'start', '--paused', this.name);
    this.#pid = pidOf(this.host, this.name);
  }

  /**
   * Writes bytes that were not there before, and flushes them: what a guest has not flushed may go with QEMU.
   * @throws VmEnded
   */
  async write(target: string, offset: number, length: number): Promise<void> {
    this.#byte = (this.#byte % 255) + 1;
    const { path, content } = this.disk(target);
    const command = `write -f -P ${this.#byte} ${offset} ${length}`;
    if (this.runs) {
      const device = `/machine/peripheral/virtio-disk${this.disks.findIndex((disk) => disk.target === target)}`;
      const hmp = `qemu-io -d ${device}/virtio-backend "${command}"`;
      const said = await virsh(this.host, 'qemu-monitor-command', this.name, '--hmp', hmp).catch(
        (cause: Error) => {
          throw /domain is not running/.test(cause.message) ? new VmEnded(cause.message, { cause }) : cause;
        },
      );
      if (/error|failed|invalid|not found/i.test(said)) throw new Error(`${this.name}: ${command}: ${said}`);
    } else {
      const active = await this.active(target);
      await this.host.must('qemu-io', ['-f', 'qcow2', '-c', command, active ?? path]);
    }
    content.fill(this.#byte, offset, offset + length);
  }

  /**
   * Has somebody else write bytes that were not there before.
   * @param through returns when they are on the disk; where it throws, `makeSure` is to be called once nobody writes any more
   */
  async writeThrough(
    { target, offset, length }: { target: string; offset: number; length: number },
    through: (byte: number) => Promise<void>,
  ): Promise<void> {
    this.#byte = (this.#byte % 255) + 1;
    this.#unsure = { target, offset, length };
    const byte = this.#byte;
    await through(byte);
    this.disk(target).content.fill(byte, offset, offset + length);
    this.#unsure = null;
  }

  /** Writes over what a write that was cut short has left. */
  async makeSure(): Promise<void> {
    const unsure = this.#unsure;
    this.#unsure = null;
    if (unsure !== null) await this.write(unsure.target, unsure.offset, unsure.length);
  }

  /** The image that the disk writes to now. */
  async active(target: string): Promise<string | undefined> {
    const rows = (await virsh(this.host, 'domblklist', this.name)).split('\n');
    return rows.map((row) => row.trim().split(/\s+/)).find(([name]) => name === target)?.[1];
  }
}
