#!/usr/bin/env bash
# What a user sees of deployments that go wrong on a real device: it goes back by itself, and the rollout, the device's page
# and the command line say why. Every single fault is in agent_app_itest, Deployments.*.
. "$(dirname "$0")/../check.sh"

"$root/dev" up --one-device >/dev/null
expect "the app answers" "hello v2" "$(app)"
first=$(container)
newest() { "$flock" rollouts -o json | jq -r ".items[0].$1"; }
part() { "$flock" api "/v1/rollouts/$(newest id)/devices" -o json | jq -r ".items[0].$1"; }
# deploys VERSION-OR-FLAGS: to its end, which is bad
ends_badly() {
  local status=0
  "$flock" deploy demo "$@" --soak 3s >"$home/log/deploy.log" 2>&1 || status=$?
  [ "$status" != 0 ] || { cat "$home/log/deploy.log"; die "the deployment ended well: $*"; }
}

# --- A release whose service ends at once
sed 's#restart: always#command: ["check"]\n    restart: always#' "$home/images/v2.yaml" >"$home/images/crash.yaml"
"$flock" releases create --version crash -f "$home/images/crash.yaml" >>"$home/log/cli.log"
ends_badly --release crash
expect "a release that crashes: the device's part" FAILED "$(part state)"
[[ $(part reason) == "exited: hello exited with code 1; this device goes back to v2" ]] || die "no such reason: $(part reason)"
wait_for 20 "the app again" app_says v2
wait_for 20 "the way back on its page" sh -c '"$1" devices show local-device | grep -q "back to .*v2, CONFIRMED"' sh "$flock"
"$flock" rollouts why "$(newest id)" local-device | grep -q "exited: hello exited with code 1" || die "flock rollouts why does not say it"
ok "a release that crashes is taken back, and said why"

# --- A command on the machine, that works
before=$(container)
"$flock" deploy demo --soak 1s --host-command "echo updated >>$home/device/updates && echo all is well" \
  --host-verify "grep -q updated $home/device/updates" >"$home/log/deploy.log" 2>&1 || { cat "$home/log/deploy.log"; die "the host command's rollout failed"; }
expect "a host command: its step" DONE "$(part host_command.step)"
expect "a host command: its exit code" 0 "$(part host_command.exit_code)"
expect "a host command: done once" 1 "$(wc -l <"$home/device/updates")"
expect "a host command: the container is left alone" "$before" "$(container)"
wait_for 30 "its output in the logs" sh -c '"$1" logs local-device --service host-command --since 1h | grep -q "all is well"' sh "$flock"

# --- One that fails, and one that is undone with its rollout
ends_badly --host-command 'echo no such package; exit 100' --host-rollback "echo back >>$home/device/updates"
[[ $(part reason) == "host_command_failed: the host command failed: exit code 100: no such package; its rollback command succeeded"* ]] ||
  die "no such reason: $(part reason)"
expect "a failed host command: the exit code" 100 "$(part host_command.exit_code)"
"$flock" deploy demo --soak 1s --host-command "echo again >>$home/device/updates" --host-rollback "echo undone >>$home/device/updates" >/dev/null 2>&1
"$flock" rollouts rollback "$(newest id)" --yes >/dev/null
wait_for 40 "the rollout went back" sh -c '[ "$("$1" rollouts -o json | jq -r .items[0].state)" = ROLLED_BACK ]' sh "$flock"
expect "what was done to the machine" "updated back again undone" "$(tr '\n' ' ' <"$home/device/updates" | sed 's/ $//')"
expect "the container is left alone" "$before" "$(container)"
