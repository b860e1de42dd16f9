// SPDX-License-Identifier: Apache-2.0
// A rollout's plan and progress as JSON: the plan as people write it and as it is stored with the
// deployment, the progress as the engine keeps it.
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "base/json.h"
#include "domain/rollout_decide.h"
#include "services/gate_json.h"

namespace flock::services {

// Reads a strategy: `kind` and what belongs to it. Faults go to the reader, with their pointers.
// Of stages that do not reach every device the last is added.
domain::RolloutPlan read_plan(json::Reader& strategy);
// The same, from what plan_json() made. Throws Error{kCorrupt}.
domain::RolloutPlan stored_plan(const std::string& text);
boost::json::object plan_json(const domain::RolloutPlan& plan);

// What a rollout's row does not have columns for.
std::string progress_json(const domain::RolloutProgress& progress);
void read_progress(const std::string& text, domain::RolloutProgress& progress);

boost::json::object counts_json(const domain::StageCounts& counts);

}  // namespace flock::services
