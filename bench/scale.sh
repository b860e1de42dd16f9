#!/usr/bin/env bash
# 100,000 devices on a stack of its own with one process for each target, as in production: TLS, the broker's plugin, tokens. As many
# devices as the machine allows have a connection (the broker may open as many files as `ulimit -Hn` says), the others are replayed.
# FLOCK_BENCH_DEVICES=N, FLOCK_BENCH_CONNECTIONS=N and FLOCK_BENCH_SECONDS=N (of one phase) for other numbers.
set -euo pipefail
devices=${FLOCK_BENCH_DEVICES:-100000} connections=${FLOCK_BENCH_CONNECTIONS:-} seconds=${FLOCK_BENCH_SECONDS:-10}
unset FLOCK_BENCH_DEVICES FLOCK_BENCH_CONNECTIONS FLOCK_BENCH_SECONDS   # flock-api does not start with a FLOCK_ variable that it does not know
export FLOCK_HOME=${FLOCK_HOME:-$(cd "$(dirname "$0")/.." && pwd)/build/stack-scale}
. "$(dirname "$0")/../flock-local/stack.sh"
need_root bench
bin=${1:-$root/build/release}
ulimit -Sn "$(ulimit -Hn)"
files=$(ulimit -n)
[ "$files" != unlimited ] || files=1000000
# What the broker opens besides; and flock-sim's memory ends somewhere, too.
most=$((files - 200))
[ $most -le 50000 ] || most=50000
[ $most -le $((devices / 2)) ] || most=$((devices / 2))
connections=${connections:-$most}
targets="ingester scheduler audit"
down() {
  for part in $targets; do stop $part; done
  stop clickhouse TERM 60   # it may be merging
  FLOCK_HOME=$home "$root/dev" down --wipe >/dev/null
}
[ ! -e "$home" ] || down
trap down EXIT

mkdir -p "$home/log" "$home/run" "$home/secrets" "$home/cli"
chmod 700 "$home/secrets"
make_certificates
"$bin/flock-api/flock-api" generate-keys "$home/keys" >/dev/null
start_postgres
# The client that replays may publish for every device.
(umask 077; secret >"$home/secrets/bench"; echo "flock-bench:$(cat "$home/secrets/bench")" >"$home/secrets/mqtt.passwords")
start_mosquitto
stop mosquitto
printf 'user flock-bench\ntopic write devices/#\n' >>"$(data mosquitto mosquitto)/acl"
start mosquitto mosquitto -c "$(data mosquitto mosquitto)/mosquitto.conf"
wait_for 15 Mosquitto ready_mosquitto
start_valkey
start_clickhouse
configure_api
ready_target() { curl -fs -o /dev/null "http://127.0.0.1:$(port "admin_$1")/readyz"; }
for target in api $targets; do
  start $target "$bin/flock-api/flock-api" --config "$home/flock-api.yaml" --target=$target --admin.listen="127.0.0.1:$(port admin_$target)" \
    --api.rate-limit=0
  wait_for 30 "the target $target" ready_target $target
done

export FLOCK_CONFIG_HOME=$home/cli
flock=$bin/flock-cli/flock
"$flock" setup --server "$(public_url)" --setup-key-file "$home/secrets/setup-key" --organization Bench >>"$home/log/cli.log" 2>&1
"$flock" fleets create crowd >>"$home/log/cli.log" 2>&1
(umask 077; "$flock" keys create --fleet crowd --name bench -o json | jq -r .secret >"$home/secrets/provisioning-key"
  "$flock" auth token >"$home/secrets/token")

watched=
for part in mosquitto api $targets postgres valkey clickhouse; do watched+=,$part:$(pid_of $part); done
say "$(nproc) cores, $(awk '/MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo) GiB, $files open files a process, load average $(cut -d" " -f1 /proc/loadavg) before"
"$bin/bench/bench_scale" --devices="$devices" --connections="$connections" --seconds="$seconds" --directory="$home/log" \
  --api-url="$(public_url)" --token-file="$home/secrets/token" --ingester-metrics-url="http://127.0.0.1:$(port admin_ingester)/metrics" \
  --mqtt-url="mqtts://127.0.0.1:$(port mqtts)" --mqtt-ca-file="$home/tls/ca.pem" --mqtt-password-file="$home/secrets/bench" \
  --postgres-url="postgresql://flock@127.0.0.1:$(port postgres)/flock" --postgres-password-file="$home/secrets/postgres" \
  --live-address="127.0.0.1:$(port valkey)" --live-password-file="$home/secrets/valkey" \
  --clickhouse-url="http://127.0.0.1:$(port clickhouse)" --clickhouse-password-file="$home/secrets/clickhouse" \
  --sim-program="$bin/flock-cli/flock-sim" --provisioning-key-file="$home/secrets/provisioning-key" --processes="${watched#,}"
