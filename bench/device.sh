#!/usr/bin/env bash
# The device's own figures, against a stack of its own: start to online, deploy to running, and flockd when idle.
set -euo pipefail
export FLOCK_HOME=${FLOCK_HOME:-$(cd "$(dirname "$0")/.." && pwd)/build/stack-bench}
. "$(dirname "$0")/../flock-local/stack.sh"
need_root bench
bin_release=${1:-$root/build/release}
trap '"$root/dev" down --wipe >/dev/null' EXIT
"$root/dev" up >/dev/null
export FLOCK_CONFIG_HOME=$home/cli
flock=$bin/flock-cli/flock
online() { [ "$("$flock" devices -o json | jq -r '.items[0].state')" = ONLINE ]; }
offline() { ! online; }

stop flockd
wait_for 30 "the device going offline" offline
bin=$bin_release
began=$(date +%s%N)
start_flockd
wait_for 20 "the device" online
awk -v ns=$(($(date +%s%N) - began)) 'BEGIN {printf "device start to online: %.2f s (promise: under 2 s)\n", ns / 1e9}'

# Checked every 10 s, as a service on a device is; the sample's 2 s are for the eyes of who watches ./dev up.
sed 's/mem_limit: 32m/mem_limit: 34m/; s/interval: 2s/interval: 10s/' "$home/images/v2.yaml" >"$home/images/bench.yaml"
"$flock" releases create --version bench -f "$home/images/bench.yaml" >/dev/null
app_limit() { device_podman inspect --format '{{.HostConfig.Memory}} {{.State.Status}}' "$(device_podman ps -q --filter label=io.flock.managed=true)"; }
running() { [ "$(app_limit)" = "$((34 * 1048576)) running" ]; }
began=$(date +%s%N)
"$flock" deploy demo --release bench --soak 0s --no-wait >/dev/null
wait_for 20 "the new release" running
awk -v ns=$(($(date +%s%N) - began)) 'BEGIN {printf "deploy call to running, image local: %.2f s (promise: under 2 s)\n", ns / 1e9}'

confirmed() { [ "$("$flock" devices -o json | jq -r '.items[0].reported.phase')" = CONFIRMED ]; }
wait_for 20 "the proof" confirmed
sleep 35   # the rollout settles, and the place in the log of what the new container said is saved (30 s); then it is idle
pid=$(pid_of flockd)
switches() { awk '/^voluntary_ctxt_switches/ {print $2}' "/proc/$pid/status"; }
written() { awk '/^write_bytes/ {print $2}' "/proc/$pid/io"; }
s=$(switches) w=$(written)
seconds=60
sleep $seconds
awk -v rss="$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")" -v s=$(($(switches) - s)) -v w=$(($(written) - w)) -v t=$seconds 'BEGIN {
  printf "flockd idle beside a service checked every 10 s: RSS %.1f MB (promise: at most 10), %.2f wake-ups a second (promise: at most 1), %d bytes written in %d s (promise: 0)\n", rss / 1024, s / t, w, t }'
