#!/usr/bin/env bash
# Installs everything from Debian. Server packages are installed without starting their services.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -eq 0 ]; then
  say "setup: nothing to install"
  exit 0
fi
need_root setup
say "setup: installing ${#missing[@]} packages"

# A server package starts its service unless policy-rc.d says no; the local stack runs private instances only.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
install() {
  apt-get -o DPkg::Lock::Timeout=600 update >"$log" 2>&1 || true   # a third-party list may be unreachable
  apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1
}
if ! install && ! { sleep 10; install; }; then
  tail -20 "$log" >&2
  die "apt-get could not install: ${missing[*]}" "apt-get update && ./dev setup"
fi
rm -f "$log"
say "setup: done"
