/** Holds a host against the records, both ways. Every function tells what is wrong, a line each. */
import { isDeepStrictEqual } from 'node:util';
import { differ } from './differ.js';
import type { HostFacts } from './host-facts.js';
import { judgeFiles, judgeProcesses, judgeSockets } from './judge-host.js';
import type { VmFacts } from './libvirt-facts.js';

/** What is known of the host besides the records. */
export interface Expected {
  /** QEMU's pid of each VM that should run; null: it should not. */
  pids: ReadonlyMap<string, number | null>;
  /** Names of the images that the test has made. */
  images: ReadonlySet<string>;
  /** `VM CHECKPOINT`: whose bitmaps went with a QEMU that was killed. */
  lost: ReadonlySet<string>;
  /** `VM CHECKPOINT` that libvirt may have forgotten. */
  forgotten: ReadonlySet<string>;
  /** The group of QEMU's account. */
  qemuGid: number;
}

export function judge(facts: HostFacts, expected: Expected): string[] {
  return [
    ...judgeStates(facts),
    ...judgeProcesses(facts, expected),
    ...judgeFiles(facts, expected),
    ...judgeSockets(facts, expected),
    ...judgeNetwork(facts),
    ...facts.vms.flatMap((vm) => [
      ...judgeGuest(vm, expected),
      ...judgePoints(facts, vm, expected),
      ...judgeGraph(facts, vm),
      ...judgeAttachments(facts, vm),
    ]),
  ];
}

/** After everything was torn down: besides that, no record is alive. */
export function judgeEmpty({ records }: HostFacts, kept: ReadonlySet<string>): string[] {
  return [
    ...records.exports
      .filter(({ ended }) => ended === null)
      .map((one) => `export ${one.exportId} is ${one.state}`),
    ...records.drives.map((one) => `the drive ${one.drive.name} is ${one.attachment.state}`),
    ...records.backups
      .filter(({ ended }) => ended === null)
      .map((one) => `backup ${one.backupId} is ${one.state}`),
    ...records.checkpoints
      .filter(({ ended, checkpoint }) => ended === null && !kept.has(checkpoint))
      .map((one) => `checkpoint ${one.checkpoint} is ${one.state}`),
    ...records.snapshots
      .filter(({ ended }) => ended === null)
      .map((one) => `snapshot ${one.snapshotId} is ${one.state}`),
    ...records.jobs.filter(({ ended }) => ended === null).map((one) => `job ${one.jobId} is ${one.state}`),
  ];
}

/** Nothing is half-way, and a checkpoint is pending only while there is somebody to decide. */
function judgeStates({ records }: HostFacts): string[] {
  const settled = {
    exports: ['ready', 'failed', 'ended'],
    backups: ['running', 'failed', 'ended'],
    checkpoints: ['pending', 'good', 'ended'],
    snapshots: ['ready', 'merging', 'ended'],
  };
  const halfway = Object.entries(settled).flatMap(([kind, states]) =>
    records[kind as keyof typeof settled]
      .filter(({ state }) => !states.includes(state))
      .map((record) => `a record of ${kind} is ${record.state}: ${JSON.stringify(record).slice(0, 200)}`),
  );
  const makers = {
    backup: records.backups.filter(({ ended }) => ended === null).map(({ backupId }) => backupId),
    export: records.exports.filter(({ ended }) => ended === null).map(({ exportId }) => exportId),
    snapshot: records.snapshots.filter(({ ended }) => ended === null).map(({ snapshotId }) => snapshotId),
  };
  const orphans = records.checkpoints
    .filter(
      ({ state, madeBy }) =>
        state === 'pending' && madeBy.kind !== 'snapshot' && !makers[madeBy.kind].includes(madeBy.id),
    )
    .map(
      ({ checkpoint, madeBy }) =>
        `checkpoint ${checkpoint} waits for the ${madeBy.kind} ${madeBy.id}, which is no more`,
    );
  const idle = records.jobs
    .filter(
      ({ state, jobId }) =>
        state === 'running' &&
        !records.snapshots.some((one) => one.state === 'merging' && one.jobId === jobId),
    )
    .map(({ jobId, subject }) => `job ${jobId} runs, and no record of ${subject} is merging under it`);
  const unsettled = records.drives
    .filter(({ attachment }) => attachment.state !== 'attached')
    .map(({ drive, attachment }) => `the drive ${drive.name} is ${attachment.state}`);
  return [...halfway, ...orphans, ...idle, ...unsettled];
}

/** Whether the problem is that a VM has ended. */
export function isEndedVm(problem: string): boolean {
  return / does not run, and should in \d+$/.test(problem);
}

/** What the gateway knows: the exports on the network and no others, as they are on record. */
function judgeNetwork({ records, entries }: HostFacts): string[] {
  const tcp = records.exports.filter(({ ended, params }) => !ended && params.transport?.type === 'tcp');
  return [
    ...differ(
      [...entries.keys()],
      tcp.map(({ exportId }) => exportId),
      "the gateway's entry of export",
    ),
    ...tcp.flatMap(({ exportId, server, lease }) => {
      const entry = entries.get(exportId);
      if (entry === undefined) return [];
      const same = entry?.server.socket === server?.socket && isDeepStrictEqual(entry?.lease, lease);
      return same ? [] : [`the gateway's entry of export ${exportId} is another than its record`];
    }),
  ];
}

function judgeGuest({ name, pid }: VmFacts, { pids }: Expected): string[] {
  const wanted = pids.get(name) ?? null;
  if (pid === wanted) return [];
  return [
    `${name} ${pid === null ? 'does not run' : `runs in ${pid}`}, and should ${wanted === null ? 'not run' : `in ${wanted}`}`,
  ];
}

/** Backup jobs, checkpoints with their bitmaps, snapshots. */
function judgePoints(
  { records, storedBitmaps }: HostFacts,
  vm: VmFacts,
  { lost, forgotten }: Expected,
): string[] {
  const of = <T extends { vm: { uuid: string } | null }>(list: readonly T[]) =>
    list.filter((one) => one.vm?.uuid === vm.uuid);
  const checkpoints = of(records.checkpoints)
    .filter(({ ended }) => ended === null)
    .map(({ checkpoint }) => checkpoint);
  const jobs = of(records.backups)
    .filter(({ state }) => state === 'running')
    .map(({ socket }) => socket);
  const snapshots = of(records.snapshots)
    .filter(({ ended }) => ended === null)
    .map(({ snapshotId }) => snapshotId);
  const bitmaps =
    vm.pid === null ? (storedBitmaps.get(vm.name) ?? []) : vm.nodes.flatMap((node) => node.bitmaps);
  const own = [...new Set(bitmaps)].filter(
    (bitmap) => vm.backupSocket === null || !bitmap.startsWith('backup-'),
  );
  /** Without those that may be missing and are. */
  const unless = (excused: ReadonlySet<string>, there: readonly string[]) =>
    checkpoints.filter((one) => there.includes(one) || !excused.has(`${vm.name} ${one}`));
  return [
    ...differ(vm.backupSocket === null ? [] : [vm.backupSocket], jobs, `${vm.name}: the backup job at`),
    ...differ(vm.checkpoints, unless(forgotten, vm.checkpoints), `${vm.name}: libvirt's checkpoint`),
    ...differ(own, unless(lost, own), `${vm.name}: bitmap`),
    ...differ(vm.snapshots, snapshots, `${vm.name}: libvirt's snapshot`),
  ];
}

/** QEMU's own jobs, exports and nodes. */
function judgeGraph({ records }: HostFacts, vm: VmFacts): string[] {
  if (vm.pid === null) return [];
  const found: string[] = [];
  const backedUp = vm.backupSocket !== null;
  const merging = records.snapshots.some(
    ({ state, vm: { uuid } }) => state === 'merging' && uuid === vm.uuid,
  );
  for (const job of vm.jobs) {
    if (job.startsWith('backup-') ? !backedUp : !merging) found.push(`${vm.name}: QEMU's job ${job} is left`);
  }
  if (!backedUp) found.push(...vm.exports.map((id) => `${vm.name}: QEMU's block export ${id} is left`));
  const nbds = vm.nodes.filter(({ driver }) => driver === 'nbd').length;
  if (nbds !== vm.aliases.live.length) {
    found.push(`${vm.name}: QEMU has ${nbds} NBD nodes for ${vm.aliases.live.length} drives`);
  }
  const files = new Set([...vm.files, ...vm.scratch]);
  for (const { name, driver, file } of vm.nodes) {
    const ofBackup = driver === 'copy-before-write' && backedUp;
    const ofMerge = /mirror|commit/.test(driver) && merging;
    if (driver === 'nbd' || /^nbd[+:]/.test(file) || /^json:/.test(file) || ofBackup || ofMerge) continue;
    if (!files.has(file)) found.push(`${vm.name}: QEMU's node ${name} (${driver}, ${file}) is left`);
  }
  return found;
}

function judgeAttachments({ records }: HostFacts, { name, uuid, aliases, pid }: VmFacts): string[] {
  const attached = [
    ...records.exports.filter(({ ended }) => ended === null).flatMap(({ attachments }) => attachments),
    ...records.drives.map(({ attachment }) => attachment),
  ].filter(({ vm }) => vm.uuid === uuid);
  const stored = attached.filter(({ persistent }) => persistent).map(({ alias }) => alias);
  const live = pid === null ? aliases.stored : aliases.live;
  return [
    ...differ(
      live,
      attached.map(({ alias }) => alias),
      `${name}: drive`,
    ),
    ...differ(aliases.stored, stored, `${name}: stored drive`),
  ];
}
