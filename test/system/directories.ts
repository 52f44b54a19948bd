/** Directories of a run, which is told by their names: what one that was killed has left, the next one removes. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Not /tmp, which may be in memory or itself an overlay. */
const PARENT = '/var/tmp';
const PREFIX = 'vmd-system-';

export function makeDirectory(): string {
  return mkdtempSync(join(PARENT, `${PREFIX}${process.pid}-`));
}

export function removeDirectory(dir: string): void {
  rmSync(dir, { recursive: true, force: true });
}

/** Removes those of processes that are no more. */
export function sweepStaleDirectories(): void {
  for (const name of readdirSync(PARENT)) {
    const [, pid] = /^vmd-system-(\d+)-/.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeDirectory(join(PARENT, name));
  }
}
