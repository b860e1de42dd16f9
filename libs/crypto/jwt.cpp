// SPDX-License-Identifier: Apache-2.0
#include "crypto/jwt.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"

namespace flock::crypto {
namespace bj = boost::json;
namespace {

constexpr std::size_t kTokenLimit = 16 * 1024;
constexpr Duration kMaxLeeway{30'000};

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(Code::kUnauthenticated, "token refused: " + reason);
}

struct Parts {
  bj::object header, claims;
  std::string_view signed_text;
  std::string signature;
};

bj::object decode_object(std::string_view part) {
  const auto bytes = from_base64url(part);
  if (!bytes) refuse("malformed");
  try {
    bj::value value = json::parse(*bytes, {.bytes = kTokenLimit, .depth = 8});
    if (!value.is_object()) refuse("malformed");
    return std::move(value.get_object());
  } catch (const Error& error) {
    if (error.code() == Code::kUnauthenticated) throw;
  }
  refuse("malformed");
}

Parts split(std::string_view token) {
  if (token.size() > kTokenLimit) refuse("too long");
  const std::size_t first = token.find('.');
  const std::size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos) refuse("malformed");
  Parts parts;
  parts.header = decode_object(token.substr(0, first));
  parts.claims = decode_object(token.substr(first + 1, second - first - 1));
  parts.signed_text = token.substr(0, second);
  auto signature = from_base64url(token.substr(second + 1));
  if (!signature) refuse("malformed");
  parts.signature = std::move(*signature);
  return parts;
}

std::string text_member(const bj::object& object, std::string_view name) {
  const bj::value* value = object.if_contains(name);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

std::optional<TimePoint> time_member(const bj::object& claims, std::string_view name) {
  const bj::value* value = claims.if_contains(name);
  if (value == nullptr) return std::nullopt;
  double seconds = 0;
  if (value->is_int64()) {
    seconds = static_cast<double>(value->get_int64());
  } else if (value->is_double()) {
    seconds = value->get_double();
  } else {
    refuse(std::string(name) + " is not a number");
  }
  // Beyond any sensible date: keeps the arithmetic below from overflowing.
  if (!(seconds > -1e11 && seconds < 1e11)) refuse(std::string(name) + " is out of range");
  return from_unix_ms(static_cast<std::int64_t>(seconds * 1000));
}

bool has_audience(const bj::object& claims, std::string_view wanted) {
  const bj::value* value = claims.if_contains("aud");
  if (value == nullptr) return false;
  if (value->is_string()) return value->get_string() == wanted;
  if (!value->is_array()) return false;
  for (const bj::value& item : value->get_array()) {
    if (item.is_string() && item.get_string() == wanted) return true;
  }
  return false;
}

void check_claims(const bj::object& claims, const Expected& expected, TimePoint now) {
  const Duration leeway = std::clamp(expected.leeway, Duration(0), kMaxLeeway);
  const auto expires = time_member(claims, "exp");
  if (!expires) refuse("no expiry");
  if (now >= *expires + leeway) refuse("expired");
  const auto not_before = time_member(claims, "nbf");
  if (not_before && now + leeway < *not_before) refuse("not valid yet");
  const auto issued = time_member(claims, "iat");
  if (issued && now + leeway < *issued) refuse("issued in the future");
  if (expected.max_age != Duration::max()) {
    if (!issued || now - *issued > expected.max_age + leeway) refuse("too old");
  }
  if (!expected.issuer.empty() && text_member(claims, "iss") != expected.issuer)
    refuse("wrong issuer");
  if (!expected.audience.empty() && !has_audience(claims, expected.audience))
    refuse("wrong audience");
}

// The key decides the algorithm; a header that names another is refused (RFC 8725, 3.1).
bj::object verify_with(Parts parts, const Key& key, const Expected& expected, TimePoint now) {
  if (text_member(parts.header, "alg") != key.algorithm()) refuse("wrong algorithm");
  if (parts.header.contains("crit")) refuse("unknown critical header");
  if (!key.verify(parts.signed_text, parts.signature)) refuse("bad signature");
  check_claims(parts.claims, expected, now);
  return std::move(parts.claims);
}

// RFC 7517, 5: types and curves that are not understood are ignored, and so is what is not for
// verifying signatures (4.2, 4.3) or is for an algorithm that we do not use with it (4.4).
bool verifies_for_us(const bj::object& jwk) {
  const std::string kind = text_member(jwk, "kty"), curve = text_member(jwk, "crv");
  std::string_view algorithm;
  if (kind == "EC" && curve == "P-256") algorithm = "ES256";
  if (kind == "OKP" && curve == "Ed25519") algorithm = "EdDSA";
  // A size that we do not take is a value out of range (RFC 7517, 5), not a damaged set.
  if (kind == "RSA" && from_base64url(text_member(jwk, "n")).value_or("").size() >= 256)
    algorithm = "RS256";
  if (algorithm.empty()) return false;
  if (jwk.contains("use") && text_member(jwk, "use") != "sig") return false;
  // "Ed25519" is the name of RFC 9864 for the same thing.
  const std::string named = text_member(jwk, "alg");
  if (jwk.contains("alg") && named != algorithm && !(algorithm == "EdDSA" && named == "Ed25519"))
    return false;
  const bj::value* operations = jwk.if_contains("key_ops");
  if (operations == nullptr) return true;
  if (!operations->is_array()) return false;
  return std::ranges::any_of(operations->get_array(), [](const bj::value& operation) {
    return operation.is_string() && operation.get_string() == "verify";
  });
}

}  // namespace

std::string sign_jwt(const Key& key, const bj::object& claims, std::string_view kid) {
  bj::object header;
  header["alg"] = key.algorithm();
  header["typ"] = "JWT";
  header["kid"] = kid.empty() ? key.thumbprint() : std::string(kid);
  std::string text =
      to_base64url(bj::serialize(header)) + "." + to_base64url(bj::serialize(claims));
  return text + "." + to_base64url(key.sign(text));
}

bj::object verify_jwt(std::string_view token, const JwkSet& keys, const Expected& expected,
                      TimePoint now) {
  Parts parts = split(token);
  const Key* key = keys.find(text_member(parts.header, "kid"));
  if (key == nullptr) refuse("unknown key");
  return verify_with(std::move(parts), *key, expected, now);
}

bj::object verify_jwt(std::string_view token, const Key& key, const Expected& expected,
                      TimePoint now) {
  return verify_with(split(token), key, expected, now);
}

bj::object peek_claims(std::string_view token) { return split(token).claims; }

std::string peek_kid(std::string_view token) { return text_member(split(token).header, "kid"); }

JwkSet JwkSet::parse(std::string_view text) {
  JwkSet set;
  std::vector<std::string> doubled;
  const bj::value document = json::parse(text, {.bytes = 256 * 1024, .depth = 8});
  const bj::value* keys =
      document.is_object() ? document.get_object().if_contains("keys") : nullptr;
  if (keys == nullptr || !keys->is_array()) {
    throw Error(Code::kInvalidArgument, "not a JWK set: no `keys` array");
  }
  for (const bj::value& item : keys->get_array()) {
    if (!item.is_object()) throw Error(Code::kInvalidArgument, "not a JWK set: a key is no object");
    const bj::object& jwk = item.get_object();
    if (!verifies_for_us(jwk)) continue;
    const Key key = Key::from_jwk(bj::serialize(item));
    const std::string given = text_member(jwk, "kid");
    const std::string kid = given.empty() ? key.thumbprint() : given;
    // RFC 7517, 4.5 lets keys of different types share an id. Which of them a token means would be
    // the token's choice, so neither is used.
    const Key* const other = set.find(kid);
    if (other != nullptr && other->thumbprint() == key.thumbprint()) continue;
    if (other != nullptr) doubled.push_back(kid);
    set.keys_.emplace_back(kid, key);
  }
  for (const std::string& kid : doubled)
    std::erase_if(set.keys_, [&](const auto& entry) { return entry.first == kid; });
  return set;
}

void JwkSet::add(const Key& key) { keys_.emplace_back(key.thumbprint(), key); }

const Key* JwkSet::find(std::string_view kid) const {
  for (const auto& [id, key] : keys_) {
    if (id == kid) return &key;
  }
  return nullptr;
}

std::string JwkSet::to_json() const {
  bj::array keys;
  for (const auto& [id, key] : keys_) {
    bj::object jwk = json::parse(key.public_jwk()).as_object();
    jwk["kid"] = id;
    keys.push_back(std::move(jwk));
  }
  return bj::serialize(bj::object{{"keys", std::move(keys)}});
}

}  // namespace flock::crypto
