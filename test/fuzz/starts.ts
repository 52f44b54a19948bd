/** The real daemon, started over state directories that hold damaged records, and stopped again. Needs root. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import { parseStat } from '../../agent/host/identity.js';
import { openConnection, RpcFailure, untilRecovered } from '../host/daemon.js';
import { type Host, type Spawned, startHost } from '../host/host.js';
import { poll } from '../host/poll.js';
import { type Damage, writeDamaged } from './record-damage.js';
import { currentBoot, type Sample, sample } from './record-samples.js';
import type { Fuzzer, Teardown } from './run.js';
import { makePrecious, pictureOf } from './sentinels.js';

const DAEMON = new URL('../../dist/daemon.js', import.meta.url).pathname;
const FOLDERS = ['exports', 'drives', 'backups', 'checkpoints', 'snapshots', 'jobs', 'thaws'];
/** Records of one start. */
const MOST_RECORDS = 30;
/** Milliseconds from the start to an answer, and from SIGTERM to the end. */
const START_MS = 40_000;
const STOP_MS = 30_000;

/** The configuration keeps the path of run-time files this short. */
const runOf = (number: number): string => `/run/f${number}`;

export async function startsFuzzer(t: Teardown): Promise<Fuzzer> {
  const host = await startHost(t, { libvirt: 'none' });
  const sleeper = await host.spawn('sleep', ['infinity']);
  const stranger = {
    ...parseStat(await host.must('cat', [`/proc/${sleeper.pid}/stat`])),
    bootId: currentBoot(),
  };
  let number = 0;
  return {
    name: 'starts',
    parallel: 3,
    deadlineMs: 120_000,
    warmUp: 2,
    growthMiB: 192,
    async play(random, about) {
      number += 1;
      const top = `/var/lib/vmdiskd/f${number}`;
      const places = { run: runOf(number), scratch: `${top}/scratch`, images: `${top}/images`, stranger };
      const [state, outside] = [host.path(`${top}/state`), host.path(`${top}/outside`)];
      for (const folder of FOLDERS) mkdirSync(join(state, folder), { recursive: true, mode: 0o700 });
      for (const dir of [places.run, places.scratch, places.images]) mkdirSync(host.path(dir));
      makePrecious(outside);
      const written = Array.from({ length: 1 + random.below(MOST_RECORDS) }, (_, i) => {
        const one = sample(random, places, i);
        return { ...one, ...writeDamaged(random, state, `${top}/outside`, one) };
      });
      about(written.map(({ folder, id, what }) => `${folder}/${id}: ${what}`).join('\n'));
      const before = pictureOf(outside);
      const config = `${host.dir}/f${number}.toml`;
      const { images, ...paths } = places;
      const toml = {
        paths: { run: paths.run, scratch: paths.scratch, state: `${top}/state` },
        images: { allowedRoots: [images] },
      };
      writeFileSync(config, stringify({ ...toml, rpc: { socket: `${paths.run}/s` } }));
      const daemon = await host.spawn(process.execPath, [DAEMON, '--config', config], { timeoutMs: 100_000 });
      if (written.some(({ must }) => must === 'newer')) await checkRefusal(daemon);
      else await checkLife(host, daemon, `${paths.run}/s`, written);
      if ((await host.run('kill', ['-0', String(sleeper.pid)])).exitCode !== 0)
        throw new Error("a stranger's process was ended");
      if (pictureOf(outside) !== before)
        throw new Error(`what lies outside is not as it was: ${pictureOf(outside)}`);
      await host.must('rm', ['-rf', top, paths.run]);
    },
    gauges: async () => {
      const daemons = (await host.processes()).filter(({ args }) => args.includes(DAEMON)).length;
      return { counts: { daemons }, residentMiB: 0 };
    },
  };
}

async function checkRefusal(daemon: Spawned): Promise<void> {
  const { exitCode, stderr } = await daemon.exited;
  const told =
    /^vmdiskd: \S+ was written by a newer vmdiskd \(record version \d+, this program knows 1\); start the newer/;
  if (exitCode !== 2 || !told.test(stderr)) throw new Error(`a newer record: ${exitCode} ${daemon.output()}`);
}

/** It answers, lists what it has, says what it set aside, and ends in order. */
async function checkLife(
  host: Host,
  daemon: Spawned,
  socket: string,
  written: readonly (Sample & Damage)[],
): Promise<void> {
  let ended = false;
  void daemon.exited.then(() => {
    ended = true;
  });
  let connection: Awaited<ReturnType<typeof openConnection>> | undefined;
  await poll('the daemon to listen', START_MS, async () => {
    if (ended) throw new Error(`it ended at its start: ${daemon.output()}`);
    connection = await openConnection(host.path(socket), host.secrets).catch(() => undefined);
    return connection !== undefined;
  });
  if (connection === undefined) throw new Error('unreachable');
  try {
    await untilRecovered(connection);
    const { exports } = await connection.call<{ exports: { exportId: string }[] }>('listExports');
    const { jobs } = await connection.call<{ jobs: { jobId: string }[] }>('listJobs');
    await connection.call('listBackups');
    for (const { folder, id, record, must } of written) {
      const { state } = record as { state: string };
      if (must !== 'whole' || state === 'ended' || state === 'starting' || state === 'closing') continue;
      const listed =
        folder === 'exports'
          ? exports.some(({ exportId }) => exportId === id)
          : jobs.some(({ jobId }) => jobId === id);
      if ((folder === 'exports' || folder === 'jobs') && !listed)
        throw new Error(`${folder}/${id} is not listed`);
    }
    for (const { exportId } of exports) {
      await connection.call('teardownBackupDisk', { exportId, outcome: 'failed' }).catch((error: unknown) => {
        // With libvirt away not everything can be ended.
        if (!(error instanceof RpcFailure) || error.code === -32603) throw error;
      });
    }
  } finally {
    connection.close();
  }
  await daemon.kill('SIGTERM');
  await poll('the daemon to end', STOP_MS, () => ended);
  const { exitCode } = await daemon.exited;
  if (exitCode !== 0) throw new Error(`it ended with ${exitCode}: ${daemon.output()}`);
  for (const line of daemon.output().split('\n')) {
    if (
      /^\{"level":"(error|fatal)"/.test(line) &&
      /"type":"(?!AgentError|NotConnectedError|MergeStopped)/.test(line)
    )
      throw new Error(`its log: ${line}`);
    if (line !== '' && !line.startsWith('{')) throw new Error(`it said: ${daemon.output()}`);
  }
}
