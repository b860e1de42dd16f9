#!/usr/bin/env bash
# restart NAME [--kill]: stops one part (--kill: with SIGKILL) and starts it again; for trying what Flock survives.
set -euo pipefail
. "$(dirname "$0")/../flock-local/stack.sh"
part=${1:-}
case " $parts " in *" $part "*) [ -n "$part" ] ;; *) false ;; esac || die "which part? one of: $parts" "./dev restart api"
need_root restart
signal=TERM
[ "$part" != postgres ] || signal=INT
[ "${2:-}" != --kill ] || signal=KILL
stop "$part" "$signal"
"start_$part"
say "$part was restarted"
