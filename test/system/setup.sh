#!/bin/bash
# Sets up what `npm run test:system` needs beyond `npm run setup`: two Debian packages. The trees that it boots are made by
# tree.sh when they are first wanted (a Debian each, in .cache/system: some 100 s and 460 MB).
set -euo pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

missing=()
for package in debootstrap systemd-container; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "set-up: installing Debian packages: ${missing[*]}"
  apt=(apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
  if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    "${apt[@]}" update >/dev/null
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null
  fi
fi
