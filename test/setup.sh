#!/bin/bash
# Sets up everything that `npm test` and `npm run demo` need, and says what it does. What is there already is left
# alone, so a second run takes a second. Needs root on Debian 12 or 13, and Node 20 or later with npm.
#
# The machine keeps: Debian packages (QEMU, parts of libvirt, libnbd and a few small tools), node_modules/, dist/ and
# .cache/ in this checkout. No service of libvirt or AppArmor is started or enabled, and nothing outside is configured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin

# libvirt-daemon-system is left out on purpose: it would set up a libvirt for the whole machine, and the tests bring
# their own settings, accounts and directories. systemd and AppArmor are for their tools that check the package's units and
# snippet; neither is started.
packages=(
  qemu-system-x86 qemu-system-common qemu-utils
  libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
  libnbd-bin python3-libnbd nbdkit
  strace busybox-static cpio kmod xz-utils e2fsprogs openssl curl iproute2 hostname procps
  systemd apparmor
)

say() { echo "set-up: $*"; }
fail() {
  echo "set-up: $*" >&2
  exit 1
}

# One line that says what to do is all that a wrong machine gets.
[[ -r /etc/os-release ]] && . /etc/os-release
if [[ ${ID:-} != debian || ${VERSION_ID:-0} != 1[23] || $(uname -m) != x86_64 || $EUID -ne 0 ]]; then
  fail "needs root on Debian 12 or 13 (x86-64), with Node 20 or later; it installs: ${packages[*]}"
fi
if ! mountpoint -q /; then
  fail "needs a root file system of its own (mount namespaces do not work in a plain chroot: bind-mount it, pivot_root)"
fi
node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if ((node_major < 20)) || ! command -v npm >/dev/null; then
  fail "needs Node 20 or later with npm (Debian 13: apt-get install nodejs npm; here: $(node --version 2>/dev/null || echo none))"
fi

mkdir -p .cache
exec 8>.cache/setup.lock
if ! flock --nonblock 8; then
  say "waiting for another set-up to end"
  flock 8
fi

# The container's own answer, where apt-get's would need the lists.
installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# The units of these packages, so that what their installation enables can be disabled again.
units_of() { dpkg-query -L "$@" 2>/dev/null | sed -n 's#^\(/usr\)\?/lib/systemd/system/\([^/]*\.\(service\|socket\)\)$#\2#p' | grep -v '@\.' | sort -u; }

install_packages() {
  local policy=/usr/sbin/policy-rc.d deny='' new_services=() package unit
  for package in libvirt-daemon libvirt-daemon-log libvirt-daemon-lock libvirt-daemon-common libvirt-daemon-driver-qemu apparmor; do
    installed "$package" || new_services+=("$package")
  done
  # Debian's way to say "do not start this now". An administrator's own policy stays.
  if [[ ! -e $policy ]]; then
    deny=$policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\n# Made by the set-up of vmdiskd'"'"'s tests, for the length of one apt-get install.\ncase $1 in *virt* | apparmor*) exit 101 ;; esac\nexit 0\n' >"$policy"
    chmod 755 "$policy"
  fi
  local apt=(apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
  export DEBIAN_FRONTEND=noninteractive
  mkdir -p .cache/log
  say "installing Debian packages: $* (log: .cache/log/apt.log)"
  if ! "${apt[@]}" install --no-install-recommends "$@" >.cache/log/apt.log 2>&1; then
    say "apt-get update (its lists are missing or old)"
    "${apt[@]}" update >>.cache/log/apt.log 2>&1 || { tail -n 20 .cache/log/apt.log >&2; fail "apt-get update failed"; }
    "${apt[@]}" install --no-install-recommends "$@" >>.cache/log/apt.log 2>&1 ||
      { tail -n 20 .cache/log/apt.log >&2; fail "apt-get install failed"; }
  fi
  if [[ -n $deny ]]; then
    rm -f "$deny"
    trap - EXIT
  fi
  # Not started, and not at the next boot either, where this installation has brought them.
  if ((${#new_services[@]})) && command -v systemctl >/dev/null; then
    for unit in $(units_of "${new_services[@]}"); do systemctl disable --quiet "$unit" >/dev/null 2>&1 || true; done
  fi
}

missing=()
for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
if ((${#missing[@]})); then install_packages "${missing[@]}"; else say "Debian packages are there"; fi

# npm writes its own copy of the lock file last: it is older than the lock file when the tree is stale.
if [[ ! -e node_modules/.package-lock.json || package-lock.json -nt node_modules/.package-lock.json ]]; then
  say "installing npm packages (npm ci)"
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
else
  say "npm packages are there"
fi

say "building (tsc)"
npm run --silent build

say "guest kernel and initramfs"
bash test/host/guest-image/build.sh >.cache/guest-image 2> >(sed 's/^/set-up:   /' >&2) ||
  { say "apt-get update (for the guest's packages)"; apt-get update -qq && bash test/host/guest-image/build.sh >.cache/guest-image; }
say "done after ${SECONDS} s"
