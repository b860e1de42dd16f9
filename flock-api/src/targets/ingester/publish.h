// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "mqtt/bus.h"

namespace flock::targets::ingester {

// A message on flock/internal/v1/`topic`.
mqtt::Message internal_message(const char* topic, std::string payload);
// All at once; returns when the broker has every one, throws what the first one failed of.
Task<void> publish_all(mqtt::Bus& bus, std::vector<mqtt::Message> messages);

}  // namespace flock::targets::ingester
