/** The other way: a snapshot, an export of what it froze, and its merge while the VM writes on. */
import { setTimeout as sleep } from 'node:timers/promises';
import type {
  CreateSnapshotResult,
  DeleteSnapshotResult,
  GetJobResult,
  GetSnapConfigResult,
  PrepareBackupDiskResult,
} from '../../agent/api/generated.js';
import { size } from './map.js';
import { compared, MIB, type Stage, timed } from './stage.js';
import { EVERYWHERE, replay, startWriting, stopWriting, write } from './writer.js';

const SNAPSHOT = { vmId: 'shop', snapshotId: 'wednesday' };
const LOOK_MS = 500;
const MERGE_DEADLINE_MS = 120_000;

export async function snapshotBackup(stage: Stage): Promise<void> {
  const { report, host, shop, rpc } = stage;
  report.step('The other way: a snapshot, which is merged away again while shop writes');
  await shop.sh(write(58 * MIB, MIB / 2));
  const wednesday = await shop.sha256('/dev/vda');
  const { disks } = await rpc<CreateSnapshotResult>('createSnapshot', SNAPSHOT);
  const [disk] = disks;
  if (disk === undefined) throw new Error('The snapshot has no disk.');
  // As much as it takes to see the merge at work, and apart: QEMU copies up to 16 MiB that lie together in one go.
  const burst = [20, 22, 24, 26, 28, 30, 32].map((at) => write(at * MIB, MIB));
  await shop.sh(burst.join(' && '));
  await startWriting(shop, EVERYWHERE);
  report.done(`${disk.frozen} is frozen; shop writes on to an overlay`);
  const config = await rpc<GetSnapConfigResult>('getSnapConfig', SNAPSHOT);
  const memory = /<memory unit=.KiB.>(\d+)</.exec(config.domainXml)?.[1];
  report.done(`the VM as it was: ${size(Number(memory) * 1024)} of memory, vda = ${config.disks[0]?.frozen}`);

  const since = { checkpoint: 'tuesday' };
  const params = { exportId: 'wed', snapshotId: SNAPSHOT.snapshotId, since, vmId: 'shop', disk: 'vda' };
  const { uri, cbt } = await rpc<PrepareBackupDiskResult>('prepareBackupDisk', params);
  report.check(
    cbt.mode === 'incremental' && cbt.changedBytes === MIB / 2,
    `the map since "tuesday" works here too: the ${size(cbt.changedBytes ?? 0)} that shop wrote since`,
  );
  const file = `${host.dir}/wednesday.raw`;
  const [, copyMs] = await timed(host.must('nbdcopy', [uri, file]));
  const copied = (await host.must('sha256sum', [file])).slice(0, 64);
  report.check(copied === wednesday, compared("nbdcopy of it: as shop's disk was", copied), copyMs);
  await rpc('teardownBackupDisk', { exportId: params.exportId });

  await merge(stage);
  const writes = await stopWriting(shop, 1);
  await replay(host, file, burst, EVERYWHERE, writes);
  const expected = (await host.must('sha256sum', [file])).slice(0, 64);
  // What the guest still has in memory is no proof.
  const [now, nowMs] = await timed(shop.sh('echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/vda'));
  const right = now.startsWith(expected);
  report.check(
    right,
    compared(`shop's disk after it: the copy and ${burst.length + writes} writes since`, now),
    nowMs,
  );
  const uses = await host.virsh('domblklist', 'shop');
  report.check(uses.includes(disk.frozen) && !uses.includes(disk.active), `shop uses ${disk.frozen} again`);
}

/** Deletes the snapshot, and shows how far that is until it is done. */
async function merge({ report, daemon, rpc }: Stage): Promise<void> {
  const { jobId } = await rpc<DeleteSnapshotResult>('deleteSnapshot', SNAPSHOT);
  const began = performance.now();
  let shown = '';
  for (;;) {
    const [{ state, progress, error }, ms] = await timed(daemon.call<GetJobResult>('getJob', { jobId }));
    const now = `${state}, ${Math.floor((progress.current / progress.total) * 100)} %`;
    if (now !== shown) report.call('getJob', `{"jobId":"${jobId}"} -> ${now}`, ms);
    shown = now;
    if (state !== 'running') {
      return report.check(
        state === 'done',
        `merged, while shop wrote${error === undefined ? '' : `: ${error.message}`}`,
        performance.now() - began,
      );
    }
    if (performance.now() - began > MERGE_DEADLINE_MS) throw new Error('The merge takes too long.');
    await sleep(LOOK_MS);
  }
}
