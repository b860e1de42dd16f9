#!/usr/bin/env bash
# down [--wipe]: stops what ./dev up started, the containers of its device included. --wipe removes every trace.
set -euo pipefail
. "$(dirname "$0")/../flock-local/stack.sh"
wipe=${1:-}
[ -z "$wipe" ] || [ "$wipe" = --wipe ] || die "unknown option '$wipe'" "./dev down [--wipe]"
[ -e "$home" ] || { say "down: nothing runs"; exit 0; }
need_root down

stop sim
stop flockd
if [ -e "$home/device/containers.conf" ]; then
  # Through podman itself, so that its networks, mounts and firewall rules go with the containers.
  device_podman rm --all --force --time 3 >/dev/null 2>&1 || true
  [ "$wipe" != --wipe ] || { device_podman network prune --force; device_podman volume prune --force; device_podman image prune --all --force; } >/dev/null 2>&1 || true
fi
for part in podman api oidc registry clickhouse valkey mosquitto postgres; do
  if [ $part = postgres ]; then stop postgres INT; else stop $part; fi
done
say "down: stopped"
[ "$wipe" = --wipe ] || exit 0

# Mounts below the store, deepest first.
awk -v dir="$home/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do umount "$mount" || true; done
if [ -e "$home/netns.ours" ] && mountpoint -q /run/netns && [ -z "$(ls /run/netns)" ]; then umount /run/netns || true; fi
find "$home" -maxdepth 1 -type l -exec sh -c 'rm -rf -- "$(readlink -f "$1")"' _ {} \;
rm -rf "$home"
find /sys/fs/cgroup -maxdepth 2 -type d -name libpod_parent -exec rmdir {} + 2>/dev/null || true
say "down: removed $home"
