#!/bin/bash
# Pid 1 of a private host: builds its view of the file system, says so, and then waits for its standard input
# to close. It closes when the test process ends, in whatever way: then this process exits, and the kernel
# kills everything else in the pid namespace and drops every mount of the mount namespace.
#
# usage: namespace.sh DIRECTORY   (DIRECTORY is laid out by directories.ts)
set -euo pipefail
dir=$1

# /proc is still the outer one, so this is our pid as the test process sees it.
read -r outer_pid _ </proc/self/stat
mount -t proc -o nosuid,nodev,noexec proc /proc
ip link set lo up
# No systemd: it would start servers outside.
if [[ -d /run/systemd/system ]]; then mount -t tmpfs -o mode=0755,size=1m tmpfs /run/systemd; fi

# A /dev with what QEMU and FUSE need and no more. Above all no /dev/kvm: guests are emulated everywhere, and
# libvirt, probing a KVM that does not work, waits 15 s for it.
mount --rbind /dev "$dir/stage"
mount -t tmpfs -o mode=0755,size=1m,nosuid tmpfs /dev
for device in null zero full random urandom tty fuse; do
  if [[ -e $dir/stage/$device ]]; then
    : >"/dev/$device"
    mount --bind "$dir/stage/$device" "/dev/$device"
  fi
done
mkdir /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%%:*}" "/dev/${number##*:}"; done
umount --lazy "$dir/stage"

# A mount point that the real machine lacks (/var/lib/vmdiskd; libvirt's, where only parts of libvirt are installed)
# must not be made there: each parent becomes a tmpfs that shows everything that was there, and our own directory.
own() { # PARENT NAME=DIRECTORY...
  local parent=$1 entry name pair
  shift
  mount --rbind "$parent" "$dir/stage"
  mount -t tmpfs -o mode=0755,size=4m tmpfs "$parent"
  for pair in "$@"; do
    mkdir "$parent/${pair%%=*}"
    mount --bind "$dir/${pair##*=}" "$parent/${pair%%=*}"
  done
  for entry in "$dir"/stage/*; do
    name=${entry##*/}
    if [[ -L $entry ]]; then
      cp -a "$entry" "$parent/$name"
    elif [[ -e $parent/$name ]]; then
      continue
    elif [[ -d $entry ]]; then
      mkdir "$parent/$name"
      mount --rbind "$entry" "$parent/$name"
    elif [[ -f $entry ]]; then
      : >"$parent/$name"
      mount --bind "$entry" "$parent/$name"
    fi
  done
  umount --lazy "$dir/stage"
}
shopt -s nullglob dotglob
own /var/lib libvirt=var-lib-libvirt vmdiskd=var-lib-vmdiskd
own /var/log libvirt=log
own /var/cache libvirt=cache
if [[ -d /etc/libvirt ]]; then mount --bind "$dir/etc/libvirt" /etc/libvirt; else own /etc libvirt=etc/libvirt; fi
mount --bind "$dir/etc/passwd" /etc/passwd
mount --bind "$dir/etc/group" /etc/group
if [[ -f /etc/machine-id ]]; then mount --bind "$dir/etc/machine-id" /etc/machine-id; fi
hostname "${dir##*/}"
# Last: nothing of the machine's own /run (its D-Bus, its libvirt) is reachable from here on.
mount --bind "$dir/run" /run

echo "ready $outer_pid"
# With SIGCHLD ignored the kernel reaps the orphans that a pid 1 inherits.
exec env --ignore-signal=CHLD cat >/dev/null
