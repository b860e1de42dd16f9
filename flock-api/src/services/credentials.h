// SPDX-License-Identifier: Apache-2.0
// Keys for people and devices, device tokens and registry tokens.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "base/time.h"
#include "crypto/keys.h"

namespace flock::services {

// "flk_" and 43 characters; only the hash is stored.
struct FreshKey {
  std::string secret, prefix, hash;
};
FreshKey make_key(std::string_view kind);  // "flk_", "flp_", "flks_"
std::string hash_key(std::string_view secret);

struct DeviceIdentity {
  DeviceId device;
  OrgId org;
  FleetId fleet;
};

// Signs and checks what devices show to the broker and the registry (docs/foundation.md,
// Credentials).
class DeviceTokens {
 public:
  // `lifetime` of tokens for which nothing else is asked, `longest` of those for which it is.
  DeviceTokens(crypto::Key key, std::string issuer, Duration lifetime,
               Duration longest = Duration(0))
      : key_(std::move(key)),
        issuer_(std::move(issuer)),
        lifetime_(lifetime),
        longest_(std::max(lifetime, longest)) {}
  struct Token {
    std::string text;
    TimePoint expires;
  };
  Token issue(const DeviceIdentity& identity, TimePoint now,
              std::optional<Duration> asked = std::nullopt) const;
  // Throws kUnauthenticated.
  DeviceIdentity verify(std::string_view token, TimePoint now) const;
  // A device's own assertion: signed by `device_key`, `sub` as given, at most 5 minutes old. Throws
  // kUnauthenticated.
  static void check_assertion(std::string_view assertion, const crypto::Key& device_key,
                              const std::string& subject, TimePoint now);

  // docker-registry's bearer token for `repository` with these actions.
  struct Grant {
    std::string repository;
    std::vector<std::string> actions;
  };
  std::string registry_token(const std::string& service, const std::string& subject,
                             const std::vector<Grant>& grants, TimePoint now) const;

 private:
  crypto::Key key_;
  std::string issuer_;
  Duration lifetime_, longest_;
};

}  // namespace flock::services
