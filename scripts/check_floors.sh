#!/usr/bin/env bash
# Fails on an include that goes up a floor (scripts/floors.txt), and on a vendor header that leaves its room: a header of ours
# that includes one, directly or through another, may be included from its own folder only.
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
      test = FILENAME ~ /_(test|itest|fuzz)\.(cpp|h)$/ || FILENAME ~ /_contract\.h$/
      header = FILENAME ~ /\.h$/
    }
    best != "" && /^#include "/ {
      split($2, q, "\""); path = q[2]; room = path; sub(/\/.*/, "", room)
      if (index(path, "/") == 0) room = "."
      ok = index(allowed[best], " " room " ") || (room == "." )
      if (!ok && test) { if (("libs/" room) in allowed) ok = 1 }
      if (!ok) { printf "%s:%d: %s may not include \"%s\" (scripts/floors.txt)\n", FILENAME, FNR, best, path; bad = 1 }
    }
    /^#include "/ && index(path, "/") && !test {
      # Tests may look inside. Both spellings an include path has here: libs/ROOM/X.h and PROGRAM/src/ROOM/X.h.
      root = best; sub(/[^\/]*$/, "", root)
      edge[++edges] = FILENAME SUBSEP FNR SUBSEP root path SUBSEP "libs/" path
    }
    header && /^#include <(boost\/(asio\.hpp|beast|json\.hpp|json\/value|url)|openssl\/|libpq|hiredis|yaml-cpp|CLI\/|mosquitto)/ { vendor[FILENAME] = 1 }
    END {
      do {
        again = 0
        for (i = 1; i <= edges; i++) {
          split(edge[i], e, SUBSEP)
          if (e[1] ~ /\.h$/ && !(e[1] in vendor) && ((e[3] in vendor) || (e[4] in vendor))) { vendor[e[1]] = 1; again = 1 }
        }
      } while (again)
      for (i = 1; i <= edges; i++) {
        split(edge[i], e, SUBSEP)
        target = (e[3] in vendor) ? e[3] : (e[4] in vendor) ? e[4] : ""
        if (target == "") continue
        here = e[1]; there = target; sub(/\/[^\/]*$/, "", here); sub(/\/[^\/]*$/, "", there)
        if (here != there) { printf "%s:%d: brings a vendor header out of %s through %s\n", e[1], e[2], there, target; bad = 1 }
      }
      exit bad
    }
  ' || die "the floors of docs/architecture.md are broken"
say "floors: ok"
