// SPDX-License-Identifier: Apache-2.0
// What devices say, as JSON: the same in REST answers, streams and customer events.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>

#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::domain {

boost::json::object reported_json(const device::v1::ReportedState& report);
boost::json::object host_command_json(const device::v1::HostCommandState& state);
boost::json::object exit_json(const device::v1::Exit& exit);
const char* command_state(device::v1::CommandResult::State state);
// A device's clock can say anything; RFC 3339 ends with the year 9999.
TimePoint device_time(std::int64_t unix_ms);

}  // namespace flock::domain
