// SPDX-License-Identifier: Apache-2.0
// Host commands as JSON: as people write them, as they are stored with the deployment, and what
// devices say of them (docs/host-commands.md).
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "base/json.h"
#include "flock/device/v1/device.pb.h"

namespace flock::services {

// Without id. Faults go to the reader, with their pointers.
device::v1::HostCommand read_host_command(json::Reader& in);
// The same, from what host_command_json() made. Throws Error{kCorrupt}.
device::v1::HostCommand stored_host_command(const std::string& text);
boost::json::object host_command_json(const device::v1::HostCommand& command);

// The id under which a device does it once: another attempt is another one.
std::string host_command_id(const std::string& deployment, std::int64_t attempt);

}  // namespace flock::services
