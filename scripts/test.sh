#!/usr/bin/env bash
# test [dev|asan|tsan] [ctest options]: installs what is missing, builds and runs everything: unit, integration against real servers, end to end.
# asan and tsan leave out what spans programs; asan runs the fuzzers too.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
preset=dev
case "${1:-}" in dev|asan|tsan) preset=$1; shift ;; esac
"$root/scripts/setup.sh"
"$root/scripts/build.sh" "$preset"
export FLOCK_REQUIRE_SERVICES=1   # a missing server is a failure, not a skip
exec ctest --test-dir "$root/build/$preset" --output-on-failure --no-tests=error -j2 "$@"
