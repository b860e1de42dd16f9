// SPDX-License-Identifier: Apache-2.0
// What is held against the present before a deployment is made: whether anybody is meant, and whose
// they are.
#pragma once

#include <string>
#include <vector>

#include "domain/rollout_plan.h"
#include "services/rollout_selection.h"

namespace flock::services {

// Throws Error{kUnprocessable} with each label and attribute that the filter or the plan names and
// no device has: one that was misspelt would mean nobody, or everybody.
Task<void> check_keys(postgres::Transaction& tx, std::string org, domain::Filter filter,
                      const domain::RolloutPlan& plan);

// Another open rollout that has some of the devices.
struct Conflict {
  OpenRollout rollout;
  domain::Contest outcome = domain::Contest::kTaken;
  std::int64_t devices = 0;
  std::vector<std::string> names;  // of up to five of them
};
Task<std::vector<Conflict>> conflicts_of(postgres::Transaction& tx, Claim claim,
                                         std::vector<OpenRollout> others, std::string org);
// Throws Error{kConflict} naming every rollout that has devices of the claim and may keep them,
// unless the deployment leaves those out, and Error{kUnprocessable} when nobody is left. Nobody is
// enough for a whole fleet, and where membership is dynamic and `allow_empty` says so.
Task<void> check_reach(postgres::Transaction& tx, std::string org, Claim claim, bool allow_empty);

}  // namespace flock::services
