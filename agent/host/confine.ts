import { readFile } from 'node:fs/promises';

/** How programs that parse images are kept from everything else on this host. */
export interface Confinement {
  /** Who makes their view of the host: our own script, or systemd, for each a transient unit. */
  readonly by: 'namespaces' | 'units';
  /** The account that they run as. */
  readonly uid: number;
  readonly gid: number;
  /** A directory of ours, over which each of them has a root of its own that nobody else sees. */
  readonly root: string;
}

/** A file that a confined program finds, as `confinedName` of its place in the list. */
export interface ConfinedFile {
  readonly path: string;
  /** `DEV:INO` in decimal. Whoever asks for this holds the file, so that the inode cannot be another's meanwhile. */
  readonly id: string;
  /** Whether the program may write to it; to a socket that it may connect to it always may. */
  readonly write?: boolean;
  /** Whether it is a block device. */
  readonly device?: boolean;
}

/** One program's view of the host. */
export interface ConfinedView {
  readonly confinement: Confinement;
  readonly files: readonly ConfinedFile[];
  /** A directory that it finds under its own name, for its socket. */
  readonly directory?: string;
}

export const confinedName = (index: number): string => `/images/${index}`;

/** What stands in a confined program's stderr where a name leads to another file than the one that was checked. */
export const EXCHANGED = 'is no longer the file that was checked';

/**
 * Made by root in a mount namespace of its own: a root in which there are the libraries, the program, /dev/null (QEMU tries
 * on it what locks the kernel has), the directory, and the files. Each of these is bound by its name, which opens
 * nothing, and then compared with the file that was checked; nothing but the directory, and files that are to be
 * written to, can be written to. Then all privilege goes but one, which is to reach those files whoever owns them (0600 of
 * root or of QEMU's account), and neither an exec nor a bug brings any back: an image may name what it likes. No network,
 * either. A chroot is left by CAP_SYS_CHROOT or by a descriptor of a directory, and it has neither. As a slave the
 * namespace lets go of what the host unmounts.
 * That one privilege would open any file of the same file system by its handle (open_by_handle_at(2)), and processes of one
 * account may trace each other: so it has it in a user namespace of its own (user_namespaces(7)) where only the owners of
 * those files have numbers, the same as outside. The numbers have to be written by a process outside, which is nobody's
 * child afterwards.
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
  if [ -d "$name" ] && [ ! -L "$name" ]; then mkdir -p ".$name"; mount --rbind -o ro "$name" ".$name"; fi
done
while read -r _ at _; do # -o ro is of the upper one alone
  case $at in "$root"/*lib*/*) mount -o remount,bind,ro "$(printf %b "$at")" ;; esac
done </proc/self/mounts
if [ "$directory" ]; then mkdir -p ".$directory"; mount --bind "$directory" ".$directory"; fi
uids=" $uid " gids=" $gid "
n=0
while [ "$n" -lt "$count" ]; do
  : >"images/$n"
  mount --bind -o "$3" "$1" "images/$n"
  found=$(stat -c '%d:%i %u %g' "images/$n")
  [ "\${found%% *}" = "$2" ] || { echo "$1 ${EXCHANGED}" >&2; exit 1; }
  group=\${found##* } owner=\${found#* }
  owner=\${owner% *}
  case "$uids" in *" $owner "*) ;; *) uids="$uids$owner " ;; esac
  case "$gids" in *" $group "*) ;; *) gids="$gids$group " ;; esac
  shift 3
  n=$((n + 1))
done
setpriv=$(command -v setpriv)
for file in "$setpriv" "$1"; do
  mkdir -p ".\${file%/*}"
  [ -e ".$file" ] || : >".$file"
  mount --bind -o ro "$file" ".$file"
done
: >dev/null
mount --bind /dev/null dev/null
mount -o remount,bind,ro "$root"
map() { for number in $1; do echo "$number $number 1"; done; }
uids=$(map "$uids") gids=$(map "$gids")
umask "$mask"
me=$$
( (
  trap '' HUP
  exec </dev/null >/dev/null 2>&1
  n=0
  until printf '%s\n' "$gids" >"/proc/$me/gid_map"; do
    n=$((n + 1))
    [ "$n" -lt 1000 ] || sleep 0.01
    [ "$n" -lt 2000 ] && [ -e "/proc/$me" ] || exit 1
  done
  printf '%s\n' "$uids" >"/proc/$me/uid_map"
) & )
exec unshare --user --keep-caps -- /bin/sh -c '
  n=0
  until read -r _ </proc/self/uid_map; do
    n=$((n + 1))
    [ "$n" -lt 1000 ] || sleep 0.01
    [ "$n" -lt 2000 ] || { echo "the numbers of its user namespace were not given in time" >&2; exit 1; }
  done
  exec chroot . "$@"' confined "$setpriv" --reuid="$uid" --regid="$gid" --clear-groups --inh-caps="-all,+$capability" \\
  --ambient-caps="-all,+$capability" --bounding-set="-all,+$capability" --no-new-privs -- "$@"
`;

/** The command that runs a program in its view, in the same process from the first to the last: unshare(1), setpriv(1). */
export function confinedCommand(
  { confinement, files, directory = '' }: ConfinedView,
  program: string,
  args: readonly string[],
): { program: string; args: string[] } {
  const { root, uid, gid } = confinement;
  const capability = files.some(({ write }) => write) ? 'dac_override' : 'dac_read_search';
  const fixed = [root, String(uid), String(gid), capability, directory, String(files.length)];
  const named = files.flatMap(({ path, id, write }) => [path, id, write ? 'rw' : 'ro']);
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
