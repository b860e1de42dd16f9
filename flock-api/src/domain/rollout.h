// SPDX-License-Identifier: Apache-2.0
// The decisions of a rollout, without clock, database or network.
#pragma once

#include <cstdint>
#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::domain {

struct RolloutCounts {
  std::int64_t total = 0, confirmed = 0, failed = 0, superseded = 0;
  std::int64_t open() const noexcept { return total - confirmed - failed - superseded; }
};

enum class Verdict { kContinue, kComplete, kFail, kSuperseded };
struct Judgement {
  Verdict verdict = Verdict::kContinue;
  std::string reason;
};
// `max_failed_ratio` 0..1 of the devices that were not superseded: above it the rollout fails at
// once, otherwise it waits for the rest. It completes when every device is settled and the share of
// failures is within the limit and not everything failed.
Judgement judge(const RolloutCounts& counts, double max_failed_ratio,
                const std::string& first_failure);

// What one report says about a device's part in a rollout: the state's name in the API and the
// reason of a failure. "" when the report is about another version.
struct DeviceProgress {
  std::string state, reason;
};
// CONFIRMED needs the proof: the phase, and for every wanted service a running container of exactly
// the wanted digest that is healthy or has no check.
DeviceProgress progress_of(const device::v1::ReportedState& report,
                           const device::v1::DesiredState& desired);

}  // namespace flock::domain
