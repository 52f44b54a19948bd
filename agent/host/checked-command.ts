import { type ConfinedFile, confinedName, EXCHANGED } from './confine.js';

/**
 * Before the program there is its shell: the files of its view are compared with those that were checked, since systemd
 * has bound them by name, which another may have meanwhile. And the signal that comes with a limit of a file's size is ignored,
 * which would end the server (setrlimit(2)): the write fails, and nothing else does.
 */
const script = `while [ "$1" != -- ]; do
  [ "$(stat -c %d:%i "$1")" = "$2" ] || { echo "$3 ${EXCHANGED}" >&2; exit 1; }
  shift 3
done
shift
trap "" XFSZ
exec "$@"`;

/** The command of a transient unit, in one process from the first to the last. */
export function checkedCommand(
  files: readonly ConfinedFile[],
  program: string,
  args: readonly string[],
): string[] {
  const checks = files.flatMap(({ path, id }, i) => [confinedName(i), id, path]);
  return ['/bin/sh', '-c', script, 'checked', ...checks, '--', program, ...args];
}
