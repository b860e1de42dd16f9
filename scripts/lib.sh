# Shared by the scripts in this folder; sourced, never run.
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${FLOCK_HOME:-$root/.flock}   # everything the local stack writes
bin=$root/build/dev

say() { printf '%s\n' "$*"; }
die() {
  printf 'Error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'Try:   %s\n' "$2" >&2
  exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "this needs root (containers and packages)" "sudo ./dev ${1:-up}"; }

packages() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$root/scripts/packages.txt"; }

# Names of packages that are not installed.
missing_packages() {
  local wanted
  mapfile -t wanted < <(packages)
  # `db:Status-Abbrev` is "ii " for an installed package; unknown ones print to stderr only.
  comm -13 <(dpkg-query -W -f '${db:Status-Abbrev}|${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^ii *|//p' | sort) \
    <(printf '%s\n' "${wanted[@]}" | sort)
}

# --- Daemons of the local stack: started in their own session, known by pid and start time ----------

started_at() { awk '{print $22}' "/proc/$1/stat" 2>/dev/null; }

# alive NAME: the process that we started still runs (a reused pid has another start time).
alive() {
  local file=$home/run/$1.pid pid since
  [ -f "$file" ] || return 1
  read -r pid since <"$file" || return 1
  [ -n "$since" ] && [ "$(started_at "$pid")" = "$since" ] && [ "$(awk '{print $3}' "/proc/$pid/stat" 2>/dev/null)" != Z ]
}

pid_of() { cut -d' ' -f1 "$home/run/$1.pid"; }

# start NAME command...: output goes to .flock/log/NAME.log.
start() {
  local name=$1 pid
  shift
  mkdir -p "$home/run" "$home/log"
  setsid -f sh -c 'echo $$ >"$1"; shift; exec "$@"' start "$home/run/$name.tmp" "$@" >>"$home/log/$name.log" 2>&1 </dev/null
  for _ in $(seq 100); do [ -s "$home/run/$name.tmp" ] && break; sleep 0.02; done
  pid=$(cat "$home/run/$name.tmp")
  rm -f "$home/run/$name.tmp"
  echo "$pid $(started_at "$pid")" >"$home/run/$name.pid"
}

# stop NAME [signal] [seconds]
stop() {
  local name=$1 signal=${2:-TERM} seconds=${3:-15} pid
  if alive "$name"; then
    pid=$(pid_of "$name")
    kill -s "$signal" "$pid" 2>/dev/null || true
    for _ in $(seq $((seconds * 20))); do alive "$name" || break; sleep 0.05; done
    if alive "$name"; then
      say "  $name did not stop in ${seconds}s, killing it"
      kill -s KILL "$pid" 2>/dev/null || true
      for _ in $(seq 40); do alive "$name" || break; sleep 0.05; done
    fi
  fi
  rm -f "$home/run/$name.pid"
}

# wait_for SECONDS WHAT command...: until the command succeeds.
wait_for() {
  local seconds=$1 what=$2 end
  shift 2
  end=$(($(date +%s) + seconds))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || die "$what did not become ready in ${seconds}s" "look into $home/log/"
    sleep 0.05
  done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port NAME: a free port, chosen once and remembered in .flock/ports.
port() {
  local file=$home/ports found
  mkdir -p "$home"
  touch "$file"
  found=$(sed -n "s/^$1=//p" "$file")
  if [ -z "$found" ]; then
    while :; do
      found=$((20000 + RANDOM % 12000))   # below the kernel's ephemeral range
      grep -q "=$found\$" "$file" || port_open "$found" || break
    done
    echo "$1=$found" >>"$file"
  fi
  echo "$found"
}
