#!/usr/bin/env bash
# Fails on an include that goes up a floor (scripts/floors.txt), and on a vendor header in a header of ours.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
git ls-files --cached --others --exclude-standard '*.cpp' '*.h' | grep -E '^(libs|flock-)' | while read -r f; do [ -f "$f" ] && echo "$f"; done |
  xargs awk '
    BEGIN {
      while ((getline line < "scripts/floors.txt") > 0) {
        if (line ~ /^#/ || line == "") continue
        split(line, part, ": "); allowed[part[1]] = " " part[2] " "
      }
    }
    FNR == 1 {
      best = ""
      for (folder in allowed) if (index(FILENAME, folder "/") == 1 && length(folder) > length(best)) best = folder
      test = FILENAME ~ /_(test|itest|fuzz)\.cpp$/ || FILENAME ~ /_contract\.h$/
      header = FILENAME ~ /\.h$/
    }
    best != "" && /^#include "/ {
      split($2, q, "\""); path = q[2]; room = path; sub(/\/.*/, "", room)
      if (index(path, "/") == 0) room = "."
      ok = index(allowed[best], " " room " ") || (room == "." )
      if (!ok && test) { if (("libs/" room) in allowed) ok = 1 }
      if (!ok) { printf "%s:%d: %s may not include \"%s\" (scripts/floors.txt)\n", FILENAME, FNR, best, path; bad = 1 }
    }
    header && !test && /^#include <(boost\/(asio\.hpp|beast|json\.hpp|json\/value|url)|openssl\/|libpq|hiredis|yaml-cpp|CLI\/|mosquitto)/ {
      printf "%s:%d: vendor header in a header; include it in the .cpp\n", FILENAME, FNR; bad = 1
    }
    END { exit bad }
  ' || die "the floors of docs/architecture.md are broken"
say "floors: ok"
