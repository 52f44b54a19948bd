import type { Guest } from '../host/guest.js';
import { poll } from '../host/poll.js';
import { type BackedUpDisk, createDisks, IMAGES } from './backup-disks.js';
import type { Rig } from './map-checks.js';
import { makePool } from './operations.js';
import { SeededRandom } from './random.js';
import { Writer } from './writer.js';

const DEADLINE_MS = 60_000;

/** A VM whose guest writes to all of its disks, and what can befall it. */
export class BackedUpVm {
  readonly name: string;
  readonly disks: readonly BackedUpDisk[];
  readonly writer: Writer;
  readonly #rig: Rig;
  readonly #seed: string;
  #guest: Guest | undefined;

  private constructor(rig: Rig, name: string, seed: string, disks: readonly BackedUpDisk[]) {
    this.#rig = rig;
    this.name = name;
    this.#seed = seed;
    this.disks = disks;
    this.writer = new Writer(disks, new SeededRandom(seed, name, 'writer'));
  }

  static async create(rig: Rig, name: string, seed: string): Promise<BackedUpVm> {
    const disks = await createDisks(rig.host, name, new SeededRandom(seed, name, 'disks'));
    return new BackedUpVm(rig, name, seed, disks);
  }

  /** Boots it, and has it written to. */
  async start(): Promise<void> {
    if (this.#guest === undefined) {
      this.#guest = await this.#rig.host.startGuest({
        name: this.name,
        pciePorts: 0,
        disks: this.disks.map(({ target, bus, format, path, driver }) => ({
          ...{ target, bus, format, path, driver, serial: target },
        })),
      });
    } else {
      await this.#guest.start();
    }
    await this.#guest.sh(makePool(this.#seed));
    this.writer.start(this.#guest);
  }

  /** Has it written to again after `writer.pause`. */
  resume(): void {
    this.writer.start(this.#running());
  }

  /** The guest powers itself off. */
  async stop(): Promise<void> {
    await this.writer.pause();
    await this.#running().shutdown();
  }

  /** QEMU is killed in the middle of the writing. */
  async kill(): Promise<void> {
    const { host } = this.#rig;
    const named = (args: readonly string[]): boolean =>
      args.some((arg) => arg.includes(`guest=${this.name},`));
    const qemu = (await host.processes()).find(({ args }) => named(args));
    if (qemu === undefined) throw new Error(`${this.name} has no QEMU`);
    await host.must('sh', ['-c', 'kill -9 "$0"', String(qemu.pid)]);
    await this.writer.abandon();
    await poll('libvirt to miss QEMU', DEADLINE_MS, async () => !(await this.#running().running()));
  }

  /** The disks as the guest itself reads them, past its page cache: SHA-256 in hex, by target. Not while it writes. */
  async checksums(): Promise<Map<string, string>> {
    const sums = new Map<string, string>();
    for (const { target } of this.disks) {
      const read = `dd if=$(disk-by-serial ${target}) iflag=direct bs=64k status=none | sha256sum`;
      sums.set(target, (await this.#running().sh(read)).slice(0, 64));
    }
    return sums;
  }

  /** The disk as qemu-img reads the image that the VM, which is off, will write to. Raw, into a file. */
  async copyImage(target: string, into: string): Promise<void> {
    const { host } = this.#rig;
    const listed = await host.virsh('domblklist', this.name);
    const top = new RegExp(`^\\s*${target}\\s+(\\S+)`, 'm').exec(listed)?.[1] ?? '';
    await host.must('qemu-img', ['convert', '-O', 'raw', top, into]);
  }

  /** Overlays, scratch files and sockets that are still there once all is merged and ended. */
  async filesLeft(): Promise<string[]> {
    const own = new Set(this.disks.flatMap(({ files }) => files));
    const scratch = ['/var/lib/vmdiskd/scratch', '/run/vmdiskd/backups'];
    const find = 'for d in "$@"; do [ ! -e "$d" ] || find "$d" -type f -o -type s; done';
    const found = await this.#rig.host.must('sh', ['-c', find, 'sh', IMAGES, ...scratch]);
    return found.split('\n').filter((file) => file !== '' && !own.has(file));
  }

  /** Ends it, whatever state it is in, and removes its images. */
  async remove(): Promise<void> {
    const { host } = this.#rig;
    await host.run('virsh', ['--connect', 'qemu:///system', 'destroy', this.name]);
    await this.writer.abandon();
    await host.run('virsh', [
      ...['--connect', 'qemu:///system', 'undefine', this.name],
      ...['--snapshots-metadata', '--checkpoints-metadata'],
    ]);
    await host.must('find', [IMAGES, '-type', 'f', '-delete']);
  }

  #running(): Guest {
    if (this.#guest === undefined) throw new Error(`${this.name} was never started`);
    return this.#guest;
  }
}
