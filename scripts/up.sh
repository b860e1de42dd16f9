#!/usr/bin/env bash
# up: from a bare machine to a running rollout. Everything it writes lies under .flock/ and build/. Running it again is quick
# and harmless: what runs is left alone, what ended is started again.
set -euo pipefail
. "$(dirname "$0")/../flock-local/stack.sh"
need_root up
[ "$(. /etc/os-release && echo "${ID:-}${VERSION_ID:-}")" = debian12 ] || say "note: this is made for Debian 12; other systems may lack packages"

began=$(date +%s.%N)
step() { printf '%6.1fs  %s\n' "$(echo "$(date +%s.%N) $began" | awk '{print $1 - $2}')" "$*"; }

"$root/scripts/setup.sh"
step "packages are installed"
mkdir -p "$root/build"
"$root/scripts/build.sh" dev flock-api flockd flock-sim flock flock_auth hello-v1 hello-v2 >"$root/build/up.log" 2>&1 ||
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
online() { [ "$("$flock" devices -o json | jq -r '[.items[] | select(.state == "ONLINE")] | length')" -ge 1 ]; }
wait_for 30 "the device" online
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

for version in v1 v2; do
  if "$flock" releases show "$version" >/dev/null 2>&1; then
    continue   # made by an earlier run
  fi
  push $version
  step "image flock/hello:$version pushed"
  sed -e "s#registry.example/flock/hello:v1#$host/flock/hello:$version#" -e "s#127.0.0.1:8080:8080#127.0.0.1:$(port hello):8080#" \
    "$root/examples/hello/compose.yaml" >"$home/images/$version.yaml"
  "$flock" releases create --version "$version" -f "$home/images/$version.yaml" >>"$home/log/cli.log"
  step "release $version made: every image locked to its digest"
  "$flock" deploy demo --release "$version" --soak 1s --color never | sed 's/^/          /'
  wait_for 10 "the app" answers "$version"
  step "from the running container: $(answer)"
  version_shown=$version
done
[ -n "${version_shown:-}" ] || { wait_for 30 "the app" answers v2; step "the app answers: $(answer)"; }

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
    flock rollouts watch \$(flock rollouts -o name | head -1)
    ./dev down           stop it (--wipe removes its data)
T
