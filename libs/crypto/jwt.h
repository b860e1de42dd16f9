// SPDX-License-Identifier: Apache-2.0
// JSON Web Tokens (RFC 7519) signed with ES256, EdDSA or RS256; verification is strict and the key
// decides the algorithm.
#pragma once

#include <boost/json/fwd.hpp>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "crypto/keys.h"

namespace flock::crypto {

// Signs `claims` as they are; the header gets alg, typ and `kid` (default: the key's thumbprint).
std::string sign_jwt(const Key& key, const boost::json::object& claims, std::string_view kid = "");

struct Expected {
  std::string issuer;                  // "" = any
  std::string audience;                // must equal `aud` or be in its array; "" = any
  Duration leeway = Duration(30'000);  // for exp, nbf and iat; never more than 30 s
  Duration max_age = Duration::max();  // now - iat
};
// Returns the claims. Every failure is Error{kUnauthenticated} with a message that names the reason
// ("expired", "unknown key", "bad signature"), never the token.
boost::json::object verify_jwt(std::string_view token, const class JwkSet& keys,
                               const Expected& expected, TimePoint now);
boost::json::object verify_jwt(std::string_view token, const Key& key, const Expected& expected,
                               TimePoint now);
// The claims without any check, to find out which key to ask for. Throws Error{kUnauthenticated}
// when malformed.
boost::json::object peek_claims(std::string_view token);
// The header's `kid`, "" without one: JwkSet::find says whether the key is known, so that the
// caller can fetch the set again. Throws Error{kUnauthenticated} when malformed.
std::string peek_kid(std::string_view token);

// Public keys by `kid` (RFC 7517).
class JwkSet {
 public:
  // Ignores keys that are not understood or not for verifying signatures, and every key whose `kid`
  // another key of the set has too, and RSA keys under 2048 bits. A damaged key:
  // Error{kInvalidArgument}.
  static JwkSet parse(std::string_view json);
  void add(const Key& key);
  const Key* find(std::string_view kid) const;  // null: unknown
  std::size_t size() const noexcept { return keys_.size(); }
  std::string to_json() const;

 private:
  std::vector<std::pair<std::string, Key>> keys_;
};

}  // namespace flock::crypto
