// SPDX-License-Identifier: Apache-2.0
#include "targets/api/principal.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "crypto/keys.h"
#include "services/credentials.h"
#include "stores/postgres/account_statements.h"
#include "stores/postgres/statements.h"

namespace flock::targets::api {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr Duration kKnownFor{5000};
constexpr std::size_t kMostKnown = 10'000;

void enter(Principal& principal, const Row& row) {
  principal.org = OrgId::trusted(row.text("org_id"));
  principal.org_name = row.text("org_name");
  principal.org_slug = row.text("org_slug");
  principal.role = domain::parse_role(row.text("role"));
  principal.fleets = row.optional_texts("fleet_ids");
  principal.permissions = domain::permissions_of(*principal.role, principal.fleets.has_value());
}

Error not_valid(const char* why) {
  return Error(Code::kUnauthenticated, why).hint("sign in again: flock login");
}

Task<Principal> known(Principal principal) { co_return principal; }

template <class Known>
Task<Principal> look_up(Known& kept, std::string id, Task<Principal> looking, SteadyPoint until) {
  Principal principal = co_await std::move(looking);
  if (kept.size() >= kMostKnown) kept.clear();
  kept[id] = {principal, until};
  co_return principal;
}

}  // namespace

std::string Principal::key() const { return (kind == Kind::kUser ? "user:" : "api_key:") + id; }

// No coroutine of its own, nor a large one for who is known: each request comes through here, and a
// frame of over 1 kB is slow to get.
Task<Principal> Principals::authenticate(const net::Request& request) {
  const auto header = request.headers.get("Authorization");
  if (!header || !header->starts_with("Bearer "))
    throw Error(Code::kUnauthenticated, "this needs an access token or an API key")
        .hint("flock login, or the header Authorization: Bearer flk_...");
  std::string credential(header->substr(7));
  std::string organization(request.headers.get("Flock-Organization").value_or(""));
  if (credential.size() > 8192 || organization.size() > 63)
    throw not_valid("the credential is not valid");
  const std::string id = crypto::sha256(credential) + organization;
  const SteadyPoint now = std::chrono::steady_clock::now();
  if (const auto found = known_.find(id); found != known_.end() && found->second.until > now) {
    const auto& expires = found->second.principal.expires;
    if (!expires || *expires > system_clock().now()) return known(found->second.principal);
  }
  const bool key = credential.starts_with("flk_");
  Task<Principal> looking = key ? by_key(std::move(credential), std::move(organization))
                                : by_token(std::move(credential), std::move(organization));
  return look_up(known_, id, std::move(looking), now + kKnownFor);
}

Task<Principal> Principals::by_key(std::string secret, std::string organization) {
  const std::string hash = services::hash_key(secret);
  const auto rows = co_await db_.query(Scope::system(), sql::kApiKeyByHash, Params().bytes(hash));
  const Row* row = rows.first();
  if (row == nullptr) throw not_valid("the API key is not valid; it may have been revoked");
  Principal principal;
  principal.kind = Principal::Kind::kApiKey;
  principal.id = row->text("id");
  principal.name = row->text("name");
  principal.expires = row->optional_time("expires_at");
  if (principal.expires && *principal.expires <= system_clock().now())
    throw not_valid("the API key has expired");
  enter(principal, *row);
  if (!organization.empty() && organization != principal.org.text() &&
      organization != principal.org_slug)
    throw Error(Code::kNotFound, "no such organization")
        .with("organization", organization)
        .hint("an API key belongs to one organization");
  if (const auto scopes = row->optional_texts("scopes")) {
    domain::Permissions narrowed;
    for (const std::string& scope : *scopes) {
      if (const auto permission = domain::parse_permission(scope)) narrowed.add(*permission);
    }
    principal.permissions = principal.permissions & narrowed;
  }
  if (row->boolean("unused_for_a_while"))
    co_await db_.query(Scope::tenant(principal.org), sql::kApiKeyUsed,
                       Params().text(principal.org.text()).text(principal.id));
  co_return principal;
}

Task<Principal> Principals::person(std::string token) {
  if (people_ == nullptr)
    throw Error(Code::kUnauthenticated, "this is no API key, and no identity provider is set up")
        .hint("an API key begins with flk_");
  const identity::Identity person =
      co_await people_->verify(std::move(token), system_clock().now());
  const Params identity = Params().text(person.issuer).text(person.subject);
  auto rows = co_await db_.query(Scope::system(), sql::kUserByIdentity, identity);
  const std::string email = person.email_verified ? person.email : "";
  const std::string name = person.name.empty() ? person.email : person.name;
  if (rows.empty() || rows.rows.front().text("email") != email ||
      rows.rows.front().text("name") != name) {
    rows = co_await db_.query(
        Scope::system(), sql::kUserUpsert,
        Params().text(new_uuid()).text(person.issuer).text(person.subject).text(email).text(name));
  }
  Principal principal;
  principal.kind = Principal::Kind::kUser;
  principal.id = rows.rows.at(0).text("id");
  principal.name = name;
  principal.email = email;
  principal.expires = person.expires;
  co_return principal;
}

Task<Principal> Principals::by_token(std::string token, std::string organization) {
  Principal principal = co_await person(std::move(token));
  const auto rows =
      co_await db_.query(Scope::system(), sql::kMembershipsOfUser, Params().text(principal.id));
  if (organization.empty() && rows.rows.size() == 1) {
    enter(principal, rows.rows.front());
    co_return principal;
  }
  for (const Row& row : rows.rows) {
    if (organization != row.text("org_id") && organization != row.text("org_slug")) continue;
    enter(principal, row);
    co_return principal;
  }
  if (!organization.empty())
    throw Error(Code::kNotFound, "no such organization")
        .with("organization", organization)
        .hint("flock orgs lists those you are in");
  principal.no_org_hint =
      rows.empty() ? "ask for an invitation, or make an organization: flock orgs create NAME"
                   : "you are in several organizations; name one: flock orgs use NAME";
  co_return principal;
}

Principals::Quota Principals::admit(const Principal& principal, std::int64_t limit) {
  if (limit <= 0) return {};
  if (buckets_.size() >= kMostKnown) buckets_.clear();
  const SteadyPoint now = std::chrono::steady_clock::now();
  const auto [entry, fresh] = buckets_.try_emplace(principal.key(), Bucket{});
  Bucket& bucket = entry->second;
  const double most = static_cast<double>(limit);
  const double elapsed_s = std::chrono::duration<double>(now - bucket.at).count();
  bucket.tokens = fresh ? most : std::min(most, bucket.tokens + elapsed_s * most / 60);
  bucket.at = now;
  if (bucket.tokens < 1)
    throw Error(Code::kRateLimited, "too many requests: " + std::to_string(limit) + " a minute")
        .hint("wait a moment; Retry-After says how long");
  bucket.tokens -= 1;
  return {limit, static_cast<std::int64_t>(bucket.tokens),
          static_cast<std::int64_t>(std::ceil((most - bucket.tokens) * 60 / most))};
}

}  // namespace flock::targets::api
