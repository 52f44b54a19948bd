#!/bin/bash
# Builds the kernel and initramfs of the test guests, once, into a cache, and prints the directory that holds them
# as its last line. The kernel (Debian's cloud kernel), udev and the guest agent come from Debian's packages,
# downloaded and unpacked, not installed; busybox, e2fsprogs and some tools are this machine's own.
# Progress goes to standard error.
#
# Safe to run twice at the same time (flock), and to interrupt (the result is renamed into place).
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VMDISKD_CACHE:-$here/../../../.cache}

# Everything that decides what the image holds: these files, and the versions of what is copied from the machine.
inputs() {
  cat "$here"/build.sh "$here"/init "$here"/tools/*
  dpkg-query -W -f '${Package} ${Version}\n' busybox-static dash e2fsprogs util-linux coreutils openssl libc6 kmod
}
key=$(inputs | sha256sum | cut -c1-16)
out=$cache/guest-$key
if [[ -e $out/initramfs.cpio ]]; then
  echo "$out"
  exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/guest.lock"
flock 9
if [[ -e $out/initramfs.cpio ]]; then
  echo "$out"
  exit 0
fi
say() { echo "guest image: $*" >&2; }

# In a directory that apt's unprivileged downloader can write to.
work=$(mktemp -d /var/tmp/vmd-guest-image.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/packages" "$work/root"
chown _apt "$work/debs" 2>/dev/null || true

kernel_package=$(apt-cache depends --important linux-image-cloud-amd64 |
  sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\).*/\1/p' | head -n 1)
[[ -n $kernel_package ]] || { say "apt knows no linux-image-cloud-amd64: run apt-get update"; exit 1; }
say "downloading $kernel_package, udev and qemu-guest-agent"
(cd "$work/debs" && apt-get download -q "$kernel_package" udev qemu-guest-agent >&2)
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/packages"; done
packages=$work/packages
if [[ ! -d $packages/lib/modules && -d $packages/usr/lib/modules ]]; then mkdir -p "$packages/lib" && ln -s ../usr/lib/modules "$packages/lib/modules"; fi
version=$(ls "$packages/lib/modules")

root=$work/root
mkdir -p "$root"/{dev,proc,sys,run,tmp,mnt,etc,var/lib,usr/bin,usr/sbin,usr/lib/x86_64-linux-gnu,usr/lib64}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
ln -s ../run "$root/var/run"
ln -s /proc/self/mounts "$root/etc/mtab"

# A program and the libraries that it is linked with. Where a package was unpacked, its own copy comes first.
add_program() { # SOURCE DESTINATION
  install -m 755 "$1" "$root$2"
  { ldd "$1" 2>/dev/null || true; } | sed -n 's/^.* => \(\/[^ ]*\).*/\1/p; s/^\s*\(\/[^ ]*\) (0x.*/\1/p' |
    while read -r library; do
      case $library in
        */ld-linux-x86-64.so.2) target=$root/usr/lib64/ld-linux-x86-64.so.2 ;;
        *) target=$root/usr/lib/x86_64-linux-gnu/${library##*/} ;;
      esac
      [[ -e $target ]] || install -m 755 "$library" "$target"
    done
}
# sh is dash: the shell of busybox would run its own applets instead of the programs here.
for program in sh dd flock fallocate blkdiscard lsblk openssl sha256sum mke2fs e2fsck; do
  path=$(command -v "$program")
  add_program "$path" "/usr/bin/$program"
done
ln -s mke2fs "$root/usr/bin/mkfs.ext4"
cp /etc/mke2fs.conf "$root/etc/"
install -m 755 "$(command -v busybox)" "$root/usr/bin/busybox"
for applet in $(busybox --list); do
  [[ -e $root/usr/bin/$applet || $applet == busybox ]] || ln -s busybox "$root/usr/bin/$applet"
done

# The real udev, so that /dev/disk/by-id is what a guest of a user would have.
udevadm=$(find "$packages" -path '*/bin/udevadm' -type f | head -n 1)
add_program "$udevadm" /usr/bin/udevadm
mkdir -p "$root/usr/lib/systemd" "$root/usr/lib/udev/rules.d" "$root/etc/udev"
ln -s ../../bin/udevadm "$root/usr/lib/systemd/systemd-udevd"
udev_lib=$(dirname "$(dirname "$(find "$packages" -name 50-udev-default.rules)")")
for rule in 50-udev-default 60-block 60-persistent-storage; do
  cp "$udev_lib/rules.d/$rule.rules" "$root/usr/lib/udev/rules.d/"
done
for helper in scsi_id ata_id; do add_program "$udev_lib/$helper" "/usr/lib/udev/$helper"; done
add_program "$packages/usr/sbin/qemu-ga" /usr/bin/qemu-ga

# Modules, in loading order, uncompressed: the guest then needs no index and no decompressor.
say "collecting modules of $version"
depmod -b "$packages" "$version"
mkdir -p "$root/lib/modules"
for module in virtio_pci virtio_console virtio_rng virtio_blk virtio_scsi sd_mod sg ahci ata_piix ext4; do
  modprobe -d "$packages" -S "$version" --show-depends "$module" 2>/dev/null || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/modules"
while read -r file; do
  name=${file##*/}
  case $name in
    *.xz) xz -dc "$file" >"$root/lib/modules/${name%.xz}" ;;
    *.zst) zstd -dcq "$file" >"$root/lib/modules/${name%.zst}" ;;
    *) cp "$file" "$root/lib/modules/$name" ;;
  esac
  name=${name%.xz}
  echo "${name%.zst}" >>"$root/lib/modules/order"
done <"$work/modules"
grep -q virtio_blk "$root/lib/modules/order" || { say "$kernel_package has no virtio_blk module"; exit 1; }

install -m 755 "$here/init" "$root/init"
install -m 755 "$here"/tools/* "$root/usr/bin/"
printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\ncdrom:x:24:\ntape:x:26:\nvideo:x:44:\ndialout:x:20:\nlp:x:7:\naudio:x:29:\n' >"$root/etc/group"

say "packing"
mkdir "$work/result"
install -m 644 "$(find "$packages" -path '*/boot/vmlinuz-*' | head -n 1)" "$work/result/vmlinuz"
# Uncompressed: QEMU copies it into place, and the emulated CPU has less to do.
(cd "$root" && find . -mindepth 1 -print0 | cpio --null --create --format=newc --quiet --owner=0:0) >"$work/result/initramfs.cpio"
chmod 755 "$work/result"
cp -r "$work/result" "$cache/guest-$key.new.$$"
mv -T "$cache/guest-$key.new.$$" "$out"
# Older builds only take room.
find "$cache" -maxdepth 1 -name 'guest-*' -type d ! -name "guest-$key" -mmin +1440 -exec rm -rf {} +
say "done ($(du -sh "$out" | cut -f1))"
echo "$out"
