#!/usr/bin/env bash
# Builds and runs everything: unit, integration against real servers, end to end. Options go to ctest.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
"$root/scripts/build.sh" dev
export FLOCK_REQUIRE_SERVICES=1   # a missing server is a failure, not a skip
exec ctest --test-dir "$root/build/dev" --output-on-failure --no-tests=error -j2 "$@"
