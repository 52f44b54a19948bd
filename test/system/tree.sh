#!/bin/bash
# Makes the tree of a Debian with systemd, libvirt, QEMU, libnbd's tools and Node, once, into a cache, and prints its
# directory as its last line: `tree.sh trixie`, whose packages are all its own, or `tree.sh bookworm`, which gets this
# machine's Node, as a package of our making. Nothing is changed in a tree later: who boots one lays an overlay above it.
# Progress goes to standard error.
#
# Safe to run twice at the same time (flock), and to interrupt: it works in a mount namespace of its own, and the result is
# renamed into place.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VMDISKD_CACHE:-$here/../../.cache}/system
release=${1:?usage: tree.sh trixie|bookworm}
say() { echo "tree of $release: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

base=(systemd systemd-sysv dbus udev ca-certificates)
parts=(
  libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
  qemu-system-x86 qemu-utils libnbd-bin
  apparmor procps iproute2 psmisc
)
own_node=
case $release in
  trixie) parts+=(nodejs) ;;
  bookworm) own_node=$(command -v node) ;;
  *) fail "not one of trixie, bookworm" ;;
esac

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  grep -Eo 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
mirror=${mirror:-http://deb.debian.org/debian}

# Everything that decides what a tree holds, but for what Debian has made of its release since.
key=$({ cat "${BASH_SOURCE[0]}"; echo "$release"; [[ -z $own_node ]] || sha256sum <"$own_node"; } | sha256sum | cut -c1-16)
out=$cache/$release-$key
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
out=$cache/$release-$key
exec 9>"$cache/$release.lock"
flock 9
if [[ -e $out/etc/os-release ]]; then
  echo "$out"
  exit 0
fi
[[ $EUID -eq 0 ]] || fail "needs root"
for tool in debootstrap systemd-nspawn; do
  command -v $tool >/dev/null || fail "$tool is missing: apt-get install debootstrap systemd-container"
done
# Debian's node is in a library that the other release has not.
if [[ -n $own_node ]] && ldd "$own_node" | grep -q libnode; then
  fail "$own_node is of another Debian: put a node that stands alone (nodejs.org, NodeSource) first in PATH"
fi

new=$cache/$release-$key.new.$$
trap 'rm -rf --one-file-system "$new"' EXIT
# debootstrap mounts /proc in the tree: in a namespace of ours that ends with it, however it ends.
say "debootstrap, from $mirror"
unshare --mount --propagation private debootstrap --variant=minbase "--include=$(IFS=, && echo "${base[*]}")" \
  "$release" "$new" "$mirror" >"$cache/$release.log" 2>&1 || { tail -n 20 "$cache/$release.log" >&2; fail "debootstrap failed"; }

# Not booted: a shell that is the second process there, and whatever it leaves behind ends with it.
inside() { systemd-nspawn --quiet --register=no --keep-unit --as-pid2 --pipe --bind-ro=/etc/resolv.conf -D "$new" "$@"; }
printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
chmod 755 "$new/usr/sbin/policy-rc.d"
# No unpacked docs: nothing of ours reads them.
printf 'path-exclude=/usr/share/locale/*\npath-exclude=/usr/share/man/*\nforce-unsafe-io\n' >"$new/etc/dpkg/dpkg.cfg.d/small"
if [[ -n $own_node ]]; then
  version=$(node --version)
  say "Node $version, of this machine"
  package=$new/root/nodejs
  mkdir -p "$package/DEBIAN" "$package/usr/bin"
  cp "$own_node" "$package/usr/bin/node"
  printf 'Package: nodejs\nVersion: %s-0vmdiskd\nArchitecture: amd64\nDepends: libc6, libstdc++6\nMaintainer: nobody <nobody@localhost>\nDescription: Node of the machine that made this tree\n' \
    "${version#v}" >"$package/DEBIAN/control"
  dpkg-deb --build --root-owner-group -Znone "$package" "$new/root/nodejs.deb" >&2
  parts+=(/root/nodejs.deb)
fi
say "installing ${parts[*]}"
inside /bin/sh -c 'apt-get -q update && apt-get -y -q -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" && apt-get clean' sh "${parts[@]}" \
  >>"$cache/$release.log" 2>&1 </dev/null || { tail -n 20 "$cache/$release.log" >&2; fail "apt-get install failed"; }
rm -rf "$new/usr/sbin/policy-rc.d" "$new/root/nodejs" "$new/root/nodejs.deb" "$new"/var/lib/apt/lists/*_dists_*

# There are no control groups that libvirt could give to a VM in there.
echo 'cgroup_controllers = [ ]' >>"$new/etc/libvirt/qemu.conf"
# No network that a bridge and dnsmasq would be needed for; and each boot makes an id of its own.
rm -f "$new/etc/libvirt/qemu/networks/autostart/"*
: >"$new/etc/machine-id"
echo system-test >"$new/etc/hostname"
mv -T "$new" "$out"
trap - EXIT
# Older trees only take room.
find "$cache" -maxdepth 1 -name "$release-*" -type d ! -name "$release-$key" -exec rm -rf --one-file-system {} +
say "done after $SECONDS s ($(du -sh "$out" | cut -f1))"
echo "$out"
