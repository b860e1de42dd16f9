// SPDX-License-Identifier: Apache-2.0
// One change of many devices, and the operations that carry such work out.
#include <algorithm>

#include "services/device_changes.h"
#include "stores/postgres/device_query.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr std::int64_t kMostDevices = 1'000'000;
// Up to so many while the caller waits; more in the background (ApiTarget). Either way in one
// transaction.
constexpr std::int64_t kAtOnce = 10'000;
constexpr std::size_t kMostIds = 10'000;
constexpr std::string_view kPassing[] = {"state", "counts", "ended_at", "problem"};

bj::object operation_json(const Row& row) {
  bj::object out{
      {"id", row.text("id")},
      {"kind", row.text("kind")},
      {"state", row.text("state")},
      {"actor", row.text("actor")},
      {"request", json::parse(row.text("request"))},
      {"counts",
       {{"total", row.integer("total_count")}, {"changed", row.integer("changed_count")}}}};
  if (const auto problem = row.optional_text("problem"))
    out["problem"] = bj::object{{"detail", *problem}};
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "ended_at", row.optional_time("ended_at"));
  return out;
}

struct Batch {
  domain::Filter filter;
  std::optional<std::vector<std::string>> ids;
  std::optional<std::int64_t> expected;
  services::DeviceChange change;
  std::string fleet;  // id or slug
};

void read_targets(json::Reader& in, Batch& batch) {
  const auto filter = in.optional_string("filter", {.min = 1, .max = 4096});
  const bool by_ids = in.optional_value("device_ids") != nullptr;
  batch.expected = in.optional_integer("expected_count", {.min = 0, .max = kMostDevices});
  if (filter.has_value() == by_ids)
    in.problem("filter", "required", "give filter or device_ids, and only one of them");
  if (filter) {
    try {
      batch.filter = domain::parse_filter(*filter, postgres::device_fields());
    } catch (const Error& error) {
      for (const Problem& problem : error.problems())
        in.problem("filter", problem.code, problem.detail);
    }
    if (!batch.expected)
      in.problem("expected_count", "required",
                 "say how many devices you mean: GET /v1/devices shows them");
  }
  if (!by_ids) return;
  batch.ids = in.optional_strings("device_ids", kMostIds, {.min = 36, .max = 36});
  std::sort(batch.ids->begin(), batch.ids->end());
  batch.ids->erase(std::unique(batch.ids->begin(), batch.ids->end()), batch.ids->end());
  for (const std::string& id : *batch.ids) {
    if (!is_uuid(id)) in.problem("device_ids", "invalid", "must be ids of devices");
  }
  if (batch.ids->empty()) in.problem("device_ids", "invalid", "must name a device");
}

Batch read_batch(const bj::value& body) {
  json::Reader in(body);
  Batch batch;
  read_targets(in, batch);
  batch.change.set_labels = bj::serialize(read_labels(in, "set_labels", nullptr));
  batch.change.remove_labels = read_label_keys(in, "remove_labels");
  batch.fleet = in.optional_string("move_to_fleet_id", {.min = 1, .max = 63}).value_or("");
  if (batch.change.set_labels == "{}" && batch.change.remove_labels.empty() && batch.fleet.empty())
    in.problem("", "required", "name a change: set_labels, remove_labels or move_to_fleet_id");
  in.finish();
  return batch;
}

void check_count(const Batch& batch, std::int64_t count) {
  if (batch.ids && count != static_cast<std::int64_t>(batch.ids->size()))
    throw Error(Code::kNotFound, "not all of the devices are there")
        .with("found_count", std::to_string(count));
  if (batch.expected && count != *batch.expected)
    throw Error(Code::kConflict, "the filter means another number of devices than you expect")
        .with("expected_count", std::to_string(*batch.expected))
        .with("actual_count", std::to_string(count))
        .hint("look at the devices again and repeat with the actual count");
}

Task<Row> find_operation_in(postgres::Transaction& tx, Call& call, std::string id) {
  const auto rows = co_await tx.query(sql::kOperationGet, Params().text(call.org()).text(id));
  co_return rows.rows.at(0);
}

Task<net::Reply> batch_update(Call& call) {
  const bj::value body = read_body(call.request);
  const Batch batch = read_batch(body);
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    services::DeviceChange change = batch.change;
    if (!batch.fleet.empty()) change.fleet = co_await fleet_id_in(tx, call, batch.fleet);
    const postgres::NewOperation operation{
        id,           "UPDATE_DEVICES", actor_of(call),  change.to_json(), call.who.fleets,
        batch.filter, batch.ids,        kMostDevices + 1};
    const postgres::Statement insert =
        postgres::operation_insert(call.who.org, operation, system_clock().now());
    const auto made = co_await tx.query(insert.text.c_str(), insert.params);
    const std::int64_t count = made.rows.at(0).integer("total_count");
    check_count(batch, count);
    if (count <= kAtOnce) co_await services::carry_out(tx, call.org(), id);
    const Row row = co_await find_operation_in(tx, call, id);
    net::Reply reply =
        call.answer(row.text("state") == "DONE" ? 200 : 202, operation_json(row), kPassing);
    reply.response.headers.add("Location", "/v1/operations/" + id);
    co_return Change{"operation", id, row.text("kind"), std::move(reply), body.as_object()};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> get_operation(Call& call) {
  const std::string id = call.parameter("id");
  postgres::Rows rows;
  if (is_uuid(id))
    rows = co_await call.query(sql::kOperationGet, Params().text(call.org()).text(id));
  if (rows.empty()) throw Error(Code::kNotFound, "no such operation").with("operation", id);
  co_return call.answer(200, operation_json(rows.rows.front()), kPassing);
}

Task<net::Reply> list_operations(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  if (!page.after.empty() && !is_uuid(page.after))
    throw bad_parameter("page_token", "it is not one of ours");
  const auto rows = co_await call.query(
      sql::kOperationList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(operation_json(row));
  co_return list_reply(std::move(items), page);
}

}  // namespace

void add_operation_routes(Context& c) {
  c.add(allowed("batchUpdateDevices", "POST", "/v1/devices:batchUpdate", Permission::kDevicesWrite),
        batch_update);
  c.add(allowed("listOperations", "GET", "/v1/operations", Permission::kDevicesRead),
        list_operations);
  c.add(allowed("getOperation", "GET", "/v1/operations/{id}", Permission::kDevicesRead),
        get_operation);
}

}  // namespace flock::targets::api
