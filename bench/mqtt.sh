#!/usr/bin/env bash
# CPU per QoS 1 message received and acknowledged: Flock's client against libmosquitto's own consumer, from the same
# Mosquitto, with the same load. A burst (as fast as the broker can) and a steady stream, where messages come one by one.
# Everything runs on one core: waking another virtual CPU costs its waker more than a message does, and would hide it.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
build=${1:-$root/build/release}
dir=$(mktemp -d)
broker=
trap 'kill $broker 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT

while :; do port=$((20000 + RANDOM % 12000)); port_open $port || break; done
printf 'listener %d 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\nlog_dest none\n' $port >"$dir/mosquitto.conf"
taskset -c 1 mosquitto -c "$dir/mosquitto.conf" & broker=$!
wait_for 10 mosquitto port_open $port

# us_per_message PROGRAM COUNT PER_SECOND
us_per_message() {
  : >"$dir/ready"
  taskset -c 1 "$build/bench/$1" $port "$2" >"$dir/result" 2>"$dir/ready" &
  local consumer=$!
  wait_for 10 "$1" test -s "$dir/ready"
  taskset -c 1 "$build/bench/bench_mqtt_load" $port "$2" 200 "$3"
  wait $consumer
  read -r us bytes <"$dir/result"
  [ "$bytes" = $((200 * $2)) ] || die "$1 received $bytes bytes"
  echo "$us"
}
# compare NAME COUNT PER_SECOND
compare() {
  for run in 1 2 3; do
    o=$(us_per_message bench_mqtt_consumer "$2" "$3")
    m=$(us_per_message bench_mqtt_reference "$2" "$3")
    awk -v o="$o" -v m="$m" -v r=$run -v n="$1" 'BEGIN {printf "mqtt receive cpu, %s, run %d: flock %.2f us, libmosquitto %.2f us, ratio %.2f (promise: at most 1.0)\n", n, r, o, m, o / m}'
  done
}
compare burst 100000 0
compare "500 a second" 2000 500
