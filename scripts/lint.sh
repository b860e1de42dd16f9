#!/usr/bin/env bash
# lint [--quick | --changed]: format, texts, floors; then headers that stand alone, clang-tidy, and the ten slowest files.
# --quick leaves the compiling checks out; --changed runs them on the files that differ from HEAD only.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
mode=${1:-full}
cd "$root"
"$root/scripts/check_repository.sh"
"$root/scripts/check_floors.sh"
git ls-files -z --cached --others --exclude-standard '*.cpp' '*.h' '*.c' | xargs -0 -r clang-format-19 --dry-run -Werror ||
  die "files are not formatted" "./dev fmt"
say "format: ok"
[ "$mode" != --quick ] || exit 0

"$root/scripts/build.sh" dev >/dev/null || die "the build fails" "./dev build"
database=$root/build/dev/compile_commands.json
sources() {
  if [ "$mode" = --changed ]; then git diff --name-only --diff-filter=d HEAD -- "$1"; else git ls-files "$1"; fi
}

# A header is compiled alone with the flags of a source file of its folder.
check_header() {
  local header=$1 folder command
  folder=$(dirname "$header")
  command=$(jq -r --arg d "/$folder/" '[.[] | select(.file | contains($d)) | .command][0] // empty' "$database")
  [ -n "$command" ] || return 0
  command=$(sed -E 's/^.*(clang\+\+-19)/\1/; s/ -o [^ ]+//; s/ -c [^ ]+$//; s/-M(D|T|F)( [^ ]+)?//g' <<<"$command")
  (cd "$root/build/dev" && eval "$command -fsyntax-only -Wno-pragma-once-outside-header -x c++ $root/$header") ||
    { echo "$header does not stand alone" >&2; return 1; }
}
export -f check_header
export root database
sources '*.h' | grep -E '^(libs|flock-)' | xargs -r -P 2 -I{} bash -c 'check_header {}' || die "headers must compile alone"
say "headers: ok"

# Its errors are on stdout; a crash of its own says nothing there.
tidy() {
  local code=0
  clang-tidy-19 -p build/dev --quiet --warnings-as-errors='*' "$@" 2>/dev/null || code=$?
  [ $code -lt 128 ] || echo "clang-tidy itself crashed on one of: $*"
  return $((code != 0))
}
export -f tidy
sources '*.cpp' | grep -vE '_fuzz\.cpp$' | grep -E '^(libs|flock-)' | xargs -r -P 2 -n 4 bash -c 'tidy "$@"' _ || die "clang-tidy found errors"
say "clang-tidy: ok"

say "slowest files of the last build (seconds):"
awk -F'\t' '/^[0-9]/ && $4 ~ /\.o$/ { t[$4] = ($2 - $1) / 1000 } END { for (f in t) printf "%6.1f  %s\n", t[f], f }' build/dev/.ninja_log | sort -rn | head -10
