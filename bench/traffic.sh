#!/usr/bin/env bash
# What an idle device costs on its line: flockd with two services, against a broker and a server with TLS, counted between them.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
need_root bench
build=${1:-$root/build/release}
"$build/bench/bench_traffic" "$build/flock-agent/flockd"
