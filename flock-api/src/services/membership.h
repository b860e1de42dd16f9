// SPDX-License-Identifier: Apache-2.0
// Tells the other targets that a device came or went.
#pragma once

#include "flock/internal/v1/internal.pb.h"
#include "mqtt/bus.h"

namespace flock::services {

enum class Membership { kRegistered, kRemoved };
// To be called after the commit. Who misses it finds the device by asking: a broker that is away
// holds nobody up, and a failure is logged.
Task<void> announce(mqtt::Bus& bus, Membership what, internal::v1::DeviceMembership event);
internal::v1::DeviceMembership membership(std::string org, std::string fleet, std::string device,
                                          std::string reason = "");

}  // namespace flock::services
