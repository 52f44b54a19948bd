import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';

/**
 * The text of a small file that is one: what follows a link, waits for a writer or has no end is refused.
 * @param most bytes
 * @throws Error that says what is wrong, of the file system or of ours
 */
export function readRegularFile(path: string, most: number): string {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new Error('it is not a file');
    if (stat.size > most) throw new Error(`it has ${stat.size} bytes; at most ${most} are read`);
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(file);
  }
}
