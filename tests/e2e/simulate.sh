#!/usr/bin/env bash
# Live data: the real device's figures, logs and events, and a fleet of virtual devices that fills in seconds and takes a release.
. "$(dirname "$0")/../check.sh"

"$root/dev" up --one-device >/dev/null
has_figures() { "$flock" devices top --once -o json | jq -e '[.items[] | select(.device.name == "local-device" or .name == "local-device")] | length > 0' >/dev/null; }
wait_for 30 "the device's figures" has_figures
ok "flock devices top"
has_logs() { [ "$("$flock" logs local-device -n 5 -o json | grep -c .)" -ge 1 ]; }
wait_for 30 "lines of the device's containers" has_logs
ok "flock logs"
"$flock" devices events local-device -o json | grep -q "CONFIRMED" || die "flock devices events does not tell of the update"
ok "flock devices events"
"$flock" devices restart local-device --service hello >/dev/null
ok "flock devices restart"

"$flock" fleets create crowd >/dev/null
"$flock" devices simulate -n 200 --fleet crowd --log-every 2s --telemetry-every 5s 2>"$home/simulate.log" &
simulation=$!
crowd() { "$flock" devices ls --fleet crowd --limit 0 -o json; }
all_online() { [ "$(crowd | jq '[.items[] | select(.state == "ONLINE")] | length')" = 200 ]; }
began=$(date +%s%N)
wait_for 60 "200 virtual devices" all_online
printf 'ok: 200 virtual devices online after %d ms\n' $((($(date +%s%N) - began) / 1000000))

release=$("$flock" releases -o json | jq -r '.items[0].version')
"$flock" deploy crowd --release "$release" --soak 1s >"$home/deploy.log" 2>&1 || { cat "$home/deploy.log" >&2; die "flock deploy"; }
all_confirmed() { [ "$(crowd | jq '[.items[] | select(.reported.phase == "CONFIRMED")] | length')" = 200 ]; }
wait_for 90 "200 confirmed updates" all_confirmed
ok "200 virtual devices confirmed the release"
crowd_logs() { [ "$("$flock" logs --fleet crowd -n 100 -o json | grep -c .)" -ge 50 ]; }
wait_for 30 "lines of the crowd" crowd_logs
ok "flock logs --fleet"

kill -TERM $simulation
wait $simulation || die "flock devices simulate did not end in order: $(cat "$home/simulate.log")"
all_offline() { [ "$(crowd | jq '[.items[] | select(.state == "OFFLINE")] | length')" = 200 ]; }
wait_for 30 "everybody to leave" all_offline
ok "200 goodbyes"
