#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
git ls-files -z --cached --others --exclude-standard '*.cpp' '*.h' '*.c' | xargs -0 -r clang-format-19 -i
