#!/usr/bin/env bash
# Numbered devices under load while each server and an ingester is killed and paused, and while bad things are sent: what was
# lost, and how long it took to recover. FLOCK_FAULT_SECONDS=N: how long each fault lasts (60).
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
"${1:-$root/build/release}/bench/bench_faults" "${FLOCK_FAULT_SECONDS:-60}"
