import { uptime } from 'node:os';
import { Writable } from 'node:stream';
import { PendingThaws } from '../../agent/domains/freeze.js';
import { thawRegistry } from '../../agent/domains/thaw-record.js';
import type { ExportsContext } from '../../agent/exports/context.js';
import { driveRegistry } from '../../agent/exports/drive-record.js';
import { exportRegistry, readerOf, writerOf } from '../../agent/exports/registry.js';
import { KeyedLocks } from '../../agent/host/locks.js';
import { assertProcessName, type ServerProcesses } from '../../agent/host/process.js';
import { childProcesses } from '../../agent/host/process-child.js';
import type { SetAside } from '../../agent/host/records.js';
import { connectLibvirt } from '../../agent/libvirt/index.js';
import { createLog } from '../../agent/log.js';
import { backupRegistry } from '../../agent/points-in-time/backup-record.js';
import { checkpointRegistry } from '../../agent/points-in-time/checkpoint-record.js';
import { DrainGate } from '../../agent/points-in-time/drain-gate.js';
import { jobRegistry } from '../../agent/points-in-time/job-record.js';
import { RunningJobs } from '../../agent/points-in-time/running-jobs.js';
import { snapshotRegistry } from '../../agent/points-in-time/snapshot-record.js';
import { currentBoot, type Places, type Sample } from './record-samples.js';

/** What the daemon makes of a state directory, in this process: libvirt is away, and no process is ever one of ours. */
export interface RecordWorld {
  readonly context: ExportsContext;
  load(): Promise<SetAside[]>;
  has(folder: Sample['folder'], id: string): boolean;
  /** @throws Error where a process was to be ended, or the log tells of a mistake */
  check(): void;
}

/** Errors that say how things are; what else is logged as one is a mistake of the program. */
const facts = new Set(['AgentError', 'NotConnectedError', 'InvalidParams', 'MergeStopped']);

/** Closed for good: whoever asks it is told at once. */
const libvirt = connectLibvirt({ socket: '/nonexistent' });
await libvirt.close();

export function recordWorld(state: string, { run, scratch, images }: Places): RecordWorld {
  const faults: string[] = [];
  const processes: ServerProcesses = {
    ...childProcesses,
    async find(name) {
      assertProcessName(name);
      return undefined;
    },
    async stop({ identity }) {
      faults.push(`process ${identity.pid} was to be ended`);
    },
  };
  const out = new Writable({
    write(chunk: Buffer, _, done) {
      for (const line of chunk.toString().split('\n').filter(Boolean)) {
        const { err } = JSON.parse(line) as { err?: { type?: string; code?: string } };
        if (err !== undefined && !facts.has(err.type ?? '')) faults.push(`the log: ${line}`);
      }
      done();
    },
  });
  const registry = exportRegistry(state);
  const thaws = thawRegistry(state);
  const half = { recovery: 5000, halfWay: 5000, detach: 5000, leaseEnd: 5000 };
  const stateMs = { ...half, libvirtAway: 5000, frozen: 5000 };
  const context: ExportsContext = {
    events: { emit() {} },
    clock: { bootId: currentBoot(), now: () => uptime() * 1000 },
    registry,
    drives: driveRegistry(state),
    backups: backupRegistry(state),
    checkpoints: checkpointRegistry(state),
    snapshots: snapshotRegistry(state),
    jobs: jobRegistry(state),
    thaws: new PendingThaws(thaws),
    running: new RunningJobs(),
    drains: new DrainGate(),
    readerOf: (files) => readerOf(registry, files),
    writerOf: (files) => writerOf(registry, files),
    libvirt,
    processes,
    locks: new KeyedLocks(),
    log: createLog({ level: 'info', journal: false, out }),
    settings: {
      hostId: 'fuzz',
      run,
      allowedRoots: [images],
      qemuGroup: 'root',
      networkExports: true,
      // Nobody is asked there: it is found first that no certificate is where this file would have them.
      allowedHosts: ['host.example'],
      qemuConf: '/nonexistent',
      maxExports: 10,
      maxExportsPerVm: 10,
      scratchPerExport: 2 ** 30,
    },
    points: {
      confinement: null,
      run,
      scratch,
      allowedRoots: [images],
      qemuUser: 'root',
      scratchReserve: 0,
      mergeRate: 0,
      maxLease: 0,
      stateMs,
    },
  };
  const registries = {
    exports: registry,
    drives: context.drives,
    backups: context.backups,
    checkpoints: context.checkpoints,
    snapshots: context.snapshots,
    jobs: context.jobs,
    thaws,
  };
  return {
    context,
    async load() {
      const setAside: SetAside[] = [];
      for (const one of Object.values(registries)) setAside.push(...(await one.load()));
      return setAside;
    },
    has: (folder, id) => registries[folder].find(id) !== undefined,
    check() {
      if (faults.length > 0) throw new Error(faults.join('\n'));
    },
  };
}
