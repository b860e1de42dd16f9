#!/usr/bin/env bash
# People: sign-in in the terminal, an invitation, what a viewer may and may not, another organization; and the audit log of
# it all, which tells of a missing line. Without a broker nothing is changed.
. "$(dirname "$0")/../check.sh"

"$root/dev" up --one-device >/dev/null
owner() { FLOCK_CONFIG_HOME=$home/cli "$flock" "$@"; }
as() { local who=$1; shift; FLOCK_CONFIG_HOME=$home/cli-$who "$flock" "$@"; }
# exits WHAT CODE command...: the command ends with that exit code and says something.
exits() {
  local what=$1 wanted=$2 status=0; shift 2
  "$@" >"$home/out" 2>"$home/err" || status=$?
  expect "$what: exit code" "$wanted" "$status"
}

# `flock login` of a person who has a browser elsewhere.
sign_in() {
  as "$1" login --server "$(public_url)" 2>"$home/login-$1" &
  local login=$!
  code() { grep -oE '\b[A-Z]{4}-[A-Z]{4}\b' "$home/login-$1" | head -1; }
  has_code() { [ -n "$(code "$1")" ]; }
  wait_for 10 "the code of flock login" has_code "$1"
  approve_device "$(code "$1")" "$1" >/dev/null
  wait $login || die "flock login failed: $(cat "$home/login-$1")"
  grep -q "Signed in to $(public_url) as $1@" "$home/login-$1" || die "flock login does not say who: $(cat "$home/login-$1")"
  ok "$1 signed in"
}
sign_in ada
exits "ada is in no organization" 4 as ada fleets
as ada members accept "$(owner members invite ada@example.test --role viewer -o json | jq -r .secret)" >/dev/null
expect "a viewer lists" "demo" "$(as ada fleets -o json | jq -r '.items[0].slug')"
exits "a viewer changes nothing" 4 as ada fleets create mine
grep -q 'fleets:write' "$home/err" || die "the missing permission is not named: $(cat "$home/err")"
expect "whoami" viewer "$(as ada whoami -o json | jq -r .role)"

sign_in bob
as bob orgs create Elsewhere >/dev/null
as bob orgs use elsewhere >/dev/null
expect "bob owns his organization" owner "$(as bob whoami -o json | jq -r .role)"
exits "another organization's fleet is not there" 3 as bob fleets show demo
exits "nor are its devices" 3 as bob devices show local-device
exits "nor can it be named" 3 as bob --org local fleets

owner audit export >"$home/audit.jsonl"
exits "the audit log is whole" 0 owner audit verify "$home/audit.jsonl"
sed 5d "$home/audit.jsonl" >"$home/cut.jsonl"
exits "a line is missing" 1 owner audit verify "$home/cut.jsonl"
expect "its place" "line 5: event seq 5 is missing" "$(cat "$home/out")"

fleets() { owner fleets -o json | jq -c '[.items[].slug]'; }
before=$(fleets)
kill -KILL "$(pid_of mosquitto)"
exits "without a broker nothing is changed" 6 owner fleets create unseen
grep -q '^Try:' "$home/err" || die "no hint: $(cat "$home/err")"
expect "the fleets are as before" "$before" "$(fleets)"
start_mosquitto
made() { owner fleets create seen >/dev/null 2>&1; }
wait_for 30 "changes after the broker is back" made
ok "with the broker back it goes on"
exits "the log is still whole" 0 bash -c "'$flock' audit export | '$flock' audit verify -"
