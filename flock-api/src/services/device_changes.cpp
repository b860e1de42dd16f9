// SPDX-License-Identifier: Apache-2.0
#include "services/device_changes.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/json.h"
#include "base/log.h"
#include "stores/postgres/device_statements.h"

namespace flock::services {
namespace {

namespace bj = boost::json;
namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// One statement must end within the connection's limit, however many devices there are.
constexpr std::int64_t kSlice = 10'000;

}  // namespace

std::string DeviceChange::to_json() const {
  return bj::serialize(bj::object{{"set_labels", json::parse(set_labels)},
                                  {"remove_labels", bj::value_from(remove_labels)},
                                  {"move_to_fleet_id", fleet}});
}

DeviceChange DeviceChange::from_json(const std::string& text) {
  const bj::value value = json::parse(text);
  return {bj::serialize(value.at("set_labels")),
          bj::value_to<std::vector<std::string>>(value.at("remove_labels")),
          std::string(value.at("move_to_fleet_id").as_string())};
}

Task<std::int64_t> change_devices(postgres::Transaction& tx, std::string org, std::string actor,
                                  DeviceChange change, std::vector<std::string> ids) {
  std::int64_t changed = 0;
  if (change.set_labels != "{}" || !change.remove_labels.empty()) {
    const Params labels =
        Params().text(org).texts(ids).text(change.set_labels).texts(change.remove_labels);
    const auto full = co_await tx.query(sql::kTooManyLabels, labels);
    if (!full.empty())
      throw Error(Code::kUnprocessable, "a device would have more than 64 labels")
          .with("device", full.rows.front().text("id"));
    Params with_actor = labels;
    changed += (co_await tx.query(sql::kRelabel, with_actor.text(actor))).affected;
  }
  if (!change.fleet.empty()) {
    const Params move = Params().text(org).texts(ids).text(change.fleet);
    co_await tx.query(sql::kMoveLeave, move);
    co_await tx.query(sql::kMoveForget, move);
    Params with_actor = move;
    changed += (co_await tx.query(sql::kMove, with_actor.text(actor))).affected;
  }
  co_return changed;
}

Task<bool> carry_out(postgres::Transaction& tx, std::string org, std::string operation) {
  const Params named = Params().text(org).text(operation);
  const auto taken = co_await tx.query(sql::kOperationTake, named);
  if (taken.empty()) co_return false;
  const Row& row = taken.rows.front();
  const DeviceChange change = DeviceChange::from_json(row.text("request"));
  const std::int64_t total = row.integer("total_count");
  std::int64_t changed = 0;
  for (std::int64_t from = 1; from <= total; from += kSlice) {
    Params slice = named;
    const auto ids =
        co_await tx.query(sql::kOperationDevices, slice.integer(from).integer(from + kSlice - 1));
    changed +=
        co_await change_devices(tx, org, row.text("actor"), change, ids.rows.at(0).texts("ids"));
  }
  Params done = named;
  co_await tx.query(sql::kOperationDone, done.integer(changed));
  co_return true;
}

Task<bool> run_next_operation(postgres::Database& db) {
  const auto next = co_await db.query(Scope::system(), sql::kOperationNext);
  if (next.empty()) co_return false;
  const Row& row = next.rows.front();
  const std::string org = row.text("org_id"), id = row.text("id");
  const auto fleets = row.optional_texts("fleets");
  // What the caller may not see, his operation does not change either.
  const Scope scope =
      fleets ? Scope::fleets(OrgId::trusted(org), *fleets) : Scope::tenant(OrgId::trusted(org));
  std::string problem;
  bool mine = false;
  try {
    co_await db.transaction(scope, [&](postgres::Transaction& tx) -> Task<void> {
      mine = co_await carry_out(tx, org, id);
    });
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled || error.code() == Code::kUnavailable) throw;
    log::warn("an operation failed; nothing of it was done", error, {{"operation", id}});
    problem = error.code() == Code::kInternal ? "something failed inside" : error.message();
  }
  if (!problem.empty())
    co_await db.query(Scope::system(), sql::kOperationFailed,
                      Params().text(org).text(id).text(problem));
  co_return mine || !problem.empty();
}

}  // namespace flock::services
