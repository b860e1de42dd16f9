// SPDX-License-Identifier: Apache-2.0
// Fleets: groups of devices that run the same.
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

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

Task<net::Reply> create_fleet(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  const std::string slug = read_slug(in, name);
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

// The fleet as it stays until the transaction ends: what If-Match was compared with is what is
// changed.
Task<Row> lock_fleet(postgres::Transaction& tx, const Call& call) {
  const std::string& name = call.parameter("id");
  co_await tx.query(sql::kFleetLock, Params().text(call.org()).text(name));
  co_return co_await find_fleet_in(tx, call, name);
}

Task<net::Reply> rename_fleet(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row before = co_await lock_fleet(tx, call);
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
    const Row fleet = co_await lock_fleet(tx, call);
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

}  // namespace

Task<Row> find_fleet_in(postgres::Transaction& tx, const Call& call, std::string name) {
  const auto rows = co_await tx.query(sql::kFleetGet, Params().text(call.org()).text(name));
  if (rows.empty()) throw no_such_fleet(name);
  co_return rows.rows.front();
}

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
}

}  // namespace flock::targets::api
