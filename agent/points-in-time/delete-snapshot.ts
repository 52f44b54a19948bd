import { readDomain } from '../domains/lookup.js';
import type { SnapshotFacts } from '../domains/snapshot-xml.js';
import { readSnapshot } from '../domains/snapshots.js';
import { AgentError } from '../errors.js';
import { CallsInFlight } from '../host/once.js';
import { beginMerge } from './begin-merge.js';
import { withinVm } from './checkpoint-record.js';
import { exclusively, type PointsCall, type PointsContext } from './context.js';
import { endJob, newJob } from './jobs.js';
import { endUnattended, runMergeJob } from './merge-job.js';
import { refuseLeft } from './merge-plan.js';
import { endedNow, findSnapshot, type SnapshotRecord } from './snapshot-record.js';
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
    const { jobs, snapshots } = this.#context;
    for (const job of jobs.allLive()) {
      if (job.work !== 'deleteSnapshot' || job.vm === null) continue;
      const record = findSnapshot(snapshots, job.vm.uuid, job.subject);
      if (record?.state !== 'merging') endUnattended(this.#context, job);
      else {
        this.#underLock(record, async () => record, job.jobId).catch(() => endUnattended(this.#context, job));
      }
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
      if (record !== undefined && record.ended === null) {
        await refuseLeft(record);
        await snapshots.save(endedNow(record));
      }
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
    await this.#underLock(
      { vm, snapshotId },
      () => beginMerge(this.#context, vm, snapshotId, job, call),
      job.jobId,
    );
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
          await runMergeJob(this.#context, vm.uuid, snapshotId, jobId, handle);
        });
      }).catch((error: unknown) => {
        log.debug({ err: error, snapshotId }, 'deleteSnapshot has not begun');
        refuse(error);
      });
    });
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
    await endJob(this.#context, job.jobId, 'done');
    return { jobId: job.jobId };
  }
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
