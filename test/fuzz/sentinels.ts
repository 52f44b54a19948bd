/** Files that belong to somebody else, by which it is seen whether anything was done to them. */
import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export function makePrecious(dir: string): void {
  for (const folder of ['', 'exports/e0', 'backups/b0', 'e1', 'b1'])
    mkdirSync(join(dir, folder), { recursive: true });
  for (const name of [
    'precious',
    'exports/e0/nbd.sock',
    'backups/b0/nbd.sock',
    'e1/file',
    'b1/vda',
    'a.vmdiskd-0123456789ab.qcow2',
  ]) {
    writeFileSync(join(dir, name), '{"version": 1, "kind": "export"}');
    chmodSync(join(dir, name), 0o640);
  }
}

/** Everything about them that somebody could have changed. */
export function pictureOf(dir: string): string {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const { mode, uid, gid } = lstatSync(join(dir, name));
      const content = lstatSync(join(dir, name)).isFile() ? readFileSync(join(dir, name), 'utf8') : '';
      return `${name} ${mode.toString(8)} ${uid}:${gid} ${content}`;
    })
    .join('\n');
}
