// SPDX-License-Identifier: Apache-2.0
// How long a rollout takes when nothing comes between: before it is begun, for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "domain/rollout_plan.h"

namespace flock::domain {

struct Forecast {
  std::int64_t begins_ms = 0;  // Unix time; of one that needs an approval: at the earliest
  // Every device confirms at once, after its own soak.
  std::int64_t earliest_end_ms = 0;
  // Every device takes its whole failure_timeout, at each try, and those that are away come at the
  // end of offline_patience. Nothing where `unless` says why nobody can know.
  std::optional<std::int64_t> latest_end_ms;
  std::string unless;
};

// What the devices themselves are given.
struct DeviceTimes {
  Duration soak{0};             // they must stay healthy for so long
  Duration failure_timeout{0};  // they fail after it
};
// `ends` are those of stage_ends(); `offline` of the devices are away now.
Forecast forecast(const RolloutPlan& plan, const std::vector<std::int64_t>& ends,
                  std::int64_t offline, const DeviceTimes& times, std::int64_t now_ms);

}  // namespace flock::domain
