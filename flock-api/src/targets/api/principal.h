// SPDX-License-Identifier: Apache-2.0
// Who calls: a person with an access token of the identity provider, or an API key.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "domain/rbac.h"
#include "net/http.h"
#include "stores/identity/oidc.h"
#include "stores/postgres/database.h"

namespace flock::targets::api {

struct Principal {
  enum class Kind { kNobody, kUser, kApiKey };
  Kind kind = Kind::kNobody;
  std::string id, name, email;
  // A person may be signed in without being in an organization: then org is empty and nothing that
  // asks for a permission is allowed.
  OrgId org;
  std::string org_name, org_slug;
  std::optional<domain::Role> role;
  domain::Permissions permissions;
  std::optional<std::vector<std::string>> fleets;  // nothing: every fleet
  std::optional<TimePoint> expires;
  std::string no_org_hint;  // why org is empty

  // Distinguishes callers of one organization: "user:..." or "api_key:...".
  std::string key() const;
};

class Principals {
 public:
  // `people` may be null: no identity provider is configured.
  Principals(postgres::Database& db, identity::OidcVerifier* people) : db_(db), people_(people) {}

  // Who sent the request, by its Authorization header; the organization by Flock-Organization (id
  // or slug), the only one when it is not named. Answers are kept for a few seconds, so a revoked
  // key works at most that long. Throws kUnauthenticated, or kNotFound for an organization that the
  // caller is not in.
  Task<Principal> authenticate(const net::Request& request);
  // The person alone, registered as a user. Throws kUnauthenticated.
  Task<Principal> person(std::string token);
  // After a change of roles or keys the next request looks again.
  void forget() { known_.clear(); }

  struct Quota {
    std::int64_t limit = 0, remaining = 0, reset_s = 0;
  };
  // Takes one request from the caller's bucket of `limit` a minute. Throws kRateLimited.
  Quota admit(const Principal& principal, std::int64_t limit);

 private:
  struct Cached {
    Principal principal;
    SteadyPoint until;
  };
  struct Bucket {
    double tokens = 0;
    SteadyPoint at;
  };
  Task<Principal> by_key(std::string secret, std::string organization);
  Task<Principal> by_token(std::string token, std::string organization);

  postgres::Database& db_;
  identity::OidcVerifier* people_;
  std::unordered_map<std::string, Cached> known_;  // by hash of the credential, and organization
  std::unordered_map<std::string, Bucket> buckets_;
};

}  // namespace flock::targets::api
