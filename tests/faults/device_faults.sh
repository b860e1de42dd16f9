#!/usr/bin/env bash
# What a device meets in its life: a start without any network, a stop, damaged files, a registry that is away, a full disk.
# Each has a stated reason, keeps what runs, and heals without a hand.
. "$(dirname "$0")/../check.sh"

"$root/dev" up --one-device >/dev/null
expect "the app answers" "hello v2" "$(app)"
reported() { "$flock" devices -o json | jq -r ".items[0].reported.$1"; }
reported_is() { [ "$(reported "$1")" = "$2" ]; }
deploy() { "$flock" deploy demo --release "$1" --soak 0s --no-wait >/dev/null; }
desired_version() { "$flock" devices -o json | jq -r '.items[0].desired.version'; }

# --- A stop leaves the containers; a start without backend and broker brings back even those that ended
first=$(container)
stop flockd
wait_for 20 "the goodbye" device_is OFFLINE
expect "a stopped agent leaves the container" "$first" "$(container)"
stop api; stop mosquitto
device_podman kill "$first" >/dev/null
start_flockd
wait_for 20 "the app without any network" app_says v2
expect "the same container, started again" "$first" "$(container)"
start_mosquitto; start_api
wait_for 60 "the device" device_is ONLINE
wait_for 60 "the proof" phase_is CONFIRMED

# --- Damaged files: moved aside, the container untouched, the wish fetched again
stop flockd
for file in desired current identity.json; do
  truncate -s 40 "$home/device/flockd/$file"
done
key=$(sha256sum <"$home/device/flockd/device.key")
start_flockd
wait_for 60 "the device with damaged files" device_is ONLINE
wait_for 60 "its proof" phase_is CONFIRMED
expect "damaged files: same container" "$first" "$(container)"
expect "damaged files: same key" "$key" "$(sha256sum <"$home/device/flockd/device.key")"
expect "damaged files: still one device" 1 "$("$flock" devices -o json | jq '.items | length')"
for file in desired current identity.json; do
  [ -e "$home/device/flockd/$file.corrupt" ] || die "$file was not moved aside"
  [ "$(stat -c %s "$home/device/flockd/$file")" -gt 40 ] || die "$file was not made anew"
done
ok "damaged files are moved aside and made anew"

# --- The registry is away: the old release goes on and the next one comes when it can
stop registry
deploy v1
wait_for 30 "a failed download" sh -c '"$1" devices -o json | jq -e ".items[0].reported.services[0].message | test(\"connection refused\")"' sh "$flock"
expect "no registry: still downloading" DOWNLOADING "$(reported phase)"
expect "no registry: the old release runs" "hello v2" "$(app)"
device_podman kill "$(container)" >/dev/null
wait_for 20 "the crashed old release" app_says v2
start_registry
wait_for 90 "the next release" app_says v1
wait_for 30 "its proof" phase_is CONFIRMED

# --- The disk is full: a new wish cannot be stored
stop flockd
small=$home/device/small
mkdir -p "$small"
mount -t tmpfs -o size=128k tmpfs "$small"
cp -a "$home/device/flockd/." "$small/"
sed -i "s#^data_dir: .*#data_dir: $small#" "$home/device/flockd.yaml"
start "flockd" "$bin/flock-agent/flockd" --config "$home/device/flockd.yaml"
wait_for 60 "the device on a small disk" device_is ONLINE
cat /dev/zero >"$small/filler" 2>/dev/null || true
before=$(container)
deploy v2
wait_for 60 "a report of the full disk" reported_is error_code no_space
expect "disk full: the phase" FAILED "$(reported phase)"
expect "disk full: the reported version" "$(desired_version)" "$(reported desired_version)"
expect "disk full: what runs is kept" "$before" "$(container)"
rm "$small/filler"
wait_for 60 "the release once there is space" app_says v2
wait_for 30 "its proof" phase_is CONFIRMED
stop flockd
umount "$small"
ok "a full disk heals by itself"
