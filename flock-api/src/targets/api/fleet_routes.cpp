// SPDX-License-Identifier: Apache-2.0
// Fleets and provisioning keys.
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

constexpr Duration kLongestKey{std::int64_t{3650} * 86'400'000};
constexpr std::string_view kPassing[] = {"device_count", "online_count", "current_release"};

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

Task<net::Reply> list_fleets(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kFleetList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(fleet_json(row));
  co_return list_reply(std::move(items), page, "slug");
}

Error no_such_fleet(const std::string& name) {
  return Error(Code::kNotFound, "no such fleet")
      .with("fleet", name)
      .hint("flock fleets lists them");
}

Task<Row> find_fleet_in(postgres::Transaction& tx, const Call& call, std::string name) {
  const auto rows = co_await tx.query(sql::kFleetGet, Params().text(call.org()).text(name));
  if (rows.empty()) throw no_such_fleet(name);
  co_return rows.rows.front();
}

Task<net::Reply> create_fleet(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  const std::string slug =
      in.optional_string("slug", {.min = 1, .max = 63}).value_or(slug_of(name));
  if (slug.empty() || slug != slug_of(slug) || is_uuid(slug))
    in.problem("slug", "invalid", "must be lower-case letters, digits and single dashes");
  in.finish();
  if (call.who.fleets)
    throw Error(Code::kForbidden, "your access is limited to some fleets; you cannot make others");
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    try {
      co_await tx.query(sql::kFleetInsert,
                        Params().text(id).text(call.org()).text(name).text(slug));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "there is a fleet of this name already").with("slug", slug);
    }
    const Row made = co_await find_fleet_in(tx, call, id);
    co_return Change{"fleet", id, slug, call.answer(201, fleet_json(made), kPassing)};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> get_fleet(Call& call) {
  const Row fleet = co_await find_fleet(call, call.parameter("id"));
  co_return call.answer(200, fleet_json(fleet), kPassing);
}

Task<net::Reply> rename_fleet(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row before = co_await find_fleet_in(tx, call, call.parameter("id"));
    call.check_match(fleet_json(before), kPassing);
    const std::string id = before.text("id");
    co_await tx.query(sql::kFleetRename, Params().text(call.org()).text(id).text(name));
    const Row now = co_await find_fleet_in(tx, call, id);
    co_return Change{"fleet",
                     id,
                     before.text("slug"),
                     call.answer(200, fleet_json(now), kPassing),
                     {{"name", name}, {"before", before.text("name")}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> delete_fleet(Call& call) {
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row fleet = co_await find_fleet_in(tx, call, call.parameter("id"));
    call.check_match(fleet_json(fleet), kPassing);
    const std::string id = fleet.text("id"), slug = fleet.text("slug");
    try {
      co_await tx.query(sql::kFleetDelete, Params().text(call.org()).text(id));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "the fleet has devices")
          .with("fleet", slug)
          .hint("move or remove its devices first");
    }
    co_return Change{"fleet", id, slug, json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work);
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

Task<net::Reply> list_keys(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kProvisioningKeyList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(key_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> create_key(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string fleet_name = in.string("fleet_id", {.min = 1, .max = 63}),
                    name = in.optional_string("name", {.min = 1, .max = 100}).value_or("key");
  const auto uses = in.optional_integer("max_uses", {.min = 1, .max = 1'000'000'000});
  const auto expires = read_expiry(in, "expires_in", kLongestKey);
  in.finish();
  const services::FreshKey key = services::make_key("flp_");
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row fleet = co_await find_fleet_in(tx, call, fleet_name);
    Params params;
    params.text(id)
        .text(call.org())
        .text(fleet.text("id"))
        .text(name)
        .text(key.prefix)
        .bytes(key.hash);
    params.text(uses ? std::optional(std::to_string(*uses)) : std::nullopt).time(expires);
    co_await tx.query(sql::kProvisioningKeyInsert, std::move(params));
    const auto rows =
        co_await tx.query(sql::kProvisioningKeyGet, Params().text(call.org()).text(id));
    bj::object out = key_json(rows.rows.at(0));
    out["secret"] = key.secret;
    co_return Change{
        "provisioning_key", id, name, json_reply(201, out), {{"fleet", fleet.text("slug")}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> revoke_key(Call& call) {
  const std::string id = KeyId::parse(call.parameter("id")).text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto rows =
        co_await tx.query(sql::kProvisioningKeyGet, Params().text(call.org()).text(id));
    if (rows.empty()) throw Error(Code::kNotFound, "no such provisioning key").with("id", id);
    co_await tx.query(sql::kProvisioningKeyRevoke, Params().text(call.org()).text(id));
    co_return Change{"provisioning_key", id, rows.rows.front().text("name"),
                     json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

Task<Row> find_fleet(Call& call, std::string id_or_slug) {
  const auto rows = co_await call.query(sql::kFleetGet, Params().text(call.org()).text(id_or_slug));
  if (rows.empty()) throw no_such_fleet(id_or_slug);
  co_return rows.rows.front();
}

Task<std::vector<std::string>> find_fleets(Call& call, std::vector<std::string> names) {
  std::vector<std::string> ids;
  for (std::string& name : names) {
    const Row fleet = co_await find_fleet(call, std::move(name));
    ids.push_back(fleet.text("id"));
  }
  co_return ids;
}

void add_fleet_routes(Context& c) {
  c.add(allowed("listFleets", "GET", "/v1/fleets", Permission::kFleetsRead), list_fleets);
  c.add(allowed("createFleet", "POST", "/v1/fleets", Permission::kFleetsWrite), create_fleet);
  c.add(allowed("getFleet", "GET", "/v1/fleets/{id}", Permission::kFleetsRead), get_fleet);
  c.add(allowed("renameFleet", "PATCH", "/v1/fleets/{id}", Permission::kFleetsWrite), rename_fleet);
  c.add(allowed("deleteFleet", "DELETE", "/v1/fleets/{id}", Permission::kFleetsWrite),
        delete_fleet);
  c.add(allowed("listProvisioningKeys", "GET", "/v1/provisioning-keys", Permission::kKeysRead),
        list_keys);
  c.add(allowed("createProvisioningKey", "POST", "/v1/provisioning-keys", Permission::kKeysWrite),
        create_key);
  c.add(allowed("revokeProvisioningKey", "DELETE", "/v1/provisioning-keys/{id}",
                Permission::kKeysWrite),
        revoke_key);
}

}  // namespace flock::targets::api
