import { tellVmEvents } from '../domains/vm-events.js';
import { watchSnapshots } from '../points-in-time/adopt-snapshots.js';
import { watchBackups } from '../points-in-time/watch-backups.js';
import type { ExportsContext } from './context.js';
import { sweepStrays } from './recovery.js';
import { watchExports } from './watch.js';
import { watchDrives } from './watch-drives.js';
import { watchLeases } from './watch-leases.js';
import { watchScratch } from './watch-scratch.js';
import { watchWords } from './watch-words.js';

/** What happens by itself is seen from here on: servers that die, leases that end, drives that leave late, VMs that stop. */
export function watchAll(exports: ExportsContext): { close(): void }[] {
  return [
    watchBackups(exports),
    watchExports(exports),
    watchDrives(exports),
    watchLeases(exports),
    watchScratch(exports),
    watchWords(exports),
    watchSnapshots(exports),
    sweepStrays(exports),
    tellVmEvents(exports.libvirt, exports.events),
  ];
}
