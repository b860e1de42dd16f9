#!/usr/bin/env bash
# bench [name...]: prints the performance table; every line shows both sides of one run. Without names, all.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
"$root/scripts/build.sh" release >/dev/null
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(http mqtt ingest clickhouse device logs traffic devices rollouts scale)
for name in "${names[@]}"; do "$root/bench/$name.sh"; done
