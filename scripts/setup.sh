#!/usr/bin/env bash
# Installs everything from Debian, and the npm packages of the local OpenID provider into its own folder. Server packages are
# installed without starting their services.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Node may come from elsewhere, in a newer version than Debian's; what is good enough stays.
node_is_good() {
  command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 18 ]
}

install_packages() {
  need_root setup
  say "setup: installing $# packages"
  # A server package starts its service unless policy-rc.d says no; the local stack runs private instances only.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  if ! try_install "$@" && ! { sleep 10; try_install "$@"; }; then
    tail -20 "$log" >&2
    die "apt-get could not install: $*" "apt-get update && ./dev setup"
  fi
  rm -f "$log"
}
try_install() {
  apt-get -o DPkg::Lock::Timeout=600 update >"$log" 2>&1 || true   # a third-party list may be unreachable
  apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$@" >>"$log" 2>&1
}

# The lock names every version with its checksum; a copy of it marks what is installed. An image is built from scripts/ alone
# and needs none of it.
npm_folders=("$root/flock-local/oidc" "$root/flock-api/openapi")
npm_folders_there() {
  local folder
  for folder in "${npm_folders[@]}"; do [ ! -e "$folder/package-lock.json" ] || echo "$folder"; done
}
npm_folders_left() {
  local folder
  for folder in $(npm_folders_there); do
    cmp -s "$folder/package-lock.json" "$folder/node_modules/.installed" || echo "$folder"
  done
}

mapfile -t missing < <(missing_packages)
# Also where their packages are there already: the tests run them.
[ -z "$(npm_folders_there)" ] || node_is_good || missing+=(nodejs npm)
if [ ${#missing[@]} -eq 0 ] && [ -z "$(npm_folders_left)" ]; then
  say "setup: nothing to install"
  exit 0
fi
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
for folder in $(npm_folders_left); do
  say "setup: installing the npm packages of ${folder#"$root"/}"
  npm ci --prefix "$folder" --omit=dev --ignore-scripts --no-audit --no-fund --silent ||
    { sleep 5; npm ci --prefix "$folder" --omit=dev --ignore-scripts --no-audit --no-fund; } ||
    die "npm could not install the packages of $folder" "./dev setup"
  cp "$folder/package-lock.json" "$folder/node_modules/.installed"
done
say "setup: done"
