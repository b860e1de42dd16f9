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
said=$root/build/$preset/ctest.out
code=0
ctest --test-dir "$root/build/$preset" --output-on-failure --no-tests=error -j2 "$@" | tee "$said" || code=$?
[ "$code" = 0 ] && exit 0
# The output of a failed program is long: what failed in it is said once more, then the summary.
grep -aE -A10 ': Failure$|^Error: |ERROR: .*Sanitizer|runtime error: ' "$said" | cut -c1-300 | tail -n 80 || true
sed -n '/tests passed/,$p' "$said"
exit "$code"
