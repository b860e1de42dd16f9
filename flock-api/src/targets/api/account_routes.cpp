// SPDX-License-Identifier: Apache-2.0
// Setup, who am I, public keys, and the registry's token endpoint.
#include "targets/api/call.h"

#include "base/bytes.h"
#include "crypto/jwt.h"
#include "stores/postgres/account_statements.h"
#include "workload/workload.h"

namespace flock::targets::api {
namespace {

// The one-time key of a fresh installation becomes the first organization, its first API key and,
// when a person sends it with an access token, its first owner.
Task<net::Reply> set_up(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string key = in.string("setup_key"),
                    name = in.string("organization", {.min = 1, .max = 100});
  const std::string slug = slug_of(name);
  if (!name.empty() && slug.empty())
    in.problem("organization", "invalid", "needs a letter or a digit");
  in.finish();
  if (const auto header = call.request.headers.get("Authorization");
      header && header->starts_with("Bearer "))
    call.who = co_await call.context.principals.person(std::string(header->substr(7)));
  if (call.who.kind == Principal::Kind::kNobody) call.who.name = "setup key";
  const OrgId org = OrgId::fresh();
  const services::FreshKey fresh = services::make_key("flk_");
  const std::string key_id = new_uuid();
  bj::object answer{
      {"organization", {{"id", org.text()}, {"name", name}, {"slug", slug}}},
      {"api_key",
       {{"id", key_id}, {"name", "setup"}, {"prefix", fresh.prefix}, {"secret", fresh.secret}}}};
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto used = co_await tx.query(sql::kSetupUse, Params().bytes(services::hash_key(key)));
    if (used.empty()) {
      const auto state = co_await tx.query(sql::kSetupState);
      if (!state.empty() && state.rows.front().boolean("used"))
        throw Error(Code::kConflict, "this installation is set up already")
            .hint("sign in: flock login");
      throw Error(Code::kForbidden, "the setup key is not right")
          .hint("flock-api prints it at its first start");
    }
    co_await tx.query(sql::kOrganizationInsert, Params().text(org.text()).text(name).text(slug));
    co_await tx.query(sql::kApiKeyInsert, Params()
                                              .text(key_id)
                                              .text(org.text())
                                              .text(std::string("setup"))
                                              .text(fresh.prefix)
                                              .bytes(fresh.hash));
    if (call.who.kind == Principal::Kind::kUser)
      co_await tx.query(sql::kMemberInsert, Params()
                                                .text(org.text())
                                                .text(call.who.id)
                                                .text(std::string("owner"))
                                                .text(std::nullopt));
    co_return Change{"organization", org.text(), name, json_reply(201, answer), {}, org};
  };
  co_return co_await call.mutate_in(Scope::system(), work);
}

bj::array texts(const std::vector<std::string>& from) {
  bj::array out;
  for (const std::string& text : from) out.push_back(bj::value(text));
  return out;
}

Task<net::Reply> who_am_i(Call& call) {
  const Principal& who = call.who;
  bj::object out{{"kind", who.kind == Principal::Kind::kUser ? "user" : "api_key"},
                 {"id", who.id},
                 {"name", who.name},
                 {"permissions", texts(who.permissions.names())}};
  if (!who.email.empty()) out["email"] = who.email;
  if (!who.org.empty())
    out["organization"] =
        bj::object{{"id", who.org.text()}, {"name", who.org_name}, {"slug", who.org_slug}};
  if (who.role) out["role"] = to_string(*who.role);
  if (who.fleets) out["fleet_ids"] = texts(*who.fleets);
  set_time(out, "expires_at", who.expires);
  co_return json_reply(200, out);
}

// What a program must know to sign a person in.
Task<net::Reply> sign_in_config(Call& call) {
  const Settings& settings = call.context.parts.settings;
  bj::object out;
  if (!settings.oidc_issuer.empty())
    out["oidc"] = bj::object{{"issuer", settings.oidc_issuer},
                             {"client_id", settings.oidc_client_id},
                             {"audience", settings.oidc_audience.at(0)},
                             {"scopes", bj::array{"openid", "email", "profile", "offline_access"}}};
  co_return json_reply(200, out);
}

struct Basic {
  std::string user, password;
};
std::optional<Basic> read_basic(const net::Request& request) {
  const auto header = request.headers.get("Authorization");
  if (!header || !header->starts_with("Basic ")) return std::nullopt;
  const auto text = from_base64(header->substr(6));
  const std::size_t colon = text ? text->find(':') : std::string::npos;
  if (colon == std::string::npos) return std::nullopt;
  return Basic{text->substr(0, colon), text->substr(colon + 1)};
}

// "repository:NAME:pull,push" (distribution's token specification).
std::optional<services::DeviceTokens::Grant> read_scope(const std::string& scope) {
  const std::size_t first = scope.find(':'), last = scope.rfind(':');
  if (first == std::string::npos || first == last || scope.substr(0, first) != "repository")
    return std::nullopt;
  services::DeviceTokens::Grant grant;
  grant.repository = scope.substr(first + 1, last - first - 1);
  std::string_view actions = std::string_view(scope).substr(last + 1);
  while (!actions.empty()) {
    const std::string_view action = actions.substr(0, actions.find(','));
    if (action == "pull" || action == "push") grant.actions.emplace_back(action);
    actions.remove_prefix(std::min(actions.size(), action.size() + 1));
  }
  return grant;
}

// Only what its desired release names, and only from our own registry: an image of the same path
// elsewhere is another image.
Task<bool> device_may_pull(Context& c, services::DeviceIdentity device, std::string repository) {
  const auto rows =
      co_await c.parts.db.query(Scope::tenant(device.org), sql::kDeviceRepositories,
                                Params().text(device.org.text()).text(device.device.text()));
  if (rows.empty()) co_return false;
  const auto hosts = c.registry_hosts();
  for (const auto& service : workload::from_json(rows.rows.front().text("workload")).services) {
    for (const std::string& host : hosts) {
      if (service.repository == host + "/" + repository) co_return true;
    }
  }
  co_return false;
}

// What the person or program behind `secret` may do with images of the registry.
Task<Principal> registry_user(Context& c, std::string secret) {
  net::Request bearer;
  bearer.headers.add("Authorization", "Bearer " + std::move(secret));
  Principal who = co_await c.principals.authenticate(bearer);
  if (!who.permissions.has(Permission::kReleasesRead))
    throw Error(Code::kForbidden, "this needs the permission releases:read");
  co_return who;
}

Task<net::Reply> registry_token(Call& call) {
  Context& c = call.context;
  const net::Request& request = call.request;
  const auto basic = read_basic(request);
  if (!basic)
    throw Error(Code::kUnauthenticated, "the registry wants a user and a password")
        .hint("a device uses its id and token, a person `flock` and an API key");
  const TimePoint now = system_clock().now();
  std::vector<services::DeviceTokens::Grant> grants;
  std::string subject = basic->user;
  std::optional<services::DeviceIdentity> device;
  bool may_push = false;
  if (is_uuid(basic->user)) {
    const services::DeviceIdentity identity = c.tokens.verify(basic->password, now);
    if (identity.device.text() != basic->user)
      throw Error(Code::kUnauthenticated, "token refused: wrong subject");
    device = identity;
  } else {
    const Principal who = co_await registry_user(c, basic->password);
    subject = who.id;
    may_push = who.permissions.has(Permission::kReleasesWrite);
  }
  for (const auto& [key, value] : request.query_items()) {
    if (key != "scope") continue;
    auto grant = read_scope(value);
    if (!grant) continue;
    if (!may_push) std::erase(grant->actions, "push");
    if (device) {
      if (!co_await device_may_pull(c, *device, grant->repository)) grant->actions.clear();
    }
    if (!grant->actions.empty()) grants.push_back(std::move(*grant));
  }
  const std::string token =
      c.tokens.registry_token(c.parts.settings.registry_service, subject, grants, now);
  co_return json_reply(200, bj::object{{"token", token},
                                       {"access_token", token},
                                       {"expires_in", 300},
                                       {"issued_at", to_rfc3339(now)}});
}

}  // namespace

void add_account_routes(Context& c) {
  c.add(open_to_all("setUp", "POST", "/v1/setup"), set_up);
  c.add(open_to_all("getSignInConfig", "GET", "/v1/auth/config"), sign_in_config);
  c.add(signed_in("whoAmI", "GET", "/v1/whoami"), who_am_i);
  c.add(open_to_all("getRegistryToken", "GET", "/v1/registry/token"), registry_token);
  c.add(open_to_all("getKeys", "GET", "/.well-known/jwks.json"),
        [](Call& call) -> Task<net::Reply> {
          crypto::JwkSet set;
          set.add(call.context.parts.signing_key);
          co_return json_reply(200, json::parse(set.to_json()));
        });
}

}  // namespace flock::targets::api
