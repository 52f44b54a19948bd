import { readFile } from 'node:fs/promises';

/** How programs that parse images are kept from everything else on this host. */
export interface Confinement {
  /** The account that they run as. */
  readonly uid: number;
  readonly gid: number;
  /** An empty directory of ours, over which each of them mounts a root of its own that nobody else sees. */
  readonly root: string;
}

/** A file that a confined program finds, as `confinedName` of its place in the list. */
export interface ConfinedFile {
  readonly path: string;
  /** `DEV:INO` in decimal. Whoever asks for this holds the file, so that the inode cannot be another's meanwhile. */
  readonly id: string;
}

/** One program's view of the host. */
export interface ConfinedView {
  readonly confinement: Confinement;
  readonly files: readonly ConfinedFile[];
  /** A directory that it finds under its own name, for its socket. */
  readonly directory?: string;
  /** Whether it may write to the files. */
  readonly write: boolean;
}

export const confinedName = (index: number): string => `/images/${index}`;

/** What stands in a confined program's stderr where a name leads to another file than the one that was checked. */
export const EXCHANGED = 'is no longer the file that was checked';

/**
 * Made by root in a mount namespace of its own: a root in which there are the libraries, the program, /dev/null (QEMU tries
 * on it what locks the kernel has), the directory, and the files. Each of these is bound by its name, which opens
 * nothing, and then compared with the file that was checked. Then all privilege goes but one, which is to reach those files
 * whoever owns them (0600 of root or of QEMU's account), and neither an exec nor a bug brings any back: an image
 * may name what it likes. No network, either. A chroot is left by CAP_SYS_CHROOT or by a descriptor of a directory, and it has
 * neither. As a slave the namespace lets go of what the host unmounts.
 */
const script = `set -eu
root=$1 uid=$2 gid=$3 capability=$4 directory=$5 count=$6
shift 6
mask=$(umask)
umask 022
mount -t tmpfs -o mode=0755,size=1m,nosuid tmpfs "$root"
cd "$root"
mkdir -p usr/bin images dev
for name in bin sbin lib lib32 lib64; do
  if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"; fi
done
for name in /usr/lib /usr/lib32 /usr/lib64 /lib /lib64; do
  if [ -d "$name" ] && [ ! -L "$name" ]; then mkdir -p ".$name"; mount --rbind "$name" ".$name"; fi
done
if [ "$directory" ]; then mkdir -p ".$directory"; mount --bind "$directory" ".$directory"; fi
n=0
while [ "$n" -lt "$count" ]; do
  : >"images/$n"
  mount --bind "$1" "images/$n"
  [ "$(stat -c %d:%i "images/$n")" = "$2" ] || { echo "$1 ${EXCHANGED}" >&2; exit 1; }
  shift 2
  n=$((n + 1))
done
setpriv=$(command -v setpriv)
for file in /dev/null "$setpriv" "$1"; do
  mkdir -p ".\${file%/*}"
  [ -e ".$file" ] || : >".$file"
  mount --bind "$file" ".$file"
done
umask "$mask"
exec chroot . "$setpriv" --reuid="$uid" --regid="$gid" --clear-groups --inh-caps="-all,+$capability" \\
  --ambient-caps="-all,+$capability" --bounding-set="-all,+$capability" --no-new-privs -- "$@"
`;

/** The command that runs a program in its view, in the same process from the first to the last: unshare(1), setpriv(1). */
export function confinedCommand(
  { confinement, files, directory = '', write }: ConfinedView,
  program: string,
  args: readonly string[],
): { program: string; args: string[] } {
  const { root, uid, gid } = confinement;
  const capability = write ? 'dac_override' : 'dac_read_search';
  const fixed = [root, String(uid), String(gid), capability, directory, String(files.length)];
  const named = files.flatMap(({ path, id }) => [path, id]);
  const namespaces = ['--mount', '--net', '--ipc', '--propagation', 'slave'];
  return {
    program: 'unshare',
    args: [...namespaces, '--', '/bin/sh', '-c', script, 'confined', ...fixed, ...named, program, ...args],
  };
}

/** Debian's account that owns nothing; its numbers are the same everywhere (base-passwd, kernel overflowuid). */
const NOBODY = { uid: 65534, gid: 65534 };

/** The account of that name with its primary group; without one, nobody's. */
export async function unprivilegedAccount(name: string): Promise<{ uid: number; gid: number }> {
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [entry, , uid, gid] = line.split(':');
    if (entry === name && Number(uid) > 0 && Number(gid) > 0) return { uid: Number(uid), gid: Number(gid) };
  }
  return NOBODY;
}
