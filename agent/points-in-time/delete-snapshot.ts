import { readDomain } from '../domains/lookup.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError, type Cause } from '../errors.js';
import { CallsInFlight } from '../host/once.js';
import { refuseWhileBusy } from './busy.js';
import { withinVm } from './checkpoint-record.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import type { JobRecord } from './job-record.js';
import { endJob, newJob, ProgressWriter } from './jobs.js';
import { mergeAway } from './merge.js';
import { MergeStopped } from './merge-live.js';
import { disksOf, planDiskMerge } from './merge-plan.js';
import type { JobHandle, StopReason } from './running-jobs.js';
import { findSnapshot, SNAPSHOT_RECORD_VERSION, type SnapshotRecord } from './snapshot-record.js';
import { snapshotVm } from './snapshot-vm.js';

interface Wanted {
  vmId: string;
  snapshotId: string;
}

/** Deletes snapshots, each as a job that merges its layers; a repeated call finds the job that is at work. */
export class SnapshotDeletion {
  readonly #context: PointsContext;
  readonly #inFlight = new CallsInFlight<{ jobId: string }>();

  constructor(context: PointsContext) {
    this.#context = context;
  }

  async start(wanted: Wanted, call: PointsCall): Promise<{ jobId: string }> {
    const vm = await snapshotVm(this.#context, wanted, call.signal).catch((error: unknown) => {
      if (error instanceof AgentError && error.name === 'NoSuchVM') return null;
      throw error;
    });
    if (vm === null) return this.#nothingToDo(null, wanted.snapshotId, call);
    const { snapshotId } = wanted;
    return this.#inFlight.run(
      withinVm(vm.uuid, snapshotId),
      '',
      () => this.#start(vm, snapshotId, call),
      () => new Error('two equal requests differ'),
    );
  }

  /** At the daemon's start: goes on with the merges that it was at work on. */
  resume(): void {
    const { jobs, snapshots, log } = this.#context;
    for (const job of jobs.allLive()) {
      if (job.work !== 'deleteSnapshot' || job.vm === null) continue;
      const record = findSnapshot(snapshots, job.vm.uuid, job.subject);
      const end = (state: 'done' | 'failed') =>
        void endJob(jobs, job.jobId, state, state === 'done' ? null : lost(job)).catch((err: unknown) =>
          log.error({ jobId: job.jobId, err }, 'a job could not be ended'),
        );
      if (record === undefined || record.state !== 'merging')
        end(record?.state === 'ended' ? 'done' : 'failed');
      else void this.#underLock(record, async () => record, job.jobId).catch(() => end('failed'));
    }
  }

  async #start(
    vm: SnapshotRecord['vm'] & { gone: boolean },
    snapshotId: string,
    call: PointsCall,
  ): Promise<{ jobId: string }> {
    const { snapshots, libvirt, running } = this.#context;
    const record = findSnapshot(snapshots, vm.uuid, snapshotId);
    if (record?.jobId != null && running.has(record.jobId)) return { jobId: record.jobId };
    if (record?.state === 'ended' || vm.gone) {
      // With the VM, libvirt's metadata are gone, and nobody can say any more which of its files are whose.
      if (record !== undefined && record.ended === null) await snapshots.save(endedNow(record));
      return this.#nothingToDo(vm, snapshotId, call);
    }
    const { domain } = await readDomain(libvirt, vm.uuid, call.signal);
    const facts = await readSnapshot(libvirt, domain, snapshotId, call.signal);
    if (record === undefined && facts === undefined) return this.#nothingToDo(vm, snapshotId, call);
    if (record === undefined && facts !== undefined) refuseOthersKinds(vm, facts);
    const job = newJob({
      owner: call.owner,
      work: 'deleteSnapshot',
      subject: snapshotId,
      vm: { uuid: vm.uuid, name: vm.name },
    });
    await this.#underLock({ vm, snapshotId }, () => this.#begin(vm, snapshotId, job, call), job.jobId);
    return { jobId: job.jobId };
  }

  /** Begins the job under the VM's lock and lets go of the caller, while the lock is kept until the job has ended. */
  async #underLock(
    { vm, snapshotId }: Pick<SnapshotRecord, 'vm' | 'snapshotId'>,
    begin: () => Promise<SnapshotRecord>,
    jobId: string,
  ): Promise<void> {
    const { running, log } = this.#context;
    await new Promise<void>((begun, refuse) => {
      exclusively(this.#context, vm, `deleteSnapshot "${snapshotId}" (job ${jobId})`, async () => {
        await begin();
        await running.run(jobId, async (handle) => {
          begun();
          await this.#work(vm.uuid, snapshotId, jobId, handle);
        });
      }).catch((error: unknown) => {
        log.debug({ err: error, snapshotId }, 'deleteSnapshot has not begun');
        refuse(error);
      });
    });
  }

  /**
   * From here on the snapshot is `merging`. That is written down before the readers are looked for, as an export's record
   * is before it looks whether its layers are being merged: whichever comes second sees the first.
   */
  async #begin(
    { uuid, name }: SnapshotRecord['vm'],
    snapshotId: string,
    job: JobRecord,
    { owner, signal }: PointsCall,
  ): Promise<SnapshotRecord> {
    const { libvirt, snapshots, jobs, points } = this.#context;
    const state = await readDomain(libvirt, uuid, signal);
    const facts = await readSnapshot(libvirt, state.domain, snapshotId, signal);
    const before = findSnapshot(snapshots, uuid, snapshotId);
    const files = [];
    const disks = [];
    const known = facts === undefined ? [] : await disksOf(facts);
    for (const disk of mergeable(before?.disks ?? [], known)) {
      const plan = await planDiskMerge(state, disk, points.allowedRoots);
      if (plan !== null) files.push(plan.base.file, plan.top.file);
      disks.push(plan === null ? disk : { ...disk, activeFile: plan.top.file });
    }
    const targets = disks.map(({ target }) => target);
    await refuseWhileBusy(
      this.#context,
      state.domain,
      `delete the snapshot "${snapshotId}"`,
      signal,
      targets,
    );
    const record: SnapshotRecord = {
      ...(before ?? foreignRecord({ uuid, name }, snapshotId, owner, facts)),
      state: 'merging',
      disks,
      jobId: job.jobId,
    };
    await jobs.save(job);
    await snapshots.save(record);
    const reader = this.#context.readerOf(files);
    if (reader === undefined) return record;
    if (before === undefined) await snapshots.remove(withinVm(uuid, snapshotId));
    else await snapshots.save(before);
    await jobs.remove(job.jobId);
    throw new AgentError(
      'SnapshotInUse',
      `The export "${reader}" reads an image that deleting the snapshot "${snapshotId}" of ${name} would change; tear ` +
        'it down first.',
      { vmId: uuid, exportId: reader },
    );
  }

  /** Never rejects: how it ended is in the job's record. */
  async #work(uuid: string, snapshotId: string, jobId: string, handle: JobHandle): Promise<void> {
    const { snapshots, jobs, log } = this.#context;
    const about = { vmId: uuid, snapshotId, jobId };
    const progress = new ProgressWriter(this.#context, jobId);
    try {
      const record = findSnapshot(snapshots, uuid, snapshotId);
      if (record === undefined) throw new Error(`the record of ${snapshotId} is gone`);
      await mergeAway(this.#context, record, {
        signal: handle.signal,
        pin: handle.pin,
        progress: (current, total) => progress.report(current, total),
      });
      await progress.written();
      await snapshots.save(endedNow(findSnapshot(snapshots, uuid, snapshotId) ?? record));
      await endJob(jobs, jobId, 'done');
      log.info(about, 'deleted a snapshot');
    } catch (error) {
      await progress.written();
      await this.#report(error, about, handle).catch((err: unknown) =>
        log.error({ ...about, err }, 'no end was recorded'),
      );
    }
  }

  async #report(error: unknown, about: { jobId: string }, { signal }: JobHandle): Promise<void> {
    const { jobs, log } = this.#context;
    if (signal.aborted && (signal.reason as StopReason) === 'daemon ends') return;
    if (error instanceof MergeStopped) {
      log.info(about, 'the merge of a snapshot was cancelled');
      return endJob(jobs, about.jobId, 'cancelled');
    }
    log.error({ ...about, err: error }, 'the merge of a snapshot failed');
    const cause: Cause =
      error instanceof AgentError
        ? { name: error.name, message: error.message }
        : {
            name: 'MergeFailed',
            message: `The merge failed: ${error instanceof Error ? error.message : error}`,
          };
    return endJob(jobs, about.jobId, 'failed', cause);
  }

  /** What is gone, or never was, is success: the job that did it, or one that has nothing to do. */
  async #nothingToDo(
    vm: SnapshotRecord['vm'] | null,
    snapshotId: string,
    { owner }: PointsCall,
  ): Promise<{ jobId: string }> {
    const { jobs } = this.#context;
    const uuid = vm?.uuid ?? null;
    const done = jobs
      .all()
      .find((job) => job.state === 'done' && job.subject === snapshotId && (job.vm?.uuid ?? null) === uuid);
    if (done !== undefined) return { jobId: done.jobId };
    const job = newJob({
      owner,
      work: 'deleteSnapshot',
      subject: snapshotId,
      vm: vm === null ? null : { uuid: vm.uuid, name: vm.name },
    });
    await jobs.save(job);
    await endJob(jobs, job.jobId, 'done');
    return { jobId: job.jobId };
  }
}

/**
 * The disks of a snapshot: as libvirt has them, since it follows what other merges do to the files; those that it has no
 * more (merged in a former run) as we wrote them down.
 */
function mergeable(
  ours: SnapshotRecord['disks'],
  libvirts: SnapshotRecord['disks'],
): SnapshotRecord['disks'] {
  const known = libvirts.map((disk) => ({
    ...disk,
    activeFile: ours.find(({ target }) => target === disk.target)?.activeFile ?? null,
  }));
  return [...known, ...ours.filter(({ target }) => !known.some((disk) => disk.target === target))];
}

function refuseOthersKinds(
  { uuid, name }: SnapshotRecord['vm'],
  { name: snapshot, kind, memory }: SnapshotFacts,
): void {
  if (kind === 'external' && !memory) return;
  throw new AgentError(
    'NotOurs',
    `The snapshot "${snapshot}" of ${name} is ${memory ? 'one with memory' : 'an internal one'}, which vmdiskd neither ` +
      `makes nor deletes; \`virsh snapshot-delete ${name} ${snapshot}\` does.`,
    { vmId: uuid },
  );
}

/** The record of a snapshot that another program made, which this call deletes. */
function foreignRecord(
  vm: SnapshotRecord['vm'],
  snapshotId: string,
  owner: string,
  facts: SnapshotFacts | undefined,
): SnapshotRecord {
  return {
    version: SNAPSHOT_RECORD_VERSION,
    kind: 'snapshot',
    snapshotId,
    created: facts?.created ?? new Date().toISOString(),
    ended: null,
    request: null,
    owner,
    vm,
    state: 'merging',
    quiesce: 'no',
    quiesced: false,
    disks: [],
    domainXml: facts?.domainXml ?? null,
    checkpoint: null,
    jobId: null,
  };
}

function endedNow(record: SnapshotRecord): SnapshotRecord {
  return { ...record, state: 'ended', ended: new Date().toISOString() };
}

function lost({ subject, vm }: JobRecord): Cause {
  return {
    name: 'MergeFailed',
    message: `The merge of "${subject}" of ${vm?.name} could not be taken up again; call deleteSnapshot again.`,
  };
}
