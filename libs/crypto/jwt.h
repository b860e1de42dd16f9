// SPDX-License-Identifier: Apache-2.0
// JSON Web Tokens (RFC 7519) signed with ES256 or EdDSA; verification is strict and the key decides
// the algorithm.
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
  std::string issuer;    // "" = any
  std::string audience;  // must equal `aud` or be in its array; "" = any
  Duration leeway = Duration(30'000);
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

// Public keys by `kid` (RFC 7517).
class JwkSet {
 public:
  static JwkSet parse(std::string_view json);
  void add(const Key& key);
  const Key* find(std::string_view kid) const;
  std::string to_json() const;

 private:
  std::vector<std::pair<std::string, Key>> keys_;
};

}  // namespace flock::crypto
