#!/usr/bin/env bash
# CPU per keep-alive JSON request: Flock's HTTP server against nginx's `return 200`, both under the same wrk on one core.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
dir=$(mktemp -d)
trap 'kill $nginx $ours 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
nginx= ours=

cat >"$dir/nginx.conf" <<C
daemon off; master_process off; pid $dir/nginx.pid; error_log $dir/error.log;
events { worker_connections 512; }
http { access_log off; keepalive_requests 100000000;
  client_body_temp_path $dir/a; proxy_temp_path $dir/b; fastcgi_temp_path $dir/c; uwsgi_temp_path $dir/d; scgi_temp_path $dir/e;
  server { listen unix:$dir/unused; listen 127.0.0.1:PORT;
    location / { default_type application/json; return 200 '{"id":"0190f3a2-7c11-7abc-8def-0123456789ab","name":"gw-1","state":"ONLINE","version":12}'; } } }
C
while :; do nport=$((20000 + RANDOM % 12000)); port_open $nport || break; done
sed -i "s/PORT/$nport/" "$dir/nginx.conf"
taskset -c 0 nginx -c "$dir/nginx.conf" -p "$dir" & nginx=$!
taskset -c 0 "$build/bench/bench_http_server" >"$dir/port" & ours=$!
wait_for 10 nginx port_open $nport
wait_for 10 server test -s "$dir/port"
oport=$(cat "$dir/port")

cpu_ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
# us_per_request PID URL
us_per_request() {
  local before requests
  taskset -c 1 wrk -t1 -c64 -d1s "$2" >/dev/null
  before=$(cpu_ticks "$1")
  requests=$(taskset -c 1 wrk -t1 -c64 -d4s "$2" | awk '/requests in/ {print $1}')
  awk -v t=$(($(cpu_ticks "$1") - before)) -v n="$requests" -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f", t * 1e6 / hz / n}'
}
for run in 1 2 3; do
  n=$(us_per_request $nginx http://127.0.0.1:$nport/v1/hello/gw-1)
  o=$(us_per_request $ours http://127.0.0.1:$oport/v1/hello/gw-1)
  awk -v n="$n" -v o="$o" -v r=$run 'BEGIN {printf "http request cpu, run %d: flock %.2f us, nginx %.2f us, ratio %.2f (promise: at most 1.5)\n", r, o, n, o / n}'
done
