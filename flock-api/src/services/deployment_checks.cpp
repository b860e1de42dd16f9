// SPDX-License-Identifier: Apache-2.0
#include "services/deployment_checks.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <set>
#include <utility>

#include "base/error.h"
#include "stores/postgres/selection_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using namespace domain;
using postgres::Params;
using postgres::Row;

std::string devices(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " device" : " devices");
}

std::string joined(const std::vector<std::string>& names, std::int64_t count) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return static_cast<std::int64_t>(names.size()) < count ? out + ", ..." : out;
}

Error clash(const std::vector<Conflict>& conflicts) {
  std::vector<Problem> problems;
  for (const Conflict& conflict : conflicts) {
    if (conflict.outcome != Contest::kRefused) continue;
    problems.push_back(
        {"/priority", "conflict",
         "rollout " + conflict.rollout.id + " of " +
             (conflict.rollout.release_version ? "release " + *conflict.rollout.release_version
                                               : "a host command") +
             ", with priority " + std::to_string(conflict.rollout.rank.priority) + ", has " +
             devices(conflict.devices) + ": " + joined(conflict.names, conflict.devices)});
  }
  return Error(Code::kConflict, "devices of the target are in other open rollouts")
      .problems(std::move(problems))
      .hint("give it a higher priority, or on_conflict LEAVE_OUT, or wait until they have ended");
}

Error nobody(const Claim& claim, std::int64_t conflicting) {
  const bool by_filter =
      !claim.selector.filter.parts.empty() || claim.selector.filter.kind != Filter::Kind::kAnd;
  std::string detail =
      conflicting > 0 ? "all that it means stay in other open rollouts: " + devices(conflicting)
                      : "no device is meant by it";
  return Error(Code::kUnprocessable, "the deployment would reach nobody")
      .problems({{by_filter ? "/target/filter" : "/target", "nobody", std::move(detail)}})
      .hint(claim.selector.membership == Membership::kDynamic
                ? "allow_empty: true makes one for devices that are still to come"
                : "flock devices ls --filter shows whom a filter means");
}

// Where a deployment names labels, and which.
std::vector<std::pair<const char*, std::string>> labels_of(const Filter& filter,
                                                           const RolloutPlan& plan) {
  std::vector<std::pair<const char*, std::string>> out;
  for (const std::string& key : keys_of(filter, "labels")) out.emplace_back("/target/filter", key);
  if (!plan.spread_over.empty()) out.emplace_back("/strategy/spread_over", plan.spread_over);
  if (plan.limits.down.any())
    out.emplace_back("/strategy/max_down_per/label", plan.limits.down.label);
  return out;
}

}  // namespace

Task<void> check_keys(postgres::Transaction& tx, std::string org, Filter filter,
                      const RolloutPlan& plan) {
  std::vector<Problem> problems;
  const auto places = labels_of(filter, plan);
  std::set<std::string> named;
  for (const auto& [place, key] : places) named.insert(key);
  const auto missing = co_await tx.query(sql::kUnknownLabels,
                                         Params().text(org).texts({named.begin(), named.end()}));
  std::vector<std::string> known;
  if (!missing.empty()) {
    const auto rows = co_await tx.query(sql::kKnownLabels, Params().text(org));
    for (const Row& row : rows.rows) known.push_back(row.text("key"));
  }
  for (const Row& row : missing.rows) {
    const std::string missed = row.text("key");
    for (const auto& [place, key] : places)
      if (key == missed)
        problems.push_back(
            {place, "unknown_label", "no device has the label " + key + suggest_keys(known, key)});
  }
  const auto attributes = co_await tx.query(
      sql::kUnknownAttributes, Params().text(org).texts(keys_of(filter, "attributes")));
  for (const Row& row : attributes.rows)
    problems.push_back(
        {"/target/filter", "unknown_attribute", "no device has the attribute " + row.text("key")});
  if (problems.empty()) co_return;
  throw Error(Code::kUnprocessable, "the target names what no device has")
      .problems(std::move(problems))
      .hint("flock devices ls shows labels; allow_empty: true takes those that are still to come");
}

Task<std::vector<Conflict>> conflicts_of(postgres::Transaction& tx, Claim claim,
                                         std::vector<OpenRollout> others, std::string org) {
  postgres::Selection selection{OrgId::trusted(org), claim.selector};
  for (const OpenRollout& other : others) selection.held_by.push_back(other.id);
  std::vector<Conflict> out;
  if (others.empty()) co_return out;
  const postgres::Statement asked = postgres::selection_conflicts(selection, system_clock().now());
  const auto rows = co_await tx.query(asked.text.c_str(), asked.params);
  for (const Row& row : rows.rows) {
    const auto other = std::find_if(others.begin(), others.end(), [&](const OpenRollout& each) {
      return each.id == row.text("rollout_id");
    });
    out.push_back(
        {*other, contest(claim.rank, claim.on_conflict, other->rank), row.integer("count"),
         boost::json::value_to<std::vector<std::string>>(boost::json::parse(row.text("names")))});
  }
  co_return out;
}

Task<void> check_reach(postgres::Transaction& tx, std::string org, Claim claim, bool allow_empty) {
  const bool dynamic = claim.selector.membership == Membership::kDynamic;
  const bool may_be_empty = dynamic && (allow_empty || claim.selector.is_whole_fleet());
  const postgres::Selection selection = co_await selection_of(tx, org, claim);
  if (may_be_empty && selection.held_by.empty()) co_return;
  const postgres::Statement asked = postgres::selection_count(selection, system_clock().now());
  const auto rows = co_await tx.query(asked.text.c_str(), asked.params);
  const std::int64_t count = rows.rows.at(0).integer("count"),
                     conflicting = rows.rows.at(0).integer("conflicting");
  if (conflicting > 0 && claim.on_conflict != OnConflict::kLeaveOut)
    throw clash(co_await conflicts_of(tx, claim, co_await open_rollouts(tx, org), org));
  if (count == conflicting && !may_be_empty) throw nobody(claim, conflicting);
}

}  // namespace flock::services
