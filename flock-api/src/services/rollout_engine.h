// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "domain/rollout_decide.h"
#include "mqtt/bus.h"
#include "stores/postgres/database.h"

namespace flock::services {

// A rollout's row, read under its lock.
struct LockedRollout {
  std::string org, id, deployment;
  domain::RolloutPlan plan;
  domain::RolloutProgress progress;
  std::vector<std::int64_t> ends;
  std::vector<domain::GateView> gates;
  Duration failure_timeout{};
  std::string created_by;
};
// Nothing when there is none. Whoever decides about a rollout, the engine or an operator, does it
// under this lock.
Task<std::optional<LockedRollout>> lock_rollout(postgres::Transaction& tx, std::string org,
                                                std::string id);
Task<domain::RolloutSeen> look_at(postgres::Transaction& tx, const LockedRollout& rollout,
                                  std::int64_t now_ms);

// What an order of an operator (`actor`) changes, in his transaction. Throws Error{kConflict}.
Task<void> obey_order(postgres::Transaction& tx, LockedRollout rollout, domain::Order order,
                      std::string actor);

// Carries out what domain/rollout_decide.h decides. Each decision and all that it does is one
// transaction under the rollout's lock, so that a kill at any instruction leaves none half done,
// and two leaders cannot do one twice. Of one leadership: after its end nothing is written.
class RolloutEngine {
 public:
  RolloutEngine(postgres::Term term, mqtt::Bus& bus) : term_(term), bus_(bus) {}

  Task<void> begin_deployments();  // PENDING deployments become rollouts
  Task<void> adopt_newcomers();    // new and changed devices get what their fleets run
  Task<void> sweep_latecomers();   // so do those that have nothing yet, a part of them each time
  Task<void> hear_of_devices();    // which ones came, went or were revoked
  Task<void> advance();            // every open rollout, as far as it goes now
  Task<void> fold_tallies();       // keeps the rows few that a decision adds up

 private:
  static constexpr const char* kFirstDevice = "00000000-0000-0000-0000-000000000000";

  Task<void> begin(const postgres::Row& deployment);
  Task<void> advance_one(std::string org, std::string id);

  postgres::Term term_;
  std::string latecomers_after_ = kFirstDevice;  // where sweep_latecomers() goes on
  mqtt::Bus& bus_;
};

}  // namespace flock::services
