#!/usr/bin/env bash
# flockd beside ten containers that write logs: what a line costs and what it holds in memory, from a real Podman to a real
# Mosquitto. Needs root.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
exec "$build/bench/bench_logs" "$build/flock-agent/flockd"
