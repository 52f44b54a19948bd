/** What the tests of exports share: calls that must fail, what is left behind, independent readers, VMs without a guest. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Test } from 'tap';
import type {
  Extent,
  GetChangedBlocksParams,
  PrepareBackupDiskParams,
  PrepareBackupDiskResult,
  Verbs,
} from '../../agent/api/generated.js';
import { type ErrorName, errorRegistry } from '../../agent/errors.js';
import { RpcFailure } from '../host/daemon.js';
import type { Guest } from '../host/guest.js';
import { diskXml, type GuestDisk } from '../host/guest-xml.js';
import type { Host } from '../host/host.js';

export const MiB = 1 << 20;
const RECORDS = '/var/lib/vmdiskd/exports';

/** What a caller has to say of params: the rest has defaults. */
export type Given<Params> = { [Member in keyof Params]?: Params[Member] };

/** Anything that answers verbs: the daemon's first connection or a further one. */
export interface Caller {
  call<Result>(method: string, params?: object, options?: { timeoutMs?: number }): Promise<Result>;
}

/** A verb with its own types. */
export function verb<N extends keyof Verbs>(
  caller: Caller,
  name: N,
  params: Given<Verbs[N]['params']>,
): Promise<Verbs[N]['result']> {
  return caller.call(name, params);
}

/** An export of an image, read-only, with everything else as by default. */
export function prepare(
  caller: Caller,
  params: Given<PrepareBackupDiskParams>,
): Promise<PrepareBackupDiskResult> {
  return verb(caller, 'prepareBackupDisk', params);
}

/** The whole map by pages of at most `maxExtents`. */
export async function wholeMap(
  caller: Caller,
  params: Given<GetChangedBlocksParams> & { maxExtents: number },
): Promise<{ extents: Extent[]; pages: number }> {
  const extents: Extent[] = [];
  let pages = 0;
  for (let offset: number | null = params.offset ?? 0; offset !== null; pages++) {
    const page: Verbs['getChangedBlocks']['result'] = await verb(caller, 'getChangedBlocks', {
      ...params,
      offset,
    });
    if (!('extents' in page)) throw new Error('asked for extents');
    extents.push(...page.extents);
    offset = page.nextOffset;
  }
  return { extents, pages };
}

/** Processes, files, mounts, and records of exports that have not ended. */
export async function remains(host: Host): Promise<string[]> {
  const records = recordFiles(host).flatMap((name) => {
    if (!name.endsWith('.json')) return [`${RECORDS}/${name}`];
    const { state } = readRecord(host, name.slice(0, -'.json'.length)) as { state: string };
    return state === 'ended' ? [] : [`${RECORDS}/${name}`];
  });
  // A process that is dying has no command line any more.
  const others = (await host.leftovers()).filter((line) => !/^process \d+ $/.test(line));
  return [...others, ...records].sort();
}

export function recordFiles(host: Host): string[] {
  return readdirSync(host.path(RECORDS));
}

/** An export's record, as it stands on disk. */
export function readRecord(host: Host, exportId: string): Record<string, unknown> {
  return JSON.parse(readFileSync(host.path(`${RECORDS}/${exportId}.json`), 'utf8'));
}

export function writeRecord(host: Host, exportId: string, content: object | string): void {
  const text = typeof content === 'string' ? content : JSON.stringify(content);
  writeFileSync(host.path(`${RECORDS}/${exportId}.json`), text);
}

/**
 * The call fails with that error of the registry; its message is one sentence or two that match `told`, its data
 * says what it is about; and whatever was on the host before is there after, no more and no less.
 */
export async function refused(
  t: Test,
  host: Host,
  name: ErrorName,
  call: () => Promise<unknown>,
  told: RegExp,
  about: object = {},
): Promise<RpcFailure> {
  const before = await remains(host);
  const failure = await failureOf(call());
  t.equal(failure.data.name, name, `${name}: ${failure.message}`);
  t.equal(failure.code, errorRegistry[name].code);
  t.match(failure.message, told);
  t.match(failure.message, /^\S.*\.$/, 'one line that ends');
  t.match(failure.data, { retryable: errorRegistry[name].retryable, ...about });
  // A record that is being replaced by the watch has a temporary file beside it for a moment.
  let after = await remains(host);
  for (let tries = 0; tries < 20 && after.join() !== before.join(); tries++) {
    await sleep(100);
    after = await remains(host);
  }
  t.strictSame(after, before, `${name} leaves nothing behind`);
  return failure;
}

/** What a call failed with; anything but an error of the daemon is thrown on. */
export async function failureOf(call: Promise<unknown>): Promise<RpcFailure> {
  try {
    const result = await call;
    throw new Error(`should have failed, and gave ${JSON.stringify(result)}`);
  } catch (error) {
    if (error instanceof RpcFailure) return error;
    throw error;
  }
}

/** SHA-256 of what an NBD client reads. */
export async function sha256OfExport(host: Host, uri: string): Promise<string> {
  // Four connections, as nbdcopy makes them where the server allows.
  const out = await host.must('sh', ['-c', 'nbdcopy --connections=4 "$0" - | sha256sum', uri]);
  return out.slice(0, 64);
}

/** SHA-256 of what the guest reads under a name that udev makes. */
export async function sha256In(guest: Guest, path: string): Promise<string> {
  await appears(guest, path);
  return guest.sha256(path);
}

/** Waits until a guest has a device that was plugged in. */
export async function appears(guest: Guest, path: string): Promise<void> {
  await guest.sh(
    `for i in $(seq 200); do [ -e ${path} ] && exit 0; sleep 0.1; done; ls -l /dev/disk/by-id >&2; exit 1`,
  );
}

/** SHA-256 of the disk that an image holds, by QEMU's own tool. */
export async function sha256OfImage(host: Host, path: string, format: string): Promise<string> {
  const script =
    'qemu-img convert -U -f "$1" -O raw "$0" "$0.plain" && sha256sum <"$0.plain" && rm "$0.plain"';
  return (await host.must('sh', ['-c', script, path, format])).slice(0, 64);
}

/** A meta context as nbdinfo reads it: neighbours of one type joined. */
export async function mapByNbdinfo(
  host: Host,
  uri: string,
  context: string,
): Promise<{ start: number; length: number; type: number }[]> {
  const rows: { offset: number; length: number; type: number }[] = JSON.parse(
    await host.must('nbdinfo', ['--json', `--map=${context}`, uri]),
  );
  const joined: { start: number; length: number; type: number }[] = [];
  for (const { offset, length, type } of rows) {
    const last = joined.at(-1);
    if (last?.type === type) last.length += length;
    else joined.push({ start: offset, length, type });
  }
  return joined;
}

/** The same list with one member of each extent only, neighbours joined. */
export function joinBy(extents: readonly Extent[], member: 'dirty' | 'zero') {
  const joined: { start: number; length: number; value: boolean }[] = [];
  for (const { start, length, [member]: value } of extents) {
    const last = joined.at(-1);
    if (last?.value === value) last.length += length;
    else joined.push({ start, length, value });
  }
  return joined;
}

/** In order, without gap or overlap, from one end of the disk to the other, no two neighbours alike. */
export function coversDisk(extents: readonly Extent[], capacity: number): boolean {
  let at = 0;
  for (const [index, { start, length, dirty, zero }] of extents.entries()) {
    const last = extents[index - 1];
    if (start !== at || length < 1 || (last?.dirty === dirty && last.zero === zero)) return false;
    at += length;
  }
  return at === capacity;
}

/** The members of a drive, each altered alone to something that the schema lets through. */
export function alteredDrives(drive: PrepareBackupDiskResult['drive'], otherSocket: string) {
  const altered = {
    hosts: [{ transport: 'unix', socket: otherSocket }],
    tls: true,
    readonly: !drive.readonly,
    serial: `${drive.serial.startsWith('a') ? 'b' : 'a'}${drive.serial.slice(1)}`,
    capacity: drive.capacity + 512,
  };
  return Object.entries(altered).map(([member, value]) => {
    if (isDeepStrictEqual(drive[member], value)) throw new Error(`${member} is not altered`);
    return { member, drive: { ...drive, [member]: value } };
  });
}

export interface BareVm {
  name: string;
  disks?: GuestDisk[];
  machine?: 'q35' | 'pc';
  /** Further elements of `<devices>`, as XML. */
  devicesXml?: string;
}

/** Defines a VM that never boots anything; started `--paused` it is a QEMU that holds its disks. */
export async function defineVm(
  host: Host,
  { name, disks = [], machine = 'q35', devicesXml = '' }: BareVm,
): Promise<string> {
  const xml = `
    <domain type='qemu'>
      <name>${name}</name>
      <memory unit='MiB'>32</memory>
      <os><type arch='x86_64' machine='${machine}'>hvm</type></os>
      <features><acpi/></features>
      <devices>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>
        ${disks.map(diskXml).join('')}
        ${devicesXml}
      </devices>
    </domain>`;
  const file = `/run/${name}.xml`;
  writeFileSync(host.path(file), xml);
  await host.virsh('define', file);
  return (await host.virsh('domuuid', name)).trim();
}
