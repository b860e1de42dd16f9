#!/usr/bin/env bash
# up [--one-device]: from a bare machine to running rollouts. Everything it writes lies under .flock/ and build/. Running it again is quick
# and harmless: what runs is left alone, what ended is started again.
set -euo pipefail
. "$(dirname "$0")/../flock-local/stack.sh"
need_root up
crowd=60
case "${1:-}" in '') ;; --one-device) crowd=0 ;; *) die "unknown option '$1'" "./dev up [--one-device]" ;; esac
[ "$(. /etc/os-release && echo "${ID:-}${VERSION_ID:-}")" = debian12 ] || say "note: this is made for Debian 12; other systems may lack packages"

began=$(date +%s.%N)
step() { printf '%6.1fs  %s\n' "$(echo "$(date +%s.%N) $began" | awk '{print $1 - $2}')" "$*"; }

"$root/scripts/setup.sh"
step "packages are installed"
mkdir -p "$root/build"
"$root/scripts/build.sh" dev flock-api flockd flock-sim flock flock_auth hello-v1 hello-v2 hello-v3 hello-v4 >"$root/build/up.log" 2>&1 ||
  { tail -30 "$root/build/up.log" >&2; die "the build failed" "./dev build"; }
step "built flock-api, flockd and flock"

mkdir -p "$home/log" "$home/run" "$home/secrets"
chmod 700 "$home/secrets"
make_certificates
[ -s "$home/keys/jwks.json" ] && [ -d "$home/keys/sealing" ] || "$bin/flock-api/flock-api" generate-keys "$home/keys" >/dev/null
for part in postgres mosquitto valkey clickhouse registry oidc api; do
  if alive $part; then step "$part runs already"; else "start_$part"; step "$part started"; fi
done

export FLOCK_CONFIG_HOME=$home/cli
flock=$bin/flock-cli/flock
cat >"$home/env" <<C
# . $home/env   puts flock on the path and points it at the local stack
export PATH=$bin/flock-cli:\$PATH FLOCK_CONFIG_HOME=$home/cli
C

if [ ! -e "$home/setup.done" ]; then
  "$flock" setup --server "$(public_url)" --setup-key-file "$home/secrets/setup-key" --organization "Local" >>"$home/log/cli.log"
  touch "$home/setup.done"
  step "organization made with the one-time setup key"
fi
"$flock" fleets show demo >/dev/null 2>&1 || { "$flock" fleets create demo >>"$home/log/cli.log"; step "fleet demo made"; }
if [ ! -s "$home/secrets/provisioning-key" ]; then
  (umask 077; "$flock" keys create --fleet demo --name local -o json | jq -r .secret >"$home/secrets/provisioning-key")
  step "provisioning key made"
fi
ensure podman
if alive flockd; then
  step "flockd runs already"
else
  start_flockd
  step "flockd started"
fi
are_online() { [ "$("$flock" devices --limit 0 -o json | jq -r '[.items[] | select(.state == "ONLINE")] | length')" -ge "$1" ]; }
wait_for 30 "the device" are_online 1
step "the device is registered and online"

# --- The main job: release v1, roll it out, see it run; then v2 -----------------------------------

host=127.0.0.1:$(port registry)
push() {
  local dir=$home/images/$1
  mkdir -p "$home/images"
  "$root/scripts/make_image.sh" "$bin/examples/hello-$1" "$dir"
  if [ ! -s "$home/secrets/registry-auth.json" ]; then
    (umask 077; printf '{"auths":{"%s":{"auth":"%s"}}}' "$host" "$(printf 'flock:%s' "$("$flock" auth token)" | base64 -w0)" >"$home/secrets/registry-auth.json")
  fi
  skopeo copy --quiet --insecure-policy --authfile "$home/secrets/registry-auth.json" --dest-tls-verify=false \
    "oci:$dir" "docker://$host/flock/hello:$1" >>"$home/log/skopeo.log" 2>&1 || { tail -3 "$home/log/skopeo.log" >&2; die "could not push the image $1"; }
}
app_url=http://127.0.0.1:$(port hello)
answer() { curl -fs -m 2 "$app_url"; }
answers() { [ "$(answer)" = "hello $1" ]; }

is_made() { "$flock" releases show "$1" >/dev/null 2>&1; }   # by an earlier run
make_release() {
  local version=$1
  push "$version"
  step "image flock/hello:$version pushed"
  sed -e "s#registry.example/flock/hello:v1#$host/flock/hello:$version#" -e "s#127.0.0.1:8080:8080#127.0.0.1:$(port hello):8080#" \
    "$root/examples/hello/compose.yaml" >"$home/images/$version.yaml"
  "$flock" releases create --version "$version" -f "$home/images/$version.yaml" >>"$home/log/cli.log"
  step "release $version made: every image locked to its digest"
}
# deploy VERSION [flags]: watched on a screen, or as lines where nobody has one. Its exit code is that of `flock deploy`.
deploy() {
  local version=$1 status=0
  shift
  if [ -t 1 ]; then
    "$flock" deploy demo --release "$version" --soak 1s "$@" || status=$?
  else
    "$flock" deploy demo --release "$version" --soak 1s --color never "$@" | sed 's/^/          /' || status=$?
  fi
  return $status
}

running=v2
for version in v1 v2; do
  is_made $version && continue
  make_release $version
  deploy $version
  wait_for 10 "the app" answers $version
  step "from the running container: $(answer)"
done

# --- Many devices: in stages, judged by what devices prove; and a bad release, which is taken back --

if [ $crowd -gt 0 ]; then
  running=v3
  if alive sim; then step "$crowd simulated devices run already"; else start_sim; fi
  wait_for 60 "the simulated devices" are_online $((crowd + 1))
  all_run() { [ "$("$flock" devices --limit 0 -o json | jq -r "[.items[] | select(.reported.phase == \"CONFIRMED\")] | length")" -ge $((crowd + 1)) ]; }
  wait_for 60 "the simulated devices to run what their fleet runs" all_run
  step "$crowd simulated devices are online beside the real one, and run what their fleet runs"
  if ! is_made v3; then
    make_release v3
    deploy v3 --stages 5%,25% --stage-soak 2s --gate 'confirmed>=95%' --gate 'online>=90%' --on-failure rollback
    wait_for 10 "the app" answers v3
    step "from the running container: $(answer)"
  fi
  if ! is_made v4; then
    make_release v4
    step "v4 is a bad release: it ends at once"
    status=0
    deploy v4 --stages 10%,50% --stage-soak 2s --gate 'failed<=10%@3' --on-failure rollback || status=$?
    [ $status = 9 ] || die "the bad release was not taken back (exit code $status)" "flock rollouts timeline \$(flock rollouts -o name | head -1)"
    wait_for 10 "the app" answers v3
    step "it was taken back, by itself; the app answers: $(answer)"
    "$flock" rollouts failures "$("$flock" rollouts -o name | head -1)" | sed 's/^/          /'
  fi
fi
wait_for 30 "the app" answers $running
step "the app answers: $(answer)"

cat <<T

  Flock runs.
    API          $(public_url)          admin  $(admin_url)/readyz?verbose
    MQTT         mqtts://127.0.0.1:$(port mqtts)           registry  $host
    sign-in      $(oidc_issuer)          any name, any password
    the app      $app_url
    logs         $home/log/            keys  $home/secrets/ (0600)

  Next:
    . .flock/env
    flock devices
    flock rollouts
    flock rollouts timeline \$(flock rollouts -o name | head -1)     what was decided about the last one, and why
    ./dev down           stop it (--wipe removes its data)
T
