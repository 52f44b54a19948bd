/**
 * `npm run demo`: the main job on real parts, watched. Ends with 1 when anything differs, and leaves nothing behind
 * whichever way it ends.
 */
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { runDemo } from './demo/flow.js';
import { createReport } from './demo/report.js';

const report = createReport(process.stdout);
const setUp: (() => unknown)[] = [];
let breakingOff = false;

/** Takes down what the demo has set up, last first. */
async function tearDown(): Promise<void> {
  for (let undo = setUp.pop(); undo !== undefined; undo = setUp.pop()) await undo();
}

/** Ends the demo before its time. What then fails because its parts are gone is no news. */
function breakOff(why: string, exitCode: number): void {
  if (breakingOff) return;
  breakingOff = true;
  report.end(false, why);
  void tearDown().finally(() => process.exit(exitCode));
}

// More than one may come: Ctrl-C reaches us from the terminal, and again by way of tsx.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => breakOff(`${signal}: taking everything down`, 128 + constants.signals[signal]));
}
process.on('uncaughtException', (error) => breakOff(`FAILED: ${error.message}`, 1));

const began = performance.now();
report.title(
  'vmdiskd demo: the disk of one running VM, at one instant after another, read from outside',
  'Real libvirtd, QEMU and qemu-nbd, in a private host: the VMs and settings of this machine are not touched.',
);
const dir = await runDemo({ teardown: (undo) => setUp.push(undo) }, report);
await tearDown();
report.check(!existsSync(dir), `the private host is gone, and ${dir} with it`);
const seconds = ((performance.now() - began) / 1000).toFixed(0);
report.end(
  true,
  `What was read is what shop had on its disk at each instant, three times. ${seconds} s in all.`,
);
