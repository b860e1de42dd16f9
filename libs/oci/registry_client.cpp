// SPDX-License-Identifier: Apache-2.0
#include "oci/registry_client.h"

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "crypto/keys.h"

namespace flock::oci {
namespace bj = boost::json;
namespace {

constexpr std::string_view kManifestTypes =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

constexpr std::int64_t kMostBlobBytes = std::int64_t{1} << 44;

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

bj::object parse_document(const std::string& body, const Reference& reference) {
  try {
    const bj::value value = json::parse(body, {.bytes = 4 << 20, .depth = 16});
    if (value.is_object()) return value.get_object();
  } catch (const Error&) {
  }
  throw Error(Code::kProtocol, "the registry answered with something that is no manifest")
      .with("image", reference.text());
}

// "" for attestations ("unknown/unknown") and for what names none.
std::string platform_of(const bj::object& object) {
  const std::string os = text_of(object, "os"), architecture = text_of(object, "architecture");
  if (os.empty() || architecture.empty() || os == "unknown") return "";
  std::string platform = os + "/" + architecture;
  const std::string variant = text_of(object, "variant");
  // arm64 has one variant worth the name; the others name it nowhere.
  if (!variant.empty() && !(variant == "v8" && text_of(object, "architecture") == "arm64"))
    platform += "/" + variant;
  return platform;
}

// Digests go into URLs and into releases: nothing else may pass for one.
void require_digest(const std::string& digest, const Reference& reference) {
  if (!is_digest(digest))
    throw Error(Code::kProtocol, "the registry names a digest that is none")
        .with("image", reference.text());
}

// Values of `Bearer realm="...",service="...",scope="..."`.
std::string challenge_value(std::string_view challenge, std::string_view key) {
  const std::string mark = std::string(key) + "=\"";
  const std::size_t start = challenge.find(mark);
  if (start == std::string_view::npos) return "";
  const std::size_t begin = start + mark.size();
  return std::string(challenge.substr(begin, challenge.find('"', begin) - begin));
}

}  // namespace

// What goes wrong on the way is told as the registry's fault; a cancellation stays one.
Task<net::Response> RegistryClient::get(std::string url, net::Headers headers,
                                        std::string registry) {
  try {
    co_return co_await http_.get(std::move(url), std::move(headers));
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    if (error.code() == Code::kTooLarge)
      throw Error(Code::kProtocol, "the registry sent more than a manifest may hold")
          .with("registry", registry);
    throw Error(Code::kUnavailable, "cannot reach the registry: " + error.message())
        .with("registry", registry);
  }
}

Task<std::string> RegistryClient::anonymous_token(std::string challenge, std::string registry) {
  const std::string realm = challenge_value(challenge, "realm");
  if (realm.empty()) co_return "";
  const std::string url = realm + (realm.find('?') == std::string::npos ? "?" : "&") +
                          "service=" + url_encode(challenge_value(challenge, "service")) +
                          "&scope=" + url_encode(challenge_value(challenge, "scope"));
  const net::Response response = co_await get(url, {}, registry);
  if (response.status != 200) co_return "";
  bj::value value;
  try {
    value = json::parse(response.body);
  } catch (const Error&) {
  }
  const bj::object* object = value.if_object();
  if (object == nullptr)
    throw Error(Code::kProtocol,
                "the registry's token service answered with something that is no token")
        .with("registry", registry);
  const std::string token = text_of(*object, "token");
  co_return token.empty() ? text_of(*object, "access_token") : token;
}

Task<RegistryClient::Document> RegistryClient::fetch(const Reference& reference,
                                                     const std::string& path, bool is_manifest) {
  const auto known = options_.urls.find(reference.registry);
  const std::string host =
      reference.registry == "docker.io" ? "registry-1.docker.io" : reference.registry;
  const std::string base = known == options_.urls.end() ? "https://" + host : known->second;
  const std::string url = base + "/v2/" + reference.repository + path;
  std::string token;
  if (options_.token) token = options_.token(reference.registry, reference.repository);
  net::Response response;
  for (int attempt = 0; attempt < 2; ++attempt) {
    net::Headers headers;
    if (is_manifest) headers.add("Accept", std::string(kManifestTypes));
    if (!token.empty()) headers.add("Authorization", "Bearer " + token);
    response = co_await get(url, headers, reference.registry);
    if (response.status != 401 || !token.empty()) break;
    const auto challenge = response.headers.get("WWW-Authenticate");
    if (!challenge) break;
    token = co_await anonymous_token(std::string(*challenge), reference.registry);
    if (token.empty()) break;
  }
  if (response.status == 404)
    throw Error(Code::kNotFound, "no such image in the registry").with("image", reference.text());
  if (response.status == 401 || response.status == 403)
    throw Error(Code::kForbidden, "the registry does not let us read this image")
        .with("image", reference.text());
  if (response.status != 200) {
    throw Error(response.status >= 500 ? Code::kUnavailable : Code::kProtocol,
                "the registry answered with status " + std::to_string(response.status))
        .with("image", reference.text());
  }
  Document document;
  document.digest = "sha256:" + to_hex(crypto::sha256(response.body));
  document.body = std::move(response.body);
  co_return document;
}

Task<RegistryClient::Document> RegistryClient::manifest(Reference reference) {
  const std::string wanted = reference.digest.empty() ? reference.tag : reference.digest;
  Document document = co_await fetch(reference, "/manifests/" + wanted, true);
  if (!reference.digest.empty() && document.digest != reference.digest) {
    throw Error(Code::kProtocol, "the registry sent another manifest than the digest asked for")
        .with("image", reference.text());
  }
  co_return document;
}

Task<std::map<std::string, std::int64_t>> RegistryClient::blob_sizes(Reference reference) {
  const Document document = co_await manifest(reference);
  const bj::object root = parse_document(document.body, reference);
  std::map<std::string, std::int64_t> sizes;
  const auto add = [&](const bj::value& item) {
    const bj::object* blob = item.if_object();
    const bj::value* size = blob ? blob->if_contains("size") : nullptr;
    const std::int64_t* bytes = size ? size->if_int64() : nullptr;
    if (bytes == nullptr || *bytes < 0 || *bytes > kMostBlobBytes)
      throw Error(Code::kProtocol, "the manifest names a blob without a size that can be")
          .with("image", reference.text());
    sizes.emplace(text_of(*blob, "digest"), *bytes);
  };
  if (const bj::value* config = root.if_contains("config")) add(*config);
  if (const bj::value* layers = root.if_contains("layers"); layers && layers->is_array())
    for (const bj::value& layer : layers->get_array()) add(layer);
  co_return sizes;
}

Task<Resolved> RegistryClient::resolve(Reference reference) {
  const Document document = co_await manifest(reference);
  Resolved resolved;
  resolved.digest = document.digest;
  const bj::object root = parse_document(document.body, reference);
  if (const bj::value* manifests = root.if_contains("manifests");
      manifests && manifests->is_array()) {
    for (const bj::value& item : manifests->get_array()) {
      const bj::object* entry = item.if_object();
      const bj::value* platform = entry ? entry->if_contains("platform") : nullptr;
      if (platform == nullptr || !platform->is_object()) continue;
      const std::string name = platform_of(platform->get_object());
      if (name.empty()) continue;
      const std::string digest = text_of(*entry, "digest");
      require_digest(digest, reference);
      resolved.platforms.emplace(name, digest);
    }
  } else {
    const bj::value* config = root.if_contains("config");
    if (config == nullptr || !config->is_object())
      throw Error(Code::kProtocol, "the manifest names no config").with("image", reference.text());
    const std::string digest = text_of(config->get_object(), "digest");
    require_digest(digest, reference);
    const Document blob = co_await fetch(reference, "/blobs/" + digest, false);
    if (blob.digest != digest)
      throw Error(Code::kProtocol, "the registry sent another config than the digest asked for")
          .with("image", reference.text());
    if (const std::string name = platform_of(parse_document(blob.body, reference)); !name.empty())
      resolved.platforms.emplace(name, resolved.digest);
  }
  if (resolved.platforms.empty())
    throw Error(Code::kUnprocessable, "the image has no platform that a device could run")
        .with("image", reference.text());
  co_return resolved;
}

}  // namespace flock::oci
