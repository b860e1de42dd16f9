// SPDX-License-Identifier: Apache-2.0
// Fleets and provisioning keys.
#include "targets/api/context.h"

namespace flock::targets::api {
namespace {

constexpr Duration kLongestKey{std::int64_t{3650} * 86'400'000};

bj::object fleet_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"name", row.text("name")},
                 {"slug", row.text("slug")},
                 {"device_count", row.integer("device_count")},
                 {"online_count", row.integer("online_count")}};
  set_time(out, "created_at", row.time("created_at"));
  if (const auto release = row.optional_text("release_id"))
    out["current_release"] = bj::object{{"id", *release}, {"version", row.text("release_version")}};
  return out;
}

Task<net::Reply> list_fleets(Context& c, Principal who, net::Request request) {
  allow_query(request, {"page_size", "page_token"});
  const Page page = read_page(request);
  const auto rows = co_await c.parts.db.query(
      Scope::tenant(who.org), sql::kFleetList,
      Params().text(who.org.text()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(fleet_json(row));
  co_return list_reply(std::move(items), page, "slug");
}

Task<net::Reply> create_fleet(Context& c, Principal who, net::Request request) {
  const bj::value body = read_body(request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  const std::string slug =
      in.optional_string("slug", {.min = 1, .max = 63}).value_or(slug_of(name));
  if (slug.empty() || slug != slug_of(slug) || is_uuid(slug))
    in.problem("slug", "invalid", "must be lower-case letters, digits and single dashes");
  in.finish();
  const std::string id = new_uuid();
  try {
    co_await c.parts.db.query(Scope::tenant(who.org), sql::kFleetInsert,
                              Params().text(id).text(who.org.text()).text(name).text(slug));
  } catch (const Error& error) {
    if (error.code() != Code::kConflict) throw;
    throw Error(Code::kConflict, "there is a fleet of this name already").with("slug", slug);
  }
  co_return json_reply(201, fleet_json(co_await find_fleet(c, who.org, id)));
}

Task<net::Reply> rename_fleet(Context& c, Principal who, net::Request request, std::string id) {
  const bj::value body = read_body(request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  in.finish();
  const Row fleet = co_await find_fleet(c, who.org, id);
  co_await c.parts.db.query(Scope::tenant(who.org), sql::kFleetRename,
                            Params().text(who.org.text()).text(fleet.text("id")).text(name));
  co_return json_reply(200, fleet_json(co_await find_fleet(c, who.org, id)));
}

Task<net::Reply> delete_fleet(Context& c, Principal who, std::string id) {
  const Row fleet = co_await find_fleet(c, who.org, id);
  try {
    co_await c.parts.db.query(Scope::tenant(who.org), sql::kFleetDelete,
                              Params().text(who.org.text()).text(fleet.text("id")));
  } catch (const Error& error) {
    if (error.code() != Code::kConflict) throw;
    throw Error(Code::kConflict, "the fleet has devices")
        .with("fleet", fleet.text("slug"))
        .hint("move or remove its devices first");
  }
  co_return json_reply(204, nullptr);
}

bj::object key_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"fleet_id", row.text("fleet_id")},
                 {"name", row.text("name")},
                 {"prefix", row.text("prefix")},
                 {"uses", row.integer("uses")}};
  if (const auto most = row.optional_integer("max_uses")) out["max_uses"] = *most;
  set_time(out, "expires_at", row.optional_time("expires_at"));
  set_time(out, "revoked_at", row.optional_time("revoked_at"));
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

Task<net::Reply> list_keys(Context& c, Principal who, net::Request request) {
  allow_query(request, {"page_size", "page_token"});
  const Page page = read_page(request);
  const auto rows = co_await c.parts.db.query(
      Scope::tenant(who.org), sql::kProvisioningKeyList,
      Params().text(who.org.text()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(key_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> create_key(Context& c, Principal who, net::Request request) {
  const bj::value body = read_body(request);
  json::Reader in(body);
  const std::string fleet_name = in.string("fleet_id", {.min = 1, .max = 63}),
                    name = in.optional_string("name", {.min = 1, .max = 100}).value_or("key");
  const auto uses = in.optional_integer("max_uses", {.min = 1, .max = 1'000'000'000});
  std::optional<TimePoint> expires;
  if (const auto life = in.optional_string("expires_in")) {
    try {
      const Duration lasts = parse_duration(*life);
      if (lasts > kLongestKey)
        in.problem("expires_in", "out_of_range", "must be at most " + to_string(kLongestKey));
      else
        expires = system_clock().now() + lasts;
    } catch (const Error& error) {
      in.problem("expires_in", "invalid", error.hint());
    }
  }
  in.finish();
  const Row fleet = co_await find_fleet(c, who.org, fleet_name);
  const services::FreshKey key = services::make_key("flp_");
  const std::string id = new_uuid();
  Params params;
  params.text(id)
      .text(who.org.text())
      .text(fleet.text("id"))
      .text(name)
      .text(key.prefix)
      .bytes(key.hash);
  params.text(uses ? std::optional(std::to_string(*uses)) : std::nullopt).time(expires);
  co_await c.parts.db.query(Scope::tenant(who.org), sql::kProvisioningKeyInsert, std::move(params));
  const auto rows = co_await c.parts.db.query(Scope::tenant(who.org), sql::kProvisioningKeyGet,
                                              Params().text(who.org.text()).text(id));
  bj::object out = key_json(rows.rows.at(0));
  out["secret"] = key.secret;
  co_return json_reply(201, out);
}

Task<net::Reply> revoke_key(Context& c, Principal who, std::string id) {
  const KeyId key = KeyId::parse(id);
  const auto rows = co_await c.parts.db.query(Scope::tenant(who.org), sql::kProvisioningKeyRevoke,
                                              Params().text(who.org.text()).text(key.text()));
  if (rows.affected == 0) throw Error(Code::kNotFound, "no such provisioning key").with("id", id);
  co_return json_reply(204, nullptr);
}

}  // namespace

Task<Row> find_fleet(Context& c, OrgId org, std::string id_or_slug) {
  const auto rows = co_await c.parts.db.query(Scope::tenant(org), sql::kFleetGet,
                                              Params().text(org.text()).text(id_or_slug));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such fleet")
        .with("fleet", id_or_slug)
        .hint("flock fleets lists them");
  co_return rows.rows.front();
}

void add_fleet_routes(Context& c) {
  using P = Principal;
  using Q = net::Request;
  using A = net::Parameters;
  c.add("GET", "/v1/fleets", [&c](P who, Q q, A) { return list_fleets(c, who, std::move(q)); });
  c.add("POST", "/v1/fleets", [&c](P who, Q q, A) { return create_fleet(c, who, std::move(q)); });
  c.add("GET", "/v1/fleets/{id}", [&c](P who, Q, A a) -> Task<net::Reply> {
    co_return json_reply(200, fleet_json(co_await find_fleet(c, who.org, a["id"])));
  });
  c.add("PATCH", "/v1/fleets/{id}",
        [&c](P who, Q q, A a) { return rename_fleet(c, who, std::move(q), a["id"]); });
  c.add("DELETE", "/v1/fleets/{id}", [&c](P who, Q, A a) { return delete_fleet(c, who, a["id"]); });
  c.add("GET", "/v1/provisioning-keys",
        [&c](P who, Q q, A) { return list_keys(c, who, std::move(q)); });
  c.add("POST", "/v1/provisioning-keys",
        [&c](P who, Q q, A) { return create_key(c, who, std::move(q)); });
  c.add("DELETE", "/v1/provisioning-keys/{id}",
        [&c](P who, Q, A a) { return revoke_key(c, who, a["id"]); });
}

}  // namespace flock::targets::api
