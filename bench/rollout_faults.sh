#!/usr/bin/env bash
# Rollouts of 1,000 virtual devices while the scheduler is killed at every step, leaders are stopped and killed, and PostgreSQL and the
# broker are killed: each ends as without faults. FLOCK_BENCH_DEVICES=N for another number.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
devices=${FLOCK_BENCH_DEVICES:-1000}
unset FLOCK_BENCH_DEVICES   # flock-api does not start with a FLOCK_ variable that it does not know
"${1:-$root/build/release}/bench/bench_rollout_faults" "$devices"
