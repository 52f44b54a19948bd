/** Record files of all kinds, read by the registries and adopted in process, without a libvirt. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { adoptExports } from '../../agent/exports/adopt.js';
import { adoptDrives } from '../../agent/exports/foreign-drive.js';
import { identityOf } from '../../agent/host/identity.js';
import { NewerRecordError } from '../../agent/host/records.js';
import { adoptBackups } from '../../agent/points-in-time/adopt-backups.js';
import { adoptSnapshots } from '../../agent/points-in-time/adopt-snapshots.js';
import { SnapshotDeletion } from '../../agent/points-in-time/delete-snapshot.js';
import { ownGauges } from './gauges.js';
import { writeDamaged } from './record-damage.js';
import { entrySample, sample } from './record-samples.js';
import { checkVerbs } from './record-verbs.js';
import { recordWorld } from './record-world.js';
import type { Fuzzer, Teardown } from './run.js';
import { makePrecious, pictureOf } from './sentinels.js';

/** In memory, where there is room for it: a record is synced to disk with every change. */
const PARENT = existsSync('/dev/shm') ? '/dev/shm' : '/tmp';
const FOLDERS = ['exports', 'drives', 'backups', 'checkpoints', 'snapshots', 'jobs', 'thaws'];

export async function recordsFuzzer(t: Teardown): Promise<Fuzzer> {
  const child = spawn('sleep', ['infinity'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  const stranger = await identityOf(child.pid ?? 0);
  if (stranger === undefined) throw new Error('no sleep');
  return {
    name: 'records',
    parallel: 16,
    deadlineMs: 30_000,
    warmUp: 200,
    growthMiB: 192,
    async play(random, about) {
      const top = mkdtempSync(`${PARENT}/vmd-records-`);
      try {
        const [state, outside] = [join(top, 'state'), join(top, 'outside')];
        for (const folder of FOLDERS) mkdirSync(join(state, folder), { recursive: true, mode: 0o700 });
        makePrecious(outside);
        const places = {
          run: join(top, 'run'),
          scratch: join(top, 'scratch'),
          images: join(top, 'images'),
          stranger,
        };
        for (const dir of [places.run, places.scratch, places.images]) mkdirSync(dir);
        const samples = Array.from({ length: 1 + random.below(6) }, (_, i) => sample(random, places, i));
        const written = samples.map((one) => ({ ...one, ...writeDamaged(random, state, outside, one) }));
        const gateway = join(places.run, 'gateway');
        mkdirSync(join(gateway, 'exports'), { recursive: true, mode: 0o700 });
        const entries = samples.flatMap(({ id, record }) => {
          const entry = entrySample(random, places, record);
          if (entry === undefined) return [];
          const one = { folder: 'exports', id, record: entry } as const;
          return [`entry ${id}: ${writeDamaged(random, gateway, outside, one).what}`];
        });
        about([...written.map(({ folder, id, what }) => `${folder}/${id}: ${what}`), ...entries].join('\n'));
        const before = pictureOf(outside);
        const world = recordWorld(state, places);
        const newer = written.some(({ must }) => must === 'newer');
        try {
          const setAside = await world.load();
          if (newer) throw new Error('a newer record did not stop the start');
          for (const { folder, id, must } of written) {
            if (must === 'whole' && !world.has(folder, id))
              throw new Error(`${folder}/${id} was not read: ${JSON.stringify(setAside)}`);
          }
          if ((await recordWorld(state, places).load()).length > 0)
            throw new Error('what is set aside is told twice');
        } catch (error) {
          if (!newer || !(error instanceof NewerRecordError)) throw error;
          return;
        }
        const recovery = AbortSignal.timeout(5000);
        await adoptBackups(world.context, recovery);
        await adoptExports(world.context, recovery);
        await adoptDrives(world.context, recovery);
        adoptSnapshots(world.context, new SnapshotDeletion(world.context));
        for (let turns = 0; turns < 20; turns++) await nextTurn();
        await checkVerbs(world.context);
        await world.context.running.close();
        world.check();
        if (pictureOf(outside) !== before)
          throw new Error(`what lies outside is not as it was: ${pictureOf(outside)}`);
      } finally {
        rmSync(top, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
      }
    },
    gauges: ownGauges,
    async finish() {
      const left = readdirSync(PARENT).filter((name) => name.startsWith('vmd-records-'));
      if (left.length > 0) throw new Error(`left behind in ${PARENT}: ${left.join(', ')}`);
    },
  };
}
