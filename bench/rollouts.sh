#!/usr/bin/env bash
# A rollout over a million devices: the engine's statements beside the bare ones, and decisions a second. FLOCK_BENCH_DEVICES=N for
# another number, of 100,000 at least.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
count=${FLOCK_BENCH_DEVICES:-1000000}
unset FLOCK_BENCH_DEVICES   # flock-api does not start with a FLOCK_ variable that it does not know
[ "$count" -ge 100000 ] || die "$count devices have no stage of 100,000" "set FLOCK_BENCH_DEVICES to 100000 or more"
"${1:-$root/build/release}/bench/bench_rollouts" "$count"
