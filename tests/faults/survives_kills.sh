#!/usr/bin/env bash
# kill -9 of each part, one at a time, and a start: everything comes back without a hand and the container never restarts.
. "$(dirname "$0")/../check.sh"

"$root/dev" up --one-device >/dev/null
first=$(container)
started=$(device_podman inspect --format '{{.State.StartedAt}}' "$first")
untouched() {
  expect "$1: same container" "$first" "$(container)"
  expect "$1: never restarted" "$started" "$(device_podman inspect --format '{{.State.StartedAt}}' "$first")"
  expect "$1: the app answers" "hello v2" "$(app)"
}
# A live round trip: a command reaches the backend, the device is online and has proven what it runs.
works() {
  wait_for 60 "the device after $1" device_is ONLINE
  wait_for 60 "the device's proof after $1" phase_is CONFIRMED
}

for part in flockd api mosquitto valkey clickhouse postgres; do
  pid=$(pid_of $part)
  kill -KILL "$pid"
  for _ in $(seq 100); do alive $part || break; sleep 0.05; done
  expect "$part killed: the app answers" "hello v2" "$(app)"
  "start_$part"
  works "$part was killed"
  untouched "$part was killed"
done

# A release after all that still goes through.
sed 's/mem_limit: 32m/mem_limit: 33m/' "$home/images/v2.yaml" >"$home/images/v3.yaml"
"$flock" releases create --version v3 -f "$home/images/v3.yaml" >/dev/null
"$flock" deploy demo --release v3 --soak 1s
[ "$(container)" != "$first" ] || die "the new release did not replace the container"
ok "a release after every kill completes"
