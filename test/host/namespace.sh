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

# /var/lib/vmdiskd does not exist on the real machine and must not be made there, so /var/lib becomes a tmpfs
# that shows everything that was there, except the two directories that are this host's own.
mount --rbind /var/lib "$dir/stage"
mount -t tmpfs -o mode=0755,size=1m tmpfs /var/lib
shopt -s nullglob dotglob
for entry in "$dir"/stage/*; do
  name=${entry##*/}
  case $name in libvirt | vmdiskd) continue ;; esac
  if [[ -L $entry ]]; then
    cp -a "$entry" "/var/lib/$name"
  elif [[ -d $entry ]]; then
    mkdir "/var/lib/$name"
    mount --rbind "$entry" "/var/lib/$name"
  elif [[ -f $entry ]]; then
    : >"/var/lib/$name"
    mount --bind "$entry" "/var/lib/$name"
  fi
done
umount --lazy "$dir/stage"
mkdir /var/lib/libvirt /var/lib/vmdiskd
mount --bind "$dir/var-lib-libvirt" /var/lib/libvirt
mount --bind "$dir/var-lib-vmdiskd" /var/lib/vmdiskd

mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
mount --bind "$dir/etc/libvirt" /etc/libvirt
mount --bind "$dir/etc/passwd" /etc/passwd
mount --bind "$dir/etc/group" /etc/group
if [[ -f /etc/machine-id ]]; then mount --bind "$dir/etc/machine-id" /etc/machine-id; fi
hostname "${dir##*/}"
# Last: nothing of the machine's own /run (its D-Bus, its libvirt) is reachable from here on.
mount --bind "$dir/run" /run

echo "ready $outer_pid"
# With SIGCHLD ignored the kernel reaps the orphans that a pid 1 inherits.
exec env --ignore-signal=CHLD cat >/dev/null
