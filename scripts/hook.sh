#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
hook=$(git -C "$root" rev-parse --git-path hooks/pre-commit)
printf '#!/bin/sh\nexec ./dev lint --changed\n' >"$root/$hook"
chmod +x "$root/$hook"
say "installed $hook"
