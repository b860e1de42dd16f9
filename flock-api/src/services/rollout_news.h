// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mqtt/bus.h"

namespace flock::services {

// How long a publish of the scheduler may take.
inline constexpr Duration kPublishTime{5000};

// Tells those who watch that a rollout changed. A hint: nothing waits for it and nothing depends on
// it. Nothing is done for "".
Task<void> announce_rollout(mqtt::Bus& bus, std::string org, std::string rollout);

}  // namespace flock::services
