// SPDX-License-Identifier: Apache-2.0
// Private to this room: a service as libpod's SpecGenerator JSON.
#pragma once

#include <string>
#include <vector>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

inline constexpr const char* kManagedLabel = "io.flock.managed";
inline constexpr const char* kServiceLabel = "io.flock.service";
inline constexpr const char* kConfigLabel = "io.flock.config";

std::string volume_name(const std::string& volume);
// The networks of ours that the service joins. A release of one service without networks of its own
// stays on Podman's default one.
std::vector<std::string> networks_of(const device::v1::Service& service,
                                     const device::v1::DesiredState& desired);
std::string container_spec(const device::v1::Service& service,
                           const device::v1::DesiredState& desired, const std::string& config_hash);

}  // namespace flock::agent
