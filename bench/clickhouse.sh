#!/usr/bin/env bash
# Telemetry rows a second into ClickHouse: Flock's store against clickhouse-client with the same rows, in the same format, into
# the same schema of one private server. FLOCK_BENCH_ROWS=N for another number.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
"$build/bench/bench_clickhouse_insert" "${FLOCK_BENCH_ROWS:-2000000}"
