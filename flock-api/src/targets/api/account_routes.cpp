// SPDX-License-Identifier: Apache-2.0
// Setup, who am I, public keys, and the registry's token endpoint.
#include "targets/api/context.h"

#include "base/bytes.h"
#include "crypto/jwt.h"
#include "workload/workload.h"

namespace flock::targets::api {
namespace {

// The one-time key of a fresh installation becomes the first organization and its first API key.
Task<net::Reply> setup(Context& c, net::Request request) {
  const bj::value body = read_body(request);
  json::Reader in(body);
  const std::string key = in.string("setup_key"),
                    name = in.string("organization", {.min = 1, .max = 100});
  in.finish();
  const std::string slug = slug_of(name);
  if (slug.empty())
    throw Error(Code::kInvalidArgument, "the organization's name needs a letter or a digit");
  const OrgId org = OrgId::fresh();
  const services::FreshKey fresh = services::make_key("flk_");
  const std::string key_id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    const auto used = co_await tx.query(sql::kSetupUse, Params().bytes(services::hash_key(key)));
    if (used.empty()) {
      const auto state = co_await tx.query(sql::kSetupState);
      if (!state.empty() && state.rows.front().boolean("used"))
        throw Error(Code::kConflict, "this installation is set up already")
            .hint("sign in: flock login --with-token");
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
  };
  co_await c.parts.db.transaction(Scope::system(), work);
  co_return json_reply(
      201, bj::object{{"organization", {{"id", org.text()}, {"name", name}, {"slug", slug}}},
                      {"api_key",
                       {{"id", key_id},
                        {"name", "setup"},
                        {"prefix", fresh.prefix},
                        {"secret", fresh.secret}}}});
}

Task<net::Reply> whoami(Principal who, net::Request, net::Parameters) {
  co_return json_reply(
      200, bj::object{{"kind", "api_key"},
                      {"id", who.key_id},
                      {"name", who.name},
                      {"organization",
                       {{"id", who.org.text()}, {"name", who.org_name}, {"slug", who.org_slug}}}});
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

Task<net::Reply> registry_token(Context& c, net::Request request) {
  const auto basic = read_basic(request);
  if (!basic)
    throw Error(Code::kUnauthenticated, "the registry wants a user and a password")
        .hint("a device uses its id and token, a person `flock` and an API key");
  const TimePoint now = system_clock().now();
  std::vector<services::DeviceTokens::Grant> grants;
  std::string subject = basic->user;
  std::optional<services::DeviceIdentity> device;
  if (is_uuid(basic->user)) {
    const services::DeviceIdentity identity = c.tokens.verify(basic->password, now);
    if (identity.device.text() != basic->user)
      throw Error(Code::kUnauthenticated, "token refused: wrong subject");
    device = identity;
  } else {
    net::Request bearer;
    bearer.headers.add("Authorization", "Bearer " + basic->password);
    subject = (co_await c.authenticate(bearer)).key_id;
  }
  for (const auto& [key, value] : request.query_items()) {
    if (key != "scope") continue;
    auto grant = read_scope(value);
    if (!grant) continue;
    if (device) {
      std::erase(grant->actions, "push");
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
  c.add_public("POST", "/v1/setup", [&c](net::Request request, net::Parameters) {
    return setup(c, std::move(request));
  });
  c.add("GET", "/v1/whoami", whoami);
  c.add_public("GET", "/v1/registry/token", [&c](net::Request request, net::Parameters) {
    return registry_token(c, std::move(request));
  });
  c.add_public("GET", "/.well-known/jwks.json",
               [&c](net::Request, net::Parameters) -> Task<net::Reply> {
                 crypto::JwkSet set;
                 set.add(c.parts.signing_key);
                 co_return json_reply(200, json::parse(set.to_json()));
               });
}

}  // namespace flock::targets::api
