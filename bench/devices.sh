#!/usr/bin/env bash
# Lists of a million devices: Flock's database layer against libpq, near pages against far ones, and the API over HTTP under 64
# connections; single devices, a thousand of them over and over, beside the bare HTTP server, and what each process spends on one.
# FLOCK_BENCH_DEVICES=N for another number, of 50,000 at least: a page of one label in a thousand must be full. Everything is private
# and goes at the end.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
count=${FLOCK_BENCH_DEVICES:-1000000}
unset FLOCK_BENCH_DEVICES   # flock-api does not start with a FLOCK_ variable that it does not know
[ "$count" -ge 50000 ] || die "$count devices do not fill the pages" "set FLOCK_BENCH_DEVICES to 50000 or more"
dir=$(mktemp -d)
mkfifo "$dir/stdin"
page= bare=
trap 'exec 3>&-; kill $bare 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
"$build/bench/bench_devices_page" "$build/flock-api/flock-api" "$count" <"$dir/stdin" >"$dir/out" & page=$!
exec 3>"$dir/stdin"
ready_or_dead() { grep -q ^READY "$dir/out" || ! kill -0 "$page"; }
wait_for 3600 "a million devices" ready_or_dead
grep -q ^READY "$dir/out" || die "bench_devices_page ended early" "its message stands above"
grep -v ^READY "$dir/out"
read -r _ api url key < <(grep ^READY "$dir/out")
"$build/bench/bench_http_server" >"$dir/port" 3>&- & bare=$!
wait_for 10 server test -s "$dir/port"
hello="http://127.0.0.1:$(cat "$dir/port")"

# ticks /proc/PID...: of processor time so far; one that ended meanwhile counts no more.
ticks() { { cat "${@/%//stat}" 2>/dev/null || true; } | awk '{n += $14 + $15} END {print n + 0}'; }
stat_of() { local pid; for pid in "$@"; do echo "/proc/$pid"; done; }
# processes NAME: what bench_devices_page started by that name, and their children: PostgreSQL's are its connections.
processes() { local at; for at in $(pgrep -P "$page" "$@"); do echo "$at"; pgrep -P "$at"; done; }
# spent: processor time of API, PostgreSQL, Valkey and the bare server, in microseconds.
spent() {
  local hz at line=
  hz=$(getconf CLK_TCK)
  for at in "$api" "$(processes postgres)" "$(processes -f '^[^ ]*(redis|valkey)-server ')" "$bare"; do
    # shellcheck disable=SC2086
    line+=" $(($(ticks $(stat_of $at)) * 1000000 / hz))"
  done
  echo "$line"
}

# wrk takes one id after the other, so that both servers are asked for many.
cat >"$dir/ids.lua" <<'L'
local paths, at = {}, 0
function init(args)
  for id in io.lines(args[1]) do paths[#paths + 1] = wrk.format("GET", args[2] .. id) end
end
function request() at = at % #paths + 1; return paths[at] end
L
# load SECONDS URL [PREFIX [COUNT]] -> "p50 p99 requests_per_second requests wrk_cpu", in microseconds. With a prefix, it goes before the
# first COUNT (1000) ids.
load() {
  local seconds=$1 target=$2 TIMEFORMAT='%U %S'
  shift 2
  if [ $# -gt 0 ]; then
    head -n "${2:-1000}" "$dir/ids" >"$dir/asked"
    set -- -s "$dir/ids.lua" "$target" -- "$dir/asked" "$1"
  fi
  [ $# -gt 0 ] || set -- "$target"
  { time wrk -t1 -c64 -d"$seconds"s --latency -H "Authorization: Bearer $key" "$@" >"$dir/wrk"; } 2>"$dir/time"
  ! grep -q "Non-2xx" "$dir/wrk" || { cat "$dir/wrk" >&2; return 1; }
  awk 'function us(t) { return t ~ /us$/ ? t + 0 : t ~ /ms$/ ? t * 1e3 : t * 1e6 }
    FILENAME ~ /time$/ {cpu = ($1 + $2) * 1e6; next}
    /50%/ {p50 = us($2)} /99%/ {p99 = us($2)} /Requests\/sec/ {rate = $2} /requests in/ {n = $1}
    END {printf "%d %d %d %d %d\n", p50, p99, rate, n, cpu}' "$dir/time" "$dir/wrk"
}
list="/v1/devices?filter=labels.site%20=%20s7&order_by=name"
load 2 "$url$list" >/dev/null
for run in 1 2 3; do
  read -r p50 p99 rate _ < <(load 8 "$url$list")
  awk -v a="$p50" -v b="$p99" -v r="$rate" -v n=$run 'BEGIN {
    printf "device lists, 64 connections, run %d: p50 %d us, p99 %d us, ratio %.2f (promise: at most 3), %d a second\n", n, a, b, b / a, r}'
done
many=40000 token=
until [ "$(cat "$dir/ids" 2>/dev/null | wc -l)" -ge $many ]; do
  curl -sf -H "Authorization: Bearer $key" "$url/v1/devices?page_size=1000&fields=id&page_token=$token" >"$dir/page"
  grep -o '"id":"[^"]*' "$dir/page" | cut -c7- >>"$dir/ids"
  token=$(grep -o '"next_page_token":"[^"]*' "$dir/page" | cut -c20-)
done
load 2 "$url" /v1/devices/ >/dev/null
for run in 1 2 3; do
  before=$(spent)
  read -r _ _ one one_n one_wrk < <(load 5 "$url" /v1/devices/)
  read -r _ _ bare_rate bare_n bare_wrk < <(load 5 "$hello" /v1/hello/)
  echo "$before $(spent)" | awk -v a="$one" -v b="$bare_rate" -v n="$one_n" -v m="$bare_n" -v w="$one_wrk" -v v="$bare_wrk" -v r=$run '{
    printf "one device, run %d: %d a second, bare HTTP server %d, ratio %.2f (promise: at least 0.5)\n", r, a, b, a / b
    printf "  processor time a request: api %.1f + PostgreSQL %.1f + Valkey %.1f + wrk %.1f us; bare server %.1f + wrk %.1f us\n",
      ($5 - $1) / n, ($6 - $2) / n, ($7 - $3) / n, w / n, ($8 - $4) / m, v / m}'
done
# More devices than the API keeps: each is read anew.
before=$(spent)
read -r _ _ rate n wrk < <(load 10 "$url" /v1/devices/ $many)
echo "$before $(spent)" | awk -v r="$rate" -v n="$n" -v w="$wrk" '{
  printf "one device, each time another one: %d a second\n", r
  printf "  processor time a request: api %.1f + PostgreSQL %.1f + Valkey %.1f + wrk %.1f us\n", ($5 - $1) / n, ($6 - $2) / n, ($7 - $3) / n, w / n}'
awk '/VmHWM/ {printf "memory of the api target at most: %.0f MB (promise: under 100)\n", $2 / 1024}' "/proc/$api/status"
