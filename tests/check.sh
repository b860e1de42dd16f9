# Shared by the whole-stack scripts; sourced. FLOCK_HOME is the stack's private folder.
# shellcheck shell=bash
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$tests/../flock-local/stack.sh"
export FLOCK_CONFIG_HOME=$home/cli
flock=$bin/flock-cli/flock

if [ "$(id -u)" != 0 ]; then
  [ "${FLOCK_REQUIRE_SERVICES:-}" = 1 ] && die "whole-stack tests need root"
  echo "skipped: needs root"
  exit 0
fi
cleanup() {
  local status=$?
  if [ $status -ne 0 ]; then
    for log in "$home"/log/*.log; do [ -e "$log" ] && { echo "--- $log"; tail -15 "$log"; }; done
  fi
  "$root/dev" down --wipe || status=1
  exit $status
}
trap cleanup EXIT

ok() { printf 'ok: %s\n' "$*"; }
# expect WHAT WANTED GOT
expect() { [ "$2" = "$3" ] || die "$1: expected '$2', got '$3'"; ok "$1"; }
app() { curl -fs -m 2 "http://127.0.0.1:$(port hello)"; }
app_says() { [ "$(app)" = "hello $1" ]; }
container() { device_podman ps --no-trunc -q --filter label=io.flock.managed=true; }
device_state() { "$flock" devices show local-device -o json | jq -r .state; }
device_is() { [ "$(device_state)" = "$1" ]; }
phase_is() { [ "$("$flock" devices show local-device -o json | jq -r .reported.phase)" = "$1" ]; }
