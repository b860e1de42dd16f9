# The parts of the local stack: each a private instance on loopback with its data under .flock/. Sourced by scripts/.
# shellcheck shell=bash disable=SC2154
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

parts="postgres mosquitto valkey clickhouse registry oidc api podman flockd sim"   # start order

secret() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

# secret_file PATH: a random secret, made once.
secret_file() {
  [ -s "$1" ] || (umask 077; secret >"$1")
}

# data NAME USER: a folder that USER owns and can reach; under .flock/, or under /tmp where a checkout lies in a closed home.
data() {
  local dir=$home/$1
  if [ ! -e "$dir" ]; then
    mkdir -p "$home"
    if setpriv --reuid="$2" --clear-groups test -x "$home" 2>/dev/null; then
      mkdir "$dir"
    else
      ln -s "$(mktemp -d "/tmp/flock-local-$1.XXXXXX")" "$dir"
    fi
    chown "$2" "$dir/"
    chmod 700 "$dir/"
  fi
  readlink -f "$dir"
}

as() { local user=$1; shift; echo setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@"; }

# --- Certificates and keys ------------------------------------------------------------------------

make_certificates() {
  local dir=$home/tls
  [ ! -s "$dir/server.pem" ] || return 0
  mkdir -p "$dir"
  (
    umask 077
    cd "$dir"
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -out ca.pem -days 3650 -subj "/CN=Flock local CA" \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl ecparam -name prime256v1 -genkey -noout -out server.key
    openssl req -new -key server.key -out server.csr -subj "/CN=localhost"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile server.ext -out server.pem
  ) 2>>"$home/log/openssl.log"
  chmod 644 "$dir/ca.pem"
}

# --- Parts: start_X is harmless when X runs; ready_X answers whether it does its work --------------

start_postgres() {
  local dir pgbin=/usr/lib/postgresql/15/bin
  dir=$(data postgres postgres)
  if [ ! -s "$dir/data/PG_VERSION" ]; then
    $(as postgres "$pgbin/initdb") -D "$dir/data" -U postgres --auth-local=trust --auth-host=scram-sha-256 \
      -E UTF8 --locale=C.UTF-8 --no-sync >>"$home/log/postgres.log" 2>&1 || die "initdb failed" "look into $home/log/postgres.log"
  fi
  # After a kill -9 the lock names a process that may linger as a zombie until it is reaped; its children need a moment to go.
  if [ -s "$dir/data/postmaster.pid" ]; then
    local old
    old=$(head -1 "$dir/data/postmaster.pid")
    for _ in $(seq 100); do [ -n "$(pgrep -P "$old" 2>/dev/null)" ] || break; sleep 0.05; done
    case "$(awk '{print $3}' "/proc/$old/stat" 2>/dev/null)" in ""|Z) rm -f "$dir/data/postmaster.pid" "$dir"/.s.PGSQL.* ;; esac
  fi
  # The folder is 0700, so "trust" on the socket means: the owner and root.
  start postgres $(as postgres "$pgbin/postgres") -D "$dir/data" -p "$(port postgres)" -k "$dir" \
    -c listen_addresses=127.0.0.1 -c shared_buffers=64MB -c max_connections=60
  wait_for 30 PostgreSQL ready_postgres
  if [ ! -e "$home/postgres.created" ]; then
    secret_file "$home/secrets/postgres"
    sql postgres <<S
CREATE ROLE flock LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '$(cat "$home/secrets/postgres")';
CREATE DATABASE flock OWNER flock;
S
    touch "$home/postgres.created"
  fi
}
ready_postgres() { [ "$(sql postgres -At <<<'select 1')" = 1 ]; }
sql() { psql -qAtX -v ON_ERROR_STOP=1 -h "$(readlink -f "$home/postgres")" -p "$(port postgres)" -U postgres "$1"; }

start_mosquitto() {
  local dir user
  dir=$(data mosquitto mosquitto)
  secret_file "$home/secrets/mqtt"
  # Target by target, so that a stack made before a target existed gets what is new.
  for user in flock-api flock-ingester flock-scheduler flock-audit flock-events-gateway flock-events; do
    grep -qs "^$user:" "$home/secrets/mqtt.passwords" || (umask 077; echo "$user:$(secret)" >>"$home/secrets/mqtt.passwords")
  done
  (
    umask 077
    cp "$home/secrets/mqtt.passwords" "$dir/passwords"
    mosquitto_passwd -U "$dir/passwords"
  )
  cp "$root/flock-local/broker-plugin/acl" "$dir/acl"
  cp "$bin/flock-local/broker-plugin/flock_auth.so" "$home/keys/jwks.json" "$home/tls/server.pem" "$home/tls/server.key" "$dir/"
  cat >"$dir/mosquitto.conf" <<C
per_listener_settings false
allow_anonymous false
user mosquitto
persistence true
persistence_location $dir/
autosave_interval 5
max_queued_messages 100000
max_inflight_messages 256
max_packet_size 1048576
log_dest stderr
log_type error
log_type warning
log_type notice
password_file $dir/passwords
acl_file $dir/acl
plugin $dir/flock_auth.so
plugin_opt_jwks_file $dir/jwks.json
plugin_opt_issuer $(public_url)
listener $(port mqtts) 127.0.0.1
certfile $dir/server.pem
keyfile $dir/server.key
tls_version tlsv1.2
C
  chown -R mosquitto "$dir/"
  start mosquitto mosquitto -c "$dir/mosquitto.conf"
  wait_for 15 Mosquitto ready_mosquitto
}
ready_mosquitto() { port_open "$(port mqtts)"; }

start_valkey() {
  local dir user=redis server
  server=$(command -v valkey-server || command -v redis-server)
  id -u valkey >/dev/null 2>&1 && user=valkey
  dir=$(data valkey $user)
  secret_file "$home/secrets/valkey"
  (
    umask 077
    printf 'bind 127.0.0.1\nport %s\ndir %s\nappendonly yes\nsave ""\ndaemonize no\nrequirepass %s\n' \
      "$(port valkey)" "$dir" "$(cat "$home/secrets/valkey")" >"$dir/server.conf"
  )
  chown -R $user "$dir/"
  start valkey $(as $user "$server") "$dir/server.conf"
  wait_for 15 Valkey ready_valkey
}
ready_valkey() { port_open "$(port valkey)"; }

start_clickhouse() {
  local dir
  dir=$(data clickhouse clickhouse)
  secret_file "$home/secrets/clickhouse"
  cat >"$dir/config.xml" <<C
<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <http_port>$(port clickhouse)</http_port>
  <tcp_port>$(port clickhouse_native)</tcp_port>
  <listen_host>127.0.0.1</listen_host>
  <path>$dir/data/</path>
  <tmp_path>$dir/tmp/</tmp_path>
  <user_files_path>$dir/files/</user_files_path>
  <format_schema_path>$dir/schemas/</format_schema_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
</yandex>
C
  (
    umask 077
    cat >"$dir/users.xml" <<C
<yandex>
  <profiles><default><max_memory_usage>2000000000</max_memory_usage></default></profiles>
  <quotas><default/></quotas>
  <users>
    <flock>
      <password_sha256_hex>$(printf %s "$(cat "$home/secrets/clickhouse")" | sha256sum | cut -d' ' -f1)</password_sha256_hex>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </flock>
  </users>
</yandex>
C
  )
  chown -R clickhouse "$dir/"
  start clickhouse $(as clickhouse clickhouse-server) --config-file="$dir/config.xml"
  wait_for 30 ClickHouse ready_clickhouse
}
ready_clickhouse() { [ "$(curl -fs -m 5 "http://127.0.0.1:$(port clickhouse)/ping")" = Ok. ]; }

start_registry() {
  local dir
  dir=$(data registry docker-registry)
  cp "$home/keys/registry-signing.crt" "$dir/"
  cat >"$dir/config.yml" <<C
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $dir/store}, delete: {enabled: true}}
http: {addr: 127.0.0.1:$(port registry)}
auth:
  token:
    realm: $(public_url)/v1/registry/token
    service: flock-registry
    issuer: flock
    rootcertbundle: $dir/registry-signing.crt
C
  chown -R docker-registry "$dir/"
  start registry $(as docker-registry docker-registry) serve "$dir/config.yml"
  wait_for 15 "the registry" ready_registry
}
ready_registry() { port_open "$(port registry)"; }

# The OpenID provider for development: any name with any password, on loopback only.
start_oidc() {
  start oidc node "$root/flock-local/oidc/server.mjs" --port "$(port oidc)" --issuer "$(oidc_issuer)" \
    --audience "$oidc_audience" --keys "$home/oidc"
  wait_for 30 "the OpenID provider" ready_oidc
}
ready_oidc() { alive oidc && curl -fs -m 5 -o /dev/null "$(oidc_issuer)/.well-known/openid-configuration"; }
oidc_issuer() { echo "http://127.0.0.1:$(port oidc)"; }
oidc_audience=https://api.flock.local
# approve_device USER_CODE USER: what a person does in the browser during `flock login`.
approve_device() { node "$root/flock-local/oidc/approve.mjs" "$(oidc_issuer)" "$1" "$2"; }

public_url() { echo "http://127.0.0.1:$(port api)"; }
admin_url() { echo "http://127.0.0.1:$(port admin)"; }

# The configuration of flock-api, for all targets.
configure_api() {
  cat >"$home/flock-api.yaml" <<C
target: all
public_url: $(public_url)
setup_key_file: $home/secrets/setup-key
admin:
  listen: 127.0.0.1:$(port admin)
api:
  listen: 127.0.0.1:$(port api)
postgres:
  url: postgresql://flock@127.0.0.1:$(port postgres)/flock
  password_file: $home/secrets/postgres
live_state:
  kind: valkey
  address: 127.0.0.1:$(port valkey)
  password_file: $home/secrets/valkey
clickhouse:
  url: http://127.0.0.1:$(port clickhouse)
  username: flock
  password_file: $home/secrets/clickhouse
mqtt:
  url: mqtts://127.0.0.1:$(port mqtts)
  device_urls: ["mqtts://127.0.0.1:$(port mqtts)"]
  ca_file: $home/tls/ca.pem
  password_file: $home/secrets/mqtt.passwords
registry:
  url: http://127.0.0.1:$(port registry)
  hosts: ["127.0.0.1:$(port registry)"]
  service: flock-registry
oidc:
  issuer: $(oidc_issuer)
  audience: ["$oidc_audience"]
  client_id: flock-cli
keys:
  directory: $home/keys
audit:
  kind: file
  directory: $home/audit
  spool_directory: $home/audit-spool
ingester:
  spool_directory: $home/ingester
events_gateway:
  quarantine_directory: $home/events-gateway
C
}
start_api() {
  configure_api
  start api "$bin/flock-api/flock-api" --config "$home/flock-api.yaml"
  until ready_api; do
    alive api || { tail -5 "$home/log/api.log" >&2; die "flock-api ended while starting"; }
    sleep 0.1
  done
}
ready_api() { curl -fs -o /dev/null "$(admin_url)/readyz"; }

# One isolated device: its own container store, configuration and socket.
start_podman() {
  local dir=$home/device
  mkdir -p "$dir/net"
  cat >"$dir/containers.conf" <<C
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "$dir/tmp"
static_dir = "$dir/store/libpod"
volume_path = "$dir/store/volumes"
[network]
network_backend = "netavark"
network_config_dir = "$dir/net"
C
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$dir" "$dir" >"$dir/storage.conf"
  rm -f "$dir/podman.sock"
  # Whoever makes the first named network namespace of a machine makes this folder a mount; ./dev down --wipe takes ours away.
  mountpoint -q /run/netns || touch "$home/netns.ours"
  start podman env CONTAINERS_CONF="$dir/containers.conf" CONTAINERS_STORAGE_CONF="$dir/storage.conf" \
    podman system service --time=0 "unix://$dir/podman.sock"
  wait_for 20 Podman ready_podman
}
ready_podman() { curl -fs -o /dev/null --unix-socket "$home/device/podman.sock" http://podman/_ping; }
device_podman() {
  CONTAINERS_CONF="$home/device/containers.conf" CONTAINERS_STORAGE_CONF="$home/device/storage.conf" podman "$@"
}

start_flockd() {
  mkdir -p "$home/device/flockd"
  cat >"$home/device/flockd.yaml" <<C
server: $(public_url)
provisioning_key_file: $home/secrets/provisioning-key
data_dir: $home/device/flockd
name: local-device
podman:
  socket: $home/device/podman.sock
registry:
  insecure_hosts: ["127.0.0.1:$(port registry)"]
C
  start flockd "$bin/flock-agent/flockd" --config "$home/device/flockd.yaml"
}
ready_flockd() { alive flockd; }

# Sixty virtual devices beside the real one; the release `v4` is a bad one for them as it is for the real one.
start_sim() {
  start sim env FLOCK_CONFIG_HOME="$home/cli" "$bin/flock-cli/flock" devices simulate -n 60 --fleet demo --name-prefix sim --seed 7 --fail-release v4
}
ready_sim() { alive sim; }

ensure() { alive "$1" || "start_$1"; }
