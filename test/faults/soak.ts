/**
 * `npm run test:soak`: one cycle of the main flow after another, to see what adds up. `CYCLES=N` (default 960). A line of
 * numbers each 50 cycles, then a verdict: no failure, nothing left, and the daemon's resident memory grows by less than
 * 1 KiB a cycle after the first 100. Anything else is a non-zero exit.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { MiB, verb } from '../exports/rig.js';
import { groupId } from '../host/accounts.js';
import type { DaemonHandle } from '../host/daemon.js';
import { type Host, startHost } from '../host/host.js';
import { NotSettled, settle } from './check.js';
import { verifyExport } from './disk-content.js';
import { ModelVm, SIZE } from './vms.js';

const CONFIG = { limits: { scratchReserve: 16 * MiB } };
const REPORT_EVERY = 50;
/** Cycles until the daemon has taken the memory that it needs. */
const WARM_UP = 100;
/** Cycles of which the median counts, at the beginning and at the end. */
const WINDOW = 100;
const MOST_GROWTH = 1024;
/** Every so many cycles one goes by way of a snapshot and a merge. */
const SNAPSHOT_EVERY = 4;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** What the cycles go on from. */
interface Soak {
  host: Host;
  daemon: DaemonHandle;
  live: ModelVm;
  app: ModelVm;
  /** The last good backup. */
  base: { checkpoint: string; content: Buffer } | null;
}

async function start(closers: (() => unknown)[]): Promise<Soak> {
  const host = await startHost({ teardown: (close) => closers.push(close) });
  const live = await ModelVm.create(host, { name: 'live', targets: ['vda'], runs: true });
  const scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>";
  const app = await ModelVm.create(host, { name: 'app', targets: [], runs: true, devicesXml: scsi });
  return { host, live, app, base: null, daemon: await host.startDaemon(CONFIG) };
}

/** A backup with a checkpoint of its own, plugged in, read, unplugged, torn down; then the older checkpoint goes. */
async function cycle(soak: Soak, round: number): Promise<void> {
  const { daemon, live } = soak;
  const vmId = live.name;
  const [exportId, checkpoint] = [`soak-${round}`, `point-${round}`];
  await live.write('vda', (round % (SIZE / 65536)) * 65536, 65536);
  const content = live.content('vda');
  const { base } = soak;
  const made = await verb(daemon, 'prepareBackupDisk', {
    ...{ exportId, vmId, disk: 'vda', checkpoint },
    ...(base !== null && { since: { checkpoint: base.checkpoint } }),
  });
  await readThrough(soak, made, content, base?.content ?? null);
  await verb(daemon, 'teardownBackupDisk', { exportId, outcome: 'success' });
  soak.base = { checkpoint, content };
  if (base !== null) await verb(daemon, 'deleteCheckpoint', { vmId, checkpoint: base.checkpoint });
  if (round % SNAPSHOT_EVERY === 0) await snapshotCycle(soak, round);
}

async function readThrough(
  { host, daemon, app }: Soak,
  made: Made,
  content: Buffer,
  since: Buffer | null,
): Promise<void> {
  await verb(daemon, 'hotplugDisk', { vmId: app.name, drive: made.drive });
  await verifyExport(host, made, content, since);
  await verb(daemon, 'hotunplugDisk', { vmId: app.name, drive: made.drive });
}
type Made = Parameters<typeof verifyExport>[1];

async function snapshotCycle(soak: Soak, round: number): Promise<void> {
  const { daemon, live } = soak;
  const vmId = live.name;
  const [snapshotId, exportId] = [`snap-${round}`, `frozen-${round}`];
  const content = live.content('vda');
  await verb(daemon, 'createSnapshot', { vmId, snapshotId, quiesce: 'no' });
  await live.write('vda', 0, 65536);
  const made = await verb(daemon, 'prepareBackupDisk', { exportId, vmId, disk: 'vda', snapshotId });
  await readThrough(soak, made, content, null);
  await verb(daemon, 'teardownBackupDisk', { exportId });
  const { jobId } = await verb(daemon, 'deleteSnapshot', { vmId, snapshotId });
  for (;;) {
    const { state, error } = await verb(daemon, 'getJob', { jobId });
    if (state === 'done') return;
    if (state !== 'running') throw new Error(`the merge is ${state}: ${error?.message}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Bytes. */
function residentMemory({ host, daemon }: Soak): number {
  const status = readFileSync(`/proc/${host.pid}/root/proc/${daemon.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

/** What is on the host besides the last good backup's checkpoint. */
async function leftovers({ host, live, app, base }: Soak): Promise<readonly string[]> {
  const vms = [live, app];
  const expected = {
    pids: new Map(vms.map(({ name, pid }) => [name, pid])),
    images: new Set(live.disks.map(({ path }) => basename(path))),
    lost: new Set<string>(),
    forgotten: new Set<string>(),
    qemuGid: groupId(host.dir, 'libvirt-qemu'),
  };
  const names = vms.map(({ name }) => name);
  try {
    await settle(host, names, expected, new Set(base === null ? [] : [base.checkpoint]));
    return [];
  } catch (error) {
    if (error instanceof NotSettled) return error.problems;
    throw error;
  }
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** Bytes a cycle, by the medians of the first window after the warm-up and of the last one. */
function growth(memory: readonly number[]): number {
  const measured = memory.slice(WARM_UP);
  const window = Math.min(WINDOW, Math.floor(measured.length / 2));
  const [first, last] = [median(measured.slice(0, window)), median(measured.slice(-window))];
  return (last - first) / (measured.length - window);
}

const CYCLES = Number(process.env.CYCLES ?? 960);
if (!Number.isSafeInteger(CYCLES) || CYCLES < WARM_UP + 2) {
  say(`usage: CYCLES=N npm run test:soak, and N more than ${WARM_UP}`);
  process.exit(1);
}
const closers: (() => unknown)[] = [];
try {
  const soak = await start(closers);
  const memory: number[] = [];
  const left: string[] = [];
  let failures = 0;
  const begun = Date.now();
  for (let round = 1; round <= CYCLES; round++) {
    await cycle(soak, round).catch((error: Error) => {
      failures += 1;
      say(`FAILED cycle ${round}: ${error.stack}`);
    });
    memory.push(residentMemory(soak));
    if (round % REPORT_EVERY !== 0 && round !== CYCLES) continue;
    left.push(...(await leftovers(soak)));
    const rss = median(memory.slice(-REPORT_EVERY)) / MiB;
    const seconds = (Date.now() - begun) / 1000 / round;
    say(
      JSON.stringify({
        cycles: round,
        failures,
        leftovers: left.length,
        rssMiB: +rss.toFixed(2),
        seconds: +seconds.toFixed(2),
      }),
    );
  }
  for (const line of new Set(left)) say(`LEFT ${line}`);
  const perCycle = growth(memory);
  const good = failures === 0 && left.length === 0 && perCycle < MOST_GROWTH;
  say(
    `${good ? 'ok' : 'FAILED'}: ${CYCLES} cycles in ${((Date.now() - begun) / 60_000).toFixed(1)} minutes, ${failures} failed, ` +
      `${left.length} things left; resident memory grew by ${perCycle.toFixed(0)} bytes a cycle after the first ${WARM_UP}`,
  );
  if (!good) process.exitCode = 1;
} finally {
  for (const close of closers.reverse()) await close();
}
