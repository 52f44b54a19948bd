/** What the tests of points in time share: a backup's copies, a VM without a guest that writes, what is left behind. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Test } from 'tap';
import type { PrepareBackupDiskResult, StartBackupResult } from '../../agent/api/generated.js';
import { type Caller, defineVm, MiB, remains as remainsOfExports, verb } from '../exports/rig.js';
import { firstDifference, rebuild } from '../golden/rebuild.js';
import type { DaemonConfig, DaemonHandle } from '../host/daemon.js';
import type { GuestDisk } from '../host/guest-xml.js';
import { type Host, startHost, type Teardown } from '../host/host.js';
import { poll } from '../host/poll.js';

const STATE = '/var/lib/vmdiskd';

/** Records of one kind, as they stand on disk. */
export function records(host: Host, kind: 'backups' | 'checkpoints'): Record<string, unknown>[] {
  const dir = host.path(`${STATE}/${kind}`);
  return readdirSync(dir).map((name) => JSON.parse(readFileSync(`${dir}/${name}`, 'utf8')));
}

/** What a backup must not leave behind: processes, files, records that have not ended, jobs in libvirt. */
export async function remains(host: Host, scratch = `${STATE}/scratch`): Promise<string[]> {
  const found = await remainsOfExports(host);
  for (const dir of ['/run/vmdiskd/backups', scratch]) {
    if (!existsSync(host.path(dir))) continue;
    for (const name of readdirSync(host.path(dir), { recursive: true })) found.push(`${dir}/${name}`);
  }
  for (const { backupId, state } of records(host, 'backups')) {
    if (state !== 'ended') found.push(`backup ${backupId} (${state})`);
  }
  for (const { checkpoint, state } of records(host, 'checkpoints')) {
    if (state !== 'ended' && state !== 'good') found.push(`checkpoint ${checkpoint} (${state})`);
  }
  for (const name of (await host.virsh('list', '--name')).split('\n').filter((name) => name !== '')) {
    if (await jobOf(host, name)) found.push(`a backup job of ${name}`);
  }
  return found;
}

/** libvirt's XML of the backup job that runs on a domain; empty without one. */
export async function jobOf(host: Host, vm: string): Promise<string> {
  return (await host.run('virsh', ['--quiet', 'backup-dumpxml', vm])).stdout.trim();
}

/** Names of a domain's checkpoints, as libvirt knows them. */
export async function checkpointsOf(host: Host, vm: string): Promise<string[]> {
  const names = await host.virsh('checkpoint-list', vm, '--name', '--topological');
  return names.split('\n').filter((name) => name !== '');
}

/** Names of the bitmaps that are stored in an image that nobody has open. */
export async function bitmapsIn(host: Host, path: string): Promise<string[]> {
  const info = JSON.parse(await host.must('qemu-img', ['info', '--output=json', path]));
  return (info['format-specific']?.data?.bitmaps ?? []).map(({ name }: { name: string }) => name);
}

/** Copies of disks as a backup tool keeps them: each made from the one before and what the map calls changed. */
export class Copies {
  readonly #host: Host;
  #made = 0;

  constructor(host: Host) {
    this.#host = host;
  }

  /** A file of the host's directory, outside and inside at the same path. */
  file(): string {
    this.#made += 1;
    return `${this.#host.dir}/copy-${this.#made}`;
  }

  /**
   * Reads what the map of an export calls changed over `base`, and holds it against the whole disk as nbdcopy reads
   * it: the map must not lack a change. @returns the copy
   */
  async take(t: Test, made: PrepareBackupDiskResult, base: string | null): Promise<string> {
    const { uri, cbt, drive } = made;
    if (cbt.nextOffset !== null) throw new Error('the map is expected inline');
    const [target, whole] = [this.file(), this.file()];
    const extents = cbt.extents;
    await rebuild(this.#host, { base, target, capacity: drive.capacity, uri, extents });
    await this.#host.must('nbdcopy', [uri, whole]);
    t.equal(firstDifference(target, whole), null, `${made.exportId}: ${cbt.mode} copy equals the disk`);
    return target;
  }

  /** The disk that an image file holds, as QEMU's own tool reads it. */
  async ofImage(path: string, format: string): Promise<string> {
    const target = this.file();
    await this.#host.must('qemu-img', ['convert', '-U', '-f', format, '-O', 'raw', path, target]);
    return target;
  }
}

/** Two files of the host are the same, byte for byte. */
export function same(t: Test, one: string, other: string, what: string): void {
  t.equal(firstDifference(one, other), null, what);
}

/** SHA-256 of a file of the host's directory. */
export const sha256 = (path: string): string => execFileSync('sha256sum', [path]).toString().slice(0, 64);

/** Writes to a disk of a VM that is started but not running its CPUs, where its guest would: above all that QEMU does. */
export async function writeTo(host: Host, vm: string, alias: string, ...commands: string[]): Promise<void> {
  for (const command of commands) {
    const device = `/machine/peripheral/${alias}/virtio-backend`;
    const said = await host.virsh('qemu-monitor-command', vm, '--hmp', `qemu-io -d ${device} "${command}"`);
    if (/error|failed|invalid|not found/i.test(said)) throw new Error(`${command}: ${said}`);
  }
}

/** Defines the VM again with another image behind its disk. */
export async function point(host: Host, name: string, from: string, to: string): Promise<void> {
  const dumped = await host.virsh('dumpxml', '--inactive', '--security-info', name);
  const xml = dumped.replace(/<backingStore type=[\s\S]*?<\/backingStore>(?=\s*<target)/g, '');
  if (!xml.includes(from)) throw new Error(`${name} does not have ${from}`);
  writeFileSync(host.path('/run/point.xml'), xml.replace(from, to));
  await host.virsh('define', '/run/point.xml');
}

/** qemu-io commands on an image that nobody has open. */
export const io = (host: Host, path: string, ...commands: string[]): Promise<string> =>
  host.must('qemu-io', ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path]);

export interface SmallImage {
  host: Host;
  name: string;
  /** Bytes (default 8 MiB). */
  size?: number;
}

/** A qcow2 image with some data. */
export async function smallImage({ host, name, size = 8 * MiB }: SmallImage): Promise<string> {
  const path = await host.createImage({ name, format: 'qcow2', size });
  await io(host, path, 'write -P 1 0 1M', 'write -P 2 4M 256k');
  return path;
}

export const virtio = (target: string, path: string, format: 'qcow2' | 'raw' = 'qcow2'): GuestDisk => ({
  target,
  path,
  format,
});

/**
 * Defines and starts a VM that runs no code: a QEMU that holds a small qcow2 disk, `vda`, and has a virtio-scsi controller, on
 * which drives come and go without a guest's help.
 */
export async function pausedVm(host: Host, name: string): Promise<void> {
  const disk = await smallImage({ host, name: `${name}.qcow2` });
  const scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>";
  await defineVm(host, { name, disks: [virtio('vda', disk)], devicesXml: scsi });
  await host.virsh('start', '--paused', name);
}

/** A host with paused VMs of these names, a small image that is no VM's, and a daemon that wants little scratch space. */
export async function pausedHost(
  t: Teardown,
  names: readonly string[],
): Promise<{ host: Host; image: string; config: DaemonConfig; daemon: DaemonHandle }> {
  const host = await startHost(t);
  const image = await smallImage({ host, name: 'image.qcow2' });
  for (const name of names) await pausedVm(host, name);
  const config: DaemonConfig = { limits: { scratchReserve: MiB } };
  return { host, image, config, daemon: await host.startDaemon(config) };
}

/** What a caller has to say of a backup: the rest has defaults. */
export interface StartParams {
  backupId: string;
  vmId: string;
  disks: { disk: string; since?: { checkpoint: string }; ifUntracked?: 'fail' | 'full' }[];
  checkpoint?: string;
  quiesce?: 'no' | 'try' | 'require';
  leaseSeconds?: number;
}

export const startBackup = (caller: Caller, params: StartParams): Promise<StartBackupResult> =>
  caller.call('startBackup', params);

/** Waits until an export is failed, and returns why. */
export async function whyFailed(caller: Caller, exportId: string): Promise<string> {
  let message = '';
  await poll(`${exportId} to fail`, 30_000, async () => {
    const row = await verb(caller, 'getExport', { exportId });
    message = row.error?.message ?? '';
    return row.state === 'failed';
  });
  return message;
}
