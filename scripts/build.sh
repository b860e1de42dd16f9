#!/usr/bin/env bash
# build [preset] [ninja targets...]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
preset=${1:-dev}
[ $# -gt 0 ] && shift
command -v clang++-19 >/dev/null || die "clang 19 is not installed" "./dev setup"
cd "$root"
export CCACHE_BASEDIR=$root CCACHE_SLOPPINESS=include_file_ctime,include_file_mtime CCACHE_NOHASHDIR=1
log=$(mktemp)
if ! cmake --preset "$preset" >"$log" 2>&1; then
  cat "$log" >&2
  die "cmake could not configure the $preset preset" "./dev setup"
fi
rm -f "$log"
exec ninja -C "build/$preset" "$@"
