// SPDX-License-Identifier: Apache-2.0
#include "domain/rollout_forecast.h"

#include <algorithm>

namespace flock::domain {
namespace {

constexpr std::int64_t kMinute = 60'000;

// How long `devices` take under the limits when each takes `each` ms.
std::int64_t span(const Limits& limits, std::int64_t devices, std::int64_t each) {
  if (devices == 0) return 0;
  std::int64_t longest = each;
  if (limits.updating > 0)
    longest = std::max(longest, (devices + limits.updating - 1) / limits.updating * each);
  if (limits.per_minute > 0)
    longest = std::max(longest, (devices - 1) / limits.per_minute * kMinute + each);
  return longest;
}

// Of a device that takes its time with each try.
std::int64_t longest_part(const Retries& retries, const DeviceTimes& times) {
  return times.failure_timeout.count() * (retries.times + 1) +
         retries.after.count() * retries.times;
}

std::string who_decides(const RolloutPlan& plan) {
  if (plan.approval) return "it waits for the approval of a second person";
  for (std::size_t i = 0; i + 1 < plan.stages.size(); ++i)
    if (plan.stages[i].by_hand)
      return "stage " + std::to_string(i + 2) + " begins when an operator says so";
  if (!plan.windows.empty()) return "devices begin in their maintenance windows only";
  if (plan.limits.down.any())
    return "devices with the same " + plan.limits.down.label +
           " wait for those of them that are down";
  return "";
}

}  // namespace

Forecast forecast(const RolloutPlan& plan, const std::vector<std::int64_t>& ends,
                  std::int64_t offline, const DeviceTimes& times, std::int64_t now_ms) {
  Forecast out;
  out.begins_ms = std::max(now_ms, plan.start_at_ms);
  out.unless = who_decides(plan);
  std::int64_t earliest = out.begins_ms, latest = out.begins_ms, before = 0;
  const std::int64_t total = ends.empty() ? 0 : ends.back();
  for (std::size_t i = 0; total > 0 && i < plan.stages.size(); ++i) {
    const std::int64_t devices = ends.at(i) - before, soak = plan.stages[i].soak.count();
    before = ends[i];
    std::int64_t longest = span(plan.limits, devices, longest_part(plan.retries, times));
    // Of earlier stages one device's word is enough.
    if (i + 1 == plan.stages.size() && offline > 0)
      longest = std::max(longest, plan.offline_patience.count());
    earliest += span(plan.limits, devices, times.soak.count()) + soak;
    latest += longest + soak;
  }
  out.earliest_end_ms = earliest;
  if (out.unless.empty()) out.latest_end_ms = std::max(latest, earliest);
  return out;
}

}  // namespace flock::domain
