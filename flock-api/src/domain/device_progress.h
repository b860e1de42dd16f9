// SPDX-License-Identifier: Apache-2.0
// What a device's report says about its part in a rollout.
#pragma once

#include <cstdint>
#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::domain {

// What one report says about a device's part in a rollout: the state's name in the API and the
// reason of a failure. "" when the report is about another version.
struct DeviceProgress {
  std::string state, reason;
  bool unhealthy = false;   // a wanted service is
  bool restarting = false;  // a wanted service was restarted kLoop times or more
};
inline constexpr std::uint32_t kLoop = 3;
// CONFIRMED needs the proof: the phase, and for every wanted service a running container of exactly
// the wanted digest that is healthy or has no check.
DeviceProgress progress_of(const device::v1::ReportedState& report,
                           const device::v1::DesiredState& desired);

}  // namespace flock::domain
