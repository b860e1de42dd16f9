#!/usr/bin/env bash
# make_image PROGRAM DIR: an OCI image layout in DIR whose one layer holds PROGRAM as /hello. Needs no engine and no privileges
# (OCI image-spec 1.0: image-layout.md, manifest.md, config.md).
set -euo pipefail
program=$1 out=$2
rm -rf "$out"
mkdir -p "$out/blobs/sha256" "$out/rootfs"
install -m 755 "$program" "$out/rootfs/hello"

add_blob() {   # FILE -> its digest, moved into the layout
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$out/blobs/sha256/$digest"
  echo "$digest"
}
# Fixed times and owners: the same program makes the same digest.
tar --create --file="$out/layer" --directory="$out/rootfs" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner hello
size=$(stat -c %s "$out/layer")
layer=$(add_blob "$out/layer")
printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/hello"],"ExposedPorts":{"8080/tcp":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$layer" >"$out/config"
config_size=$(stat -c %s "$out/config")
config=$(add_blob "$out/config")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
  "$config" "$config_size" "$layer" "$size" >"$out/manifest"
manifest_size=$(stat -c %s "$out/manifest")
manifest=$(add_blob "$out/manifest")
printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}]}' "$manifest" "$manifest_size" >"$out/index.json"
rm -rf "$out/rootfs"
