#!/usr/bin/env bash
# Texts that may not be in the repository: paths of a build machine, unfinished work, files without a licence line.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
bad=0
complain() { printf '%s\n' "$1" "$2" >&2; bad=1; }
files() { git ls-files -z --cached --others --exclude-standard "$@"; }

found=$(files '*.cpp' '*.h' '*.c' '*.sh' '*.ts' '*.tsx' | xargs -0 -r grep -nE '\b(TODO|FIXME|XXX|HACK)\b' | grep -v 'scripts/check_repository.sh' || true)
[ -z "$found" ] || complain "unfinished work:" "$found"
found=$(files '*.cpp' '*.h' '*.c' | xargs -0 -r grep -L 'SPDX-License-Identifier' || true)
[ -z "$found" ] || complain "no SPDX line:" "$found"
found=$(files '*.cpp' '*.h' | xargs -0 -r wc -l | awk '$1 > 700 && $2 != "total"')
[ -z "$found" ] || complain "over 700 lines; one idea per file:" "$found"
[ $bad = 0 ] || exit 1
say "repository texts: ok"
