#!/usr/bin/env bash
# The README's promise: ./dev up performs the main job, a second one is harmless, the commands it names work, and
# ./dev down --wipe leaves nothing.
. "$(dirname "$0")/../check.sh"

before_mounts=$(wc -l </proc/mounts)
before_links=$(ip -o link | wc -l)
"$root/dev" up | tee "$root/build/up-test.log"
grep -q 'hello v1' "$root/build/up-test.log" || die "./dev up did not show hello v1"
grep -q 'hello v2' "$root/build/up-test.log" || die "./dev up did not show hello v2"
expect "the app answers" "hello v3" "$(app)"
grep -q 'could not go back\|taken back, by itself' "$root/build/up-test.log" || die "./dev up did not show a rollback"
bad=$("$flock" rollouts -o json | jq -r '.items[] | select(.release.version == "v4") | .id')
expect "the bad release" "ROLLED_BACK" "$("$flock" rollouts show "$bad" -o json | jq -r .state)"
"$flock" rollouts timeline "$bad" | grep -q 'failed' || die "the timeline does not say why"
"$flock" rollouts why "$bad" local-device | grep -q '^local-device' || die "flock rollouts why says nothing"
ok "the bad release was taken back, and it is said why"

first=$(container)
began=$(date +%s)
"$root/dev" up >/dev/null
[ $(($(date +%s) - began)) -le 30 ] || die "a second ./dev up took over 30 s"
expect "a second ./dev up leaves the container alone" "$first" "$(container)"

expect "flock devices" "ONLINE" "$(device_state)"
expect "flock api" "demo" "$("$flock" api /v1/fleets -o json | jq -r '.items[0].slug')"
expect "three rollouts completed" "3" "$("$flock" rollouts -o json | jq '[.items[] | select(.state == "COMPLETED")] | length')"
"$flock" rollouts watch "$("$flock" rollouts -o json | jq -r '[.items[] | select(.state == "COMPLETED")][0].id')" | grep -q COMPLETED || die "rollouts watch does not end with COMPLETED"
ok "flock rollouts watch"

"$flock" env set LOG_LEVEL=debug --fleet demo
expect "flock env" "fleet" "$("$flock" env ls --device local-device -o json | jq -r '.services[0].variables[] | select(.name == "LOG_LEVEL") | .origin')"
"$flock" audit | grep -q setFleetVariable || die "flock audit does not show the change"
"$flock" audit export | "$flock" audit verify - || die "the audit log is not whole"
ok "flock audit"

# Errors a newcomer will meet.
status=0; "$flock" fleets show nosuch 2>"$home/err" || status=$?
expect "an unknown fleet: exit code" 3 "$status"
grep -q '^Error:' "$home/err" || die "no Error: line"
printf 'services:\n  web:\n    build: .\n' >"$home/bad.yaml"
status=0; "$flock" releases create -f "$home/bad.yaml" 2>"$home/err" || status=$?
[ "$status" != 0 ] && grep -q '/services/web/build' "$home/err" || die "an unsupported compose key is not named: $(cat "$home/err")"
ok "an unsupported compose key is refused by its path"
printf 'services:\n  web:\n    image: 127.0.0.1:%s/flock/nosuch:v9\n' "$(port registry)" >"$home/bad.yaml"
status=0; "$flock" releases create -f "$home/bad.yaml" 2>"$home/err" || status=$?
[ "$status" != 0 ] && grep -q 'nosuch' "$home/err" || die "an unknown image is not named: $(cat "$home/err")"
ok "an unknown image is refused by its name"

"$root/dev" down --wipe
[ ! -e "$home" ] || die "$home is still there"
expect "no mount left" "$before_mounts" "$(wc -l </proc/mounts)"
expect "no network interface left" "$before_links" "$(ip -o link | wc -l)"
! pgrep -f "$home" >/dev/null || die "processes are left: $(pgrep -af "$home")"
ok "no process left"
