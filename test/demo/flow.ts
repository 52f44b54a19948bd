/** The main job, step by step, in both ways: one VM's disk at an instant, read elsewhere while the VM runs on; and another. */
import type { Teardown } from '../host/host.js';
import { fullBackup } from './full.js';
import { incrementalBackup } from './incremental.js';
import { expectNothingLeft } from './nothing-left.js';
import type { Report } from './report.js';
import { scan } from './scan.js';
import { snapshotBackup } from './snapshot.js';
import { setTheStage } from './stage.js';

/** Runs the demo. @returns the private host's directory. @throws Error when something is not as it should be */
export async function runDemo(t: Teardown, report: Report): Promise<string> {
  const stage = await setTheStage(t, report);
  try {
    await fullBackup(stage);
    await incrementalBackup(stage);
    await snapshotBackup(stage);
    await scan(stage);
    await expectNothingLeft(stage);
    return stage.host.dir;
  } catch (error) {
    report.done('what the daemon said last:');
    report.detail(stage.daemon.log().trimEnd().split('\n').slice(-10));
    throw error;
  }
}
