/** The private host of the fault campaign: its VMs, images and daemon, and what is expected of them. */
import { rmSync } from 'node:fs';
import { basename } from 'node:path';
import type { Drive } from '../../agent/api/generated.js';
import { MiB } from '../exports/rig.js';
import { groupId } from '../host/accounts.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { settle } from './check.js';
import { contentOf } from './disk-content.js';
import type { Arming } from './inject/point.js';
import { type InjectedDaemon, startInjected } from './injected-daemon.js';
import type { Expected } from './judge.js';
import { virsh } from './libvirt-facts.js';
import { OTHER_HOST, startOtherHost } from './other-host.js';
import { type CampaignVm, ModelVm, SIZE } from './vms.js';
import { WritingGuest } from './writing-guest.js';

/** The disks are small, and so may the scratch files' reserve be. */
const CONFIG = {
  limits: { scratchReserve: 16 * MiB },
  gateway: { listen: ['127.0.0.1:10809'], advertise: 'localhost' },
  ...OTHER_HOST,
};

/** Takes SCSI disks without a guest's consent; virtio ones would need it. */
const SCSI = "<controller type='scsi' index='0' model='virtio-scsi'/>";

/** Two layers with a bitmap in each, and what they hold. */
export interface BitmapChain {
  base: string;
  top: string;
  bitmap: string;
  before: Buffer;
  now: Buffer;
}

export class Rig {
  #daemon: InjectedDaemon | undefined;
  /** Milliseconds; to be set back by whoever reads it. */
  longestSettleMs = 0;
  readonly #lost = new Set<string>();
  /** `VM CHECKPOINT` that libvirt has been made to forget. */
  readonly forgotten = new Set<string>();
  /** Names of images that were made by way of the daemon, and are for the test to remove. */
  readonly created = new Set<string>();

  private constructor(
    readonly host: Host,
    /** Runs, with two disks. */
    readonly live: ModelVm,
    /** Is off, with one. */
    readonly off: ModelVm,
    /** Runs, and takes drives. */
    readonly app: ModelVm,
    /** Runs an operating system that writes. */
    readonly guest: WritingGuest,
    /** Starts the gateway, where it does not run. */
    readonly gatewayCommand: string,
    readonly chain: BitmapChain,
    /** Of an export of another host. */
    readonly remote: Drive,
  ) {}

  /** Everything of it is gone after the teardown. */
  static async start(t: Teardown): Promise<Rig> {
    const host = await startHost(t);
    const remote = await startOtherHost(t, host);
    const vm = (name: string, targets: string[], runs: boolean, devicesXml?: string) =>
      ModelVm.create(host, { name, targets, runs, ...(devicesXml !== undefined && { devicesXml }) });
    const live = await vm('live', ['vda', 'vdb'], true);
    const off = await vm('off', ['vda'], false);
    const app = await vm('app', [], true, SCSI);
    const guest = await WritingGuest.boot(host);
    const gateway = await host.startGateway(CONFIG);
    const rig = new Rig(host, live, off, app, guest, gateway.command, await bitmapChain(host), remote);
    await rig.startDaemon();
    return rig;
  }

  get daemon(): InjectedDaemon {
    if (this.#daemon === undefined) throw new Error('no daemon was started');
    return this.#daemon;
  }

  get vms(): CampaignVm[] {
    return [this.live, this.off, this.app, this.guest];
  }

  async startDaemon(arming?: Arming): Promise<void> {
    this.#daemon = await startInjected(this.host, CONFIG, arming);
  }

  /** Its QEMU has died, and the bitmaps that were made in this run of it, which nobody can tell, went with it. */
  async markDead(vm: CampaignVm): Promise<void> {
    vm.died();
    const names = (await virsh(this.host, 'checkpoint-list', '--name', vm.name)).split('\n');
    for (const name of names.filter((one) => one !== '')) this.#lost.add(`${vm.name} ${name}`);
  }

  /** Removes what was made by way of the daemon. */
  removeCreated(): void {
    for (const name of this.created) {
      rmSync(this.host.path(`${IMAGES}/${name}`));
      this.created.delete(name);
    }
  }

  /** @param kept see `settle` */
  async settle(kept?: readonly string[]): Promise<void> {
    const names = this.vms.map(({ name }) => name);
    const begun = Date.now();
    await settle(this.host, names, this.#expected(), kept === undefined ? undefined : new Set(kept));
    this.longestSettleMs = Math.max(this.longestSettleMs, Date.now() - begun);
  }

  #expected(): Expected {
    const images = [...this.vms.flatMap(({ disks }) => disks.map(({ path }) => path)), CHAIN_BASE, CHAIN_TOP];
    return {
      pids: new Map(this.vms.map(({ name, pid }) => [name, pid])),
      images: new Set([...images.map((path) => basename(path)), ...this.created]),
      lost: this.#lost,
      forgotten: this.forgotten,
      qemuGid: groupId(this.host.dir, 'libvirt-qemu'),
    };
  }
}

export const IMAGES = '/var/lib/libvirt/images';
const [CHAIN_BASE, CHAIN_TOP, BITMAP] = ['chain-base.qcow2', 'chain-top.qcow2', 'b0'];

async function bitmapChain(host: Host): Promise<BitmapChain> {
  const raw = (path: string) => contentOf(host, path, 'qcow2');
  const write = (path: string, command: string) => host.must('qemu-io', ['-f', 'qcow2', '-c', command, path]);
  const base = await host.createImage({ name: CHAIN_BASE, format: 'qcow2', size: SIZE });
  await write(base, 'write -P 1 0 1M');
  const before = await raw(base);
  await host.must('qemu-img', ['bitmap', '--add', '-f', 'qcow2', base, BITMAP]);
  await write(base, 'write -P 2 512k 256k');
  const top = await host.createImage({
    name: CHAIN_TOP,
    format: 'qcow2',
    backing: { path: base, format: 'qcow2' },
  });
  await host.must('qemu-img', ['bitmap', '--add', '-f', 'qcow2', top, BITMAP]);
  await write(top, 'write -P 3 2M 128k');
  return { base, top, bitmap: BITMAP, before, now: await raw(top) };
}
