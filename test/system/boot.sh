#!/bin/bash
# Pid 1 of a pid and mount namespace: boots a tree in it with systemd-nspawn, below an overlay that takes all writes, and
# then waits for its standard input to close. It closes when the test ends, in whatever way: then this process exits, and
# the kernel kills what has booted and drops the mounts. (Killed alone, systemd-nspawn would leave its system running.)
#
# usage: boot.sh TREE DIRECTORY NAME   (DIRECTORY: the overlay's, and the console's log)
set -euo pipefail
tree=$1 dir=$2 name=$3
mount -t proc -o nosuid,nodev,noexec proc /proc
# systemd-nspawn keeps locks and directories in /run, and would leave them there.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p "$dir"/{upper,work,root}
mount -t overlay -o "lowerdir=$tree,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
# --keep-unit and --register=no: no systemd of this machine is needed. The system call is one that a sandbox is tried with.
systemd-nspawn --quiet -D "$dir/root" --boot --register=no --keep-unit --private-network "--machine=$name" \
  --bind=/dev/fuse --system-call-filter=open_by_handle_at --console=pipe </dev/null >"$dir/console.log" 2>&1 &
echo "started"
cat >/dev/null
