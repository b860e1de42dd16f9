#!/usr/bin/env bash
# Runs as root in the `setup` container: makes what is missing of keys, certificates and passwords in the shared volumes.
set -euo pipefail
umask 022
random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

# The other containers run under users of their own, so these files are readable; the volumes are mounted nowhere else.
for file in /secrets/postgres-admin /secrets/postgres /secrets/clickhouse; do
  [ -s "$file" ] || random >"$file"
done
# Target by target, so that volumes made before a target existed get what is new.
[ ! -e /secrets/mqtt ] || cp /secrets/mqtt /secrets/mqtt.new
for user in flock-api flock-ingester flock-scheduler flock-audit flock-events-gateway flock-events; do
  grep -qs "^$user:" /secrets/mqtt.new || echo "$user:$(random)" >>/secrets/mqtt.new
done
cp /secrets/mqtt.new /broker/passwords
mosquitto_passwd -U /broker/passwords
mv /secrets/mqtt.new /secrets/mqtt
chown 10001 /audit

flock-api generate-keys /flock/keys
chown -R 10001 /flock/keys/device-signing.pem /flock/keys/sealing
cp /flock/keys/jwks.json /broker/jwks.json

if [ ! -s /broker/server.pem ]; then
  work=$(mktemp -d)
  openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
  openssl req -x509 -new -key "$work/ca.key" -out /flock/ca.pem -days 3650 -subj "/CN=Flock local CA" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
  openssl ecparam -name prime256v1 -genkey -noout -out /broker/server.key
  openssl req -new -key /broker/server.key -out "$work/server.csr" -subj "/CN=mosquitto"
  printf 'subjectAltName=DNS:mosquitto,DNS:localhost,IP:127.0.0.1\n' >"$work/server.ext"
  openssl x509 -req -in "$work/server.csr" -CA /flock/ca.pem -CAkey "$work/ca.key" -CAcreateserial -days 825 \
    -extfile "$work/server.ext" -out "$work/server.pem"
  mv "$work/server.pem" /broker/server.pem   # last: its presence means that all is there
  rm -rf "$work"
fi
chown mosquitto /broker/passwords /broker/server.key
chmod 600 /broker/passwords /broker/server.key
