#!/usr/bin/env bash
# Lists of a million devices: Flock's database layer against libpq, near pages against far ones, and the API over HTTP under 64
# connections. FLOCK_BENCH_DEVICES=N for another number. Everything is private and goes at the end.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
dir=$(mktemp -d)
mkfifo "$dir/stdin"
page= bare=
trap 'exec 3>&-; kill $bare 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
"$build/bench/bench_devices_page" "$build/flock-api/flock-api" "${FLOCK_BENCH_DEVICES:-1000000}" <"$dir/stdin" >"$dir/out" & page=$!
exec 3>"$dir/stdin"
wait_for 900 "a million devices" grep -q ^READY "$dir/out"
grep -v ^READY "$dir/out"
read -r _ api url key < <(grep ^READY "$dir/out")
"$build/bench/bench_http_server" >"$dir/port" 3>&- & bare=$!
wait_for 10 server test -s "$dir/port"

# load SECONDS URL -> "p50 p99 requests_per_second", in microseconds
load() {
  wrk -t1 -c64 -d"$1"s --latency -H "Authorization: Bearer $key" "$2" >"$dir/wrk"
  ! grep -q "Non-2xx" "$dir/wrk" || { cat "$dir/wrk" >&2; return 1; }
  awk 'function us(t) { return t ~ /us$/ ? t + 0 : t ~ /ms$/ ? t * 1e3 : t * 1e6 }
    /50%/ {p50 = us($2)} /99%/ {p99 = us($2)} /Requests\/sec/ {rate = $2} END {printf "%d %d %d", p50, p99, rate}' "$dir/wrk"
}
list="$url/v1/devices?filter=labels.site%20=%20s7&order_by=name"
load 2 "$list" >/dev/null
read -r p50 p99 rate < <(load 8 "$list")
awk -v a="$p50" -v b="$p99" -v r="$rate" 'BEGIN {
  printf "device lists, 64 connections: p50 %d us, p99 %d us, ratio %.2f (promise: at most 3), %d a second\n", a, b, b / a, r}'
id=$(curl -sf -H "Authorization: Bearer $key" "$list&page_size=1" | sed 's/.*"items":\[{"id":"\([^"]*\)".*/\1/')
for run in 1 2 3; do
  read -r _ _ one < <(load 4 "$url/v1/devices/$id")
  read -r _ _ hello < <(load 4 "http://127.0.0.1:$(cat "$dir/port")/v1/hello/gw-1")
  awk -v a="$one" -v b="$hello" -v n=$run 'BEGIN {
    printf "one device, run %d: %d a second, bare HTTP server %d, ratio %.2f (promise: at least 0.5)\n", n, a, b, a / b}'
done
awk '/VmHWM/ {printf "memory of the api target at most: %.0f MB (promise: under 100)\n", $2 / 1024}' "/proc/$api/status"
