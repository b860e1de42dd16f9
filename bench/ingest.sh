#!/usr/bin/env bash
# CPU per QoS 1 message of the whole ingester against a consumer that only receives and acknowledges through the same client. The
# receiver has a core of its own; broker, stores and load share the other. FLOCK_BENCH_MESSAGES=N for another number.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
"${1:-$root/build/release}/bench/bench_ingest" "${FLOCK_BENCH_MESSAGES:-200000}"
