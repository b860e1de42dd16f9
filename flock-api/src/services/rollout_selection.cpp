// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_selection.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "stores/postgres/device_fields.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/selection_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using namespace domain;
using postgres::Params;
using postgres::Row;
using postgres::Scope;
using postgres::Selection;
using postgres::Statement;

// Devices of one transaction, and transactions of one round; the next round goes on.
constexpr std::int64_t kChanged = 5000;
constexpr int kBatches = 20;

Task<postgres::Rows> run(postgres::Transaction& tx, Statement statement) {
  co_return co_await tx.query(statement.text.c_str(), std::move(statement.params));
}

// With those that match but may not join: what stands behind has no say about them either.
Task<std::vector<std::string>> join(postgres::Transaction& tx, const std::string& org,
                                    const Row& deployment, std::vector<std::string> ids) {
  std::vector<std::string> matched;
  try {
    const Selection selection = co_await selection_of(tx, org, stored_claim(deployment));
    const auto rows =
        co_await run(tx, postgres::rollout_newcomers(selection, deployment.text("rollout_id"), ids,
                                                     system_clock().now()));
    for (const Row& row : rows.rows) matched.push_back(row.text("id"));
  } catch (const Error& error) {
    if (error.code() != Code::kCorrupt) throw;
    log::error("nobody can join a deployment that stands", error,
               {{"deployment", deployment.text("id")}});
  }
  co_return matched;
}

Task<void> adopt_of(postgres::Transaction& tx, std::string org, std::vector<std::string> ids) {
  const auto standing = co_await tx.query(sql::kStandingDeployments, Params().text(org));
  for (const Row& deployment : standing.rows) {
    if (ids.empty()) co_return;
    const auto matched = co_await join(tx, org, deployment, ids);
    const auto is_matched = [&](const std::string& id) {
      return std::find(matched.begin(), matched.end(), id) != matched.end();
    };
    if (!matched.empty()) std::erase_if(ids, is_matched);
  }
}

// What a fleet runs goes to its newcomers at once; RolloutEngine::sweep_latecomers() finds the
// others.
Task<void> adopt_for_fleets(postgres::Transaction& tx, std::string org,
                            std::vector<std::string> ids) {
  const auto devices = co_await tx.query(sql::kLatecomersAmong, Params().text(org).texts(ids));
  for (const Row& device : devices.rows)
    co_await tx.query(sql::kRolloutNewcomer,
                      Params().text(org).text(device.text("rollout_id")).text(device.text("id")));
}

}  // namespace

Claim stored_claim(const Row& deployment) {
  Claim claim;
  claim.selector.fleet = deployment.optional_text("fleet_id");
  claim.selector.devices = deployment.optional_texts("device_ids");
  const auto membership = membership_named(deployment.text("membership"));
  const auto on_conflict = on_conflict_named(deployment.text("on_conflict"));
  if (!membership || !on_conflict)
    throw Error(Code::kCorrupt, "a stored deployment says nothing that is known about its members")
        .with("deployment", deployment.text("id"));
  try {
    claim.selector.filter = parse_filter(deployment.text("filter"), postgres::device_fields());
  } catch (const Error& error) {
    throw Error(Code::kCorrupt, "a stored filter cannot be read: " + error.describe())
        .with("deployment", deployment.text("id"));
  }
  claim.selector.membership = *membership;
  claim.on_conflict = *on_conflict;
  claim.rank = {deployment.integer("priority"), deployment.text("id")};
  return claim;
}

Task<std::vector<OpenRollout>> open_rollouts(postgres::Transaction& tx, std::string org) {
  const auto rows = co_await tx.query(sql::kOpenRollouts, Params().text(org));
  std::vector<OpenRollout> out;
  for (const Row& row : rows.rows)
    out.push_back({row.text("id"),
                   row.optional_text("release_version"),
                   row.text("state"),
                   {row.integer("priority"), row.text("deployment_id")}});
  co_return out;
}

Task<Selection> selection_of(postgres::Transaction& tx, std::string org, Claim claim) {
  Selection selection{OrgId::trusted(org), std::move(claim.selector)};
  for (const OpenRollout& other : co_await open_rollouts(tx, org))
    if (other.rank.deployment != claim.rank.deployment &&
        contest(claim.rank, claim.on_conflict, other.rank) != Contest::kTaken)
      selection.held_by.push_back(other.id);
  co_return selection;
}

Task<void> open_to_newcomers(postgres::Transaction& tx, std::string org, std::string deployment,
                             std::string rollout) {
  const auto rows = co_await tx.query(sql::kDeploymentGet, Params().text(org).text(deployment));
  const Claim claim = stored_claim(rows.rows.at(0));
  if (claim.selector.membership == Membership::kFrozen) co_return;
  const auto params = [&] { return Params().text(org).text(deployment); };
  if (claim.selector.is_whole_fleet()) {
    co_await tx.query(sql::kFleetDeployment,
                      Params().text(org).text(*claim.selector.fleet).text(deployment));
  } else {
    co_await tx.query(sql::kDeploymentStands, params());
  }
  co_await tx.query(sql::kDeploymentDisplaces, params());
  co_await run(tx, postgres::rollout_adopt(co_await selection_of(tx, org, claim), rollout,
                                           system_clock().now()));
}

Task<void> close_to_newcomers(postgres::Transaction& tx, std::string org, std::string deployment,
                              std::string rollout) {
  co_await tx.query(sql::kFleetRestore, Params().text(org).text(rollout));
  co_await tx.query(sql::kDeploymentFalls, Params().text(org).text(deployment));
}

Task<void> adopt_changed(postgres::Term term) {
  bool more = true;
  for (int batch = 0; batch < kBatches && more; ++batch) {
    const auto work = [&](postgres::Transaction& tx) -> Task<void> {
      const auto changed = co_await tx.query(sql::kChangedDevices, Params().integer(kChanged));
      more = static_cast<std::int64_t>(changed.rows.size()) == kChanged;
      if (changed.empty()) co_return;
      std::map<std::string, std::vector<std::string>> devices;  // by organization
      std::vector<std::string> ids;
      for (const Row& row : changed.rows) {
        devices[row.text("org_id")].push_back(row.text("id"));
        ids.push_back(row.text("id"));
      }
      for (auto& [org, of_org] : devices) {
        co_await adopt_of(tx, org, of_org);
        co_await adopt_for_fleets(tx, org, of_org);
      }
      co_await tx.query(sql::kDevicesSelected, Params().texts(ids));
    };
    co_await term.transaction(Scope::system(), work);
  }
}

}  // namespace flock::services
