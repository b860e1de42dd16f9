// SPDX-License-Identifier: Apache-2.0
// API keys: what programs sign in with.
#include "stores/postgres/account_statements.h"
#include "targets/api/access.h"

namespace flock::targets::api {
namespace {

constexpr Duration kLongestKey{std::int64_t{3650} * 86'400'000};
constexpr std::string_view kPassing[] = {"last_used_at"};

bj::object api_key_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"name", row.text("name")},
                 {"prefix", row.text("prefix")},
                 {"role", row.text("role")},
                 {"created_by", row.text("created_by")}};
  if (const auto scopes = row.optional_texts("scopes")) out["scopes"] = bj::value_from(*scopes);
  if (const auto fleets = fleets_json(row)) out["fleet_ids"] = *fleets;
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "expires_at", row.optional_time("expires_at"));
  set_time(out, "last_used_at", row.optional_time("last_used_at"));
  set_time(out, "revoked_at", row.optional_time("revoked_at"));
  return out;
}

Task<net::Reply> list_api_keys(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kApiKeyList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(api_key_json(row));
  co_return list_reply(std::move(items), page);
}

Error no_such_key(const std::string& id) {
  return Error(Code::kNotFound, "no such API key").with("id", id).hint("flock tokens lists them");
}

Task<net::Reply> get_api_key(Call& call) {
  const std::string id = KeyId::parse(call.parameter("id")).text();
  const auto rows = co_await call.query(sql::kApiKeyGet, Params().text(call.org()).text(id));
  if (rows.empty()) throw no_such_key(id);
  co_return call.answer(200, api_key_json(rows.rows.front()), kPassing);
}

// A key may do at most what its maker may.
void check_scopes(json::Reader& in, const Call& call, const Access& access,
                  const std::vector<std::string>& scopes) {
  domain::Permissions wanted = domain::permissions_of(access.role, access.fleets.has_value());
  if (!scopes.empty()) {
    domain::Permissions narrowed;
    for (std::size_t i = 0; i < scopes.size(); ++i) {
      const auto permission = domain::parse_permission(scopes[i]);
      if (!permission)
        item_problem(in, "scopes", std::to_string(i), "there is no scope of this name");
      else if (!wanted.has(*permission))
        item_problem(in, "scopes", std::to_string(i),
                     "the role " + std::string(to_string(access.role)) + " does not have it");
      else
        narrowed.add(*permission);
    }
    wanted = narrowed;
  }
  in.finish();
  check_grant(call.who, access.role);
  if (!call.who.permissions.cover(wanted))
    throw Error(Code::kForbidden, "a key cannot do more than its maker")
        .hint("name the scopes that you have: flock whoami");
}

Task<net::Reply> create_api_key(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  const Access access = read_access(in);
  const auto scopes = in.optional_strings("scopes", 50, {.min = 1, .max = 50});
  const auto expires = read_expiry(in, "expires_in", kLongestKey);
  check_scopes(in, call, access, scopes);
  const auto fleets = co_await resolve_fleets(call, access);
  const services::FreshKey key = services::make_key("flk_");
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    Params params;
    params.text(id)
        .text(call.org())
        .text(name)
        .text(key.prefix)
        .bytes(key.hash)
        .text(std::string(to_string(access.role)));
    if (scopes.empty())
      params.text(std::nullopt);
    else
      params.texts(scopes);
    params = fleets_param(std::move(params), fleets);
    co_await tx.query(sql::kApiKeyCreate, std::move(params.time(expires).text(call.who.name)));
    const auto made = co_await tx.query(sql::kApiKeyGet, Params().text(call.org()).text(id));
    bj::object out = api_key_json(made.rows.at(0));
    bj::object detail{{"role", out.at("role")}};
    if (out.contains("scopes")) detail["scopes"] = out.at("scopes");
    out["secret"] = key.secret;
    co_return Change{"api_key", id, name, json_reply(201, out), std::move(detail)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> revoke_api_key(Call& call) {
  const std::string id = KeyId::parse(call.parameter("id")).text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto rows = co_await tx.query(sql::kApiKeyGet, Params().text(call.org()).text(id));
    if (rows.empty()) throw no_such_key(id);
    co_await tx.query(sql::kApiKeyRevoke, Params().text(call.org()).text(id));
    co_return Change{"api_key", id, rows.rows.front().text("name"), json_reply(204, nullptr)};
  };
  net::Reply reply = co_await call.mutate(work);
  call.context.principals.forget();
  co_return reply;
}

}  // namespace

void add_token_routes(Context& c) {
  c.add(allowed("listApiKeys", "GET", "/v1/api-keys", Permission::kTokensRead), list_api_keys);
  c.add(allowed("createApiKey", "POST", "/v1/api-keys", Permission::kTokensWrite), create_api_key);
  c.add(allowed("getApiKey", "GET", "/v1/api-keys/{id}", Permission::kTokensRead), get_api_key);
  c.add(allowed("revokeApiKey", "DELETE", "/v1/api-keys/{id}", Permission::kTokensWrite),
        revoke_api_key);
}

}  // namespace flock::targets::api
